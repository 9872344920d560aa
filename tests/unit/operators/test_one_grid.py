"""A volume on another one's grid: what lies where in the patient stays there."""

from __future__ import annotations

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray

from operators.one_grid import on_grid


def _volume(array: NDArray[np.float32], affine: NDArray[np.float64]) -> highdicom.Volume:
    return highdicom.Volume(array, affine, coordinate_system="PATIENT", frame_of_reference_uid="1.2.3")


def _affine(spacing: tuple[float, float, float], origin: tuple[float, float, float]) -> NDArray[np.float64]:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return affine


def _noise(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(100, 30, shape).astype(np.float32)


def test_an_equal_grid_is_left_alone() -> None:
    grid = _volume(_noise(4, 5, 6), _affine((2, 1, 1), (0, 0, 0)))
    other = _volume(_noise(4, 5, 6) * 2, _affine((2, 1, 1), (0, 0, 5e-5)))
    moved = on_grid(other, grid)
    assert moved is not None
    assert np.array_equal(moved.array, other.array)
    assert np.array_equal(moved.affine, grid.affine)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_turned_axes_give_the_same_values(axis: int) -> None:
    grid = _volume(np.zeros((4, 5, 6), np.float32), _affine((2, 1, 1.5), (-3, 4, 0.3)))
    other = _volume(_noise(4, 5, 6), grid.affine)
    moved = on_grid(other.flip_spatial(axis), grid)
    assert moved is not None
    np.testing.assert_allclose(moved.array, other.array, atol=1e-3)


def test_a_shift_of_half_a_voxel_is_the_mean_of_two() -> None:
    other = _volume(_noise(3, 4, 5), _affine((1, 1, 1), (0, 0, 0)))
    moved = on_grid(other, _volume(np.zeros((3, 4, 4), np.float32), _affine((1, 1, 1), (0, 0, 0.5))))
    assert moved is not None
    np.testing.assert_allclose(moved.array, (other.array[..., :-1] + other.array[..., 1:]) / 2, atol=1e-3)


def test_beyond_the_outer_faces_there_is_nothing_and_up_to_them_the_outer_value() -> None:
    other = _volume(np.full((1, 1, 3), 7, np.float32), _affine((1, 1, 1), (0, 0, 0)))
    fine = _volume(np.zeros((1, 1, 20), np.float32), _affine((1, 1, 0.25), (0, 0, -1.125)))
    moved = on_grid(other, fine)
    assert moved is not None
    place = -1.125 + 0.25 * np.arange(20)
    assert np.array_equal(moved.array[0, 0], np.where((place > -0.5) & (place < 2.5), 7, 0))


def test_outer_planes_that_fall_together_are_inside_whatever_the_rounding() -> None:
    turn = np.array([[0.36, 0.48, -0.8, 0], [-0.8, 0.6, 0, 0], [0.48, 0.64, 0.6, 0], [0, 0, 0, 1.0]])
    coarse = turn @ _affine((3, 0.7, 0.7), (10.1, -33.3, 7.7))
    other = _volume(np.full((5, 8, 8), 7, np.float32), coarse)
    grid = turn @ _affine((3, 0.35, 0.35), (10.1, -33.3 - 0.175, 7.7 - 0.175))
    moved = on_grid(other, _volume(np.zeros((5, 16, 16), np.float32), grid))
    assert moved is not None
    assert np.all(moved.array == 7)


def test_what_lies_wholly_beside_the_grid_gives_nothing() -> None:
    other = _volume(_noise(3, 4, 5), _affine((1, 1, 1), (0, 0, 100)))
    assert on_grid(other, _volume(_noise(3, 4, 6), _affine((1, 1, 1), (0, 0, 0)))) is None
