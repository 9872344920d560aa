import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from operators.nnunet.plans import Resampling
from operators.nnunet.resampling import (
    Shape,
    Spacing,
    grid_neighbours,
    resample,
    resample_labels,
    resampled_shape,
    separate_axis,
    spline_blocks,
)
from tests.unit.operators.nnunet.oracle import fixture, spacing_of

PLAN = Resampling(order=3, separate_z=None)
sizes = st.integers(1, 14)
shapes = st.tuples(sizes, sizes, sizes)


@pytest.mark.parametrize("order", [3, 1])
@pytest.mark.parametrize("case", range(3))
def test_equals_nnunet(case: int, order: int) -> None:
    stages = fixture("stages")
    current, target = (spacing_of(stages[f"resample_{case}_{which}"]) for which in ("spacing", "new_spacing"))
    for channel, expected in zip(
        stages[f"resample_{case}_input"], stages[f"resample_{case}_order{order}"], strict=True
    ):
        new_shape = resampled_shape(channel.shape, current, target)
        found = resample(channel, new_shape, order, separate_axis(current, target, PLAN))
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def direct(array: NDArray[np.float32], new_shape: Shape, order: int) -> NDArray[np.float64]:
    """scipy's spline over the whole array at once in double precision, clipped: what nnU-Net computes."""
    factors = [new / old for new, old in zip(new_shape, array.shape, strict=True)]
    result = ndimage.zoom(array.astype(float), factors, order=order, mode="nearest", grid_mode=True)
    clipped: NDArray[np.float64] = np.clip(result, array.min(), array.max())
    return clipped


@settings(max_examples=60)
@given(shape=shapes, new_shape=shapes, order=st.sampled_from([1, 3]), seed=st.integers(0, 1 << 16))
def test_one_matrix_an_axis_is_the_whole_spline(shape: Shape, new_shape: Shape, order: int, seed: int) -> None:
    array = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(resample(array, new_shape, order, None), direct(array, new_shape, order), atol=1e-5)


@settings(max_examples=60)
@given(size=st.integers(1, 400), new_size=st.integers(1, 400), order=st.sampled_from([0, 1, 3]))
def test_blocks_leave_nothing_out_that_counts(size: int, new_size: int, order: int) -> None:
    """Beside single precision, of which half a unit in the last place is 6e-8, it is nothing."""
    exact = np.eye(size)
    if size != new_size:
        exact = ndimage.zoom(exact, (new_size / size, 1), order=order, mode="nearest", grid_mode=True)
    whole, times = np.zeros((new_size, size)), np.zeros(new_size, int)
    for block in spline_blocks(size, new_size, order):
        whole[block.new, block.old] = block.weights
        times[block.new] += 1
        exact[block.new, block.old] = exact[block.new, block.old].astype(np.float32)  # what is kept is rounded
    assert (times == 1).all()
    assert np.abs(whole - exact).sum(axis=1).max() < 3e-9


@settings(max_examples=20)
@given(shape=st.tuples(*[st.integers(30, 90)] * 3), new_shape=st.tuples(*[st.integers(30, 90)] * 3))
def test_long_axes_are_the_whole_spline_too(shape: Shape, new_shape: Shape) -> None:
    """Longer than a block, and of planes that are resized in more than one go."""
    array = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    out = np.full(new_shape, np.nan, np.float32)
    assert resample(array, new_shape, 3, None, out) is out
    np.testing.assert_allclose(out, direct(array, new_shape, 3), atol=5e-6)


@settings(max_examples=40)
@given(shape=shapes, new_shape=shapes, axis=st.integers(0, 2), seed=st.integers(0, 1 << 16))
def test_apart_is_plane_by_plane_then_nearest(shape: Shape, new_shape: Shape, axis: int, seed: int) -> None:
    array = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    in_plane: list[int] = list(new_shape)
    in_plane[axis] = shape[axis]
    planes = [
        direct(plane[None], (1, *in_plane[:axis], *in_plane[axis + 1 :]), 3)[0]  # type: ignore[arg-type]
        for plane in np.moveaxis(array, axis, 0)
    ]
    # nnU-Net's own step across planes: order 0 at the coordinates of all three axes
    grid = np.mgrid[tuple(slice(size) for size in new_shape)].astype(float)
    coordinates = [
        old / new * (coordinate + 0.5) - 0.5 for old, new, coordinate in zip(in_plane, new_shape, grid, strict=True)
    ]
    expected = ndimage.map_coordinates(np.stack(planes, axis), coordinates, order=0, mode="nearest")
    np.testing.assert_allclose(resample(array, new_shape, 3, axis), expected, atol=1e-5)


@settings(max_examples=60)
@given(
    shape=shapes,
    new_shape=shapes,
    order=st.sampled_from([0, 1]),
    separate=st.sampled_from([None, 0, 1, 2]),
    seed=st.integers(0, 1 << 16),
)
def test_neighbours_are_the_same_map(
    shape: Shape, new_shape: Shape, order: int, separate: int | None, seed: int
) -> None:
    array = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    mapped: NDArray[Any] = array
    for axis, along in enumerate(grid_neighbours(shape, new_shape, order, separate)):
        assert ((along.first == along.second) | (along.first + 1 == along.second)).all()
        share = along.share.reshape(-1, *[1] * (2 - axis))
        mapped = (1 - share) * mapped.take(along.first, axis) + share * mapped.take(along.second, axis)
    np.testing.assert_allclose(resample(array, new_shape, order, separate), mapped, atol=1e-5)


@settings(max_examples=60)
@given(shape=shapes, new_shape=shapes, seed=st.integers(0, 1 << 16))
def test_labels_go_where_their_indicator_is_highest(shape: Shape, new_shape: Shape, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(-1, 4, shape).astype(np.int32)
    found = resample_labels(labels, new_shape, 1, None)
    indicators = np.stack([direct((labels == label).astype(np.float32), new_shape, 1) for label in range(-1, 4)])
    chosen = np.take_along_axis(indicators, found[None].astype(np.intp) + 1, axis=0)[0]
    np.testing.assert_allclose(chosen, indicators.max(axis=0), atol=1e-12)


def test_empty_parts_stay_equal() -> None:
    """Tiles of nothing but air, the lowest value, are told by being constant: rounding must not make them differ."""
    array = np.full((60, 60, 60), -1.7654321, np.float32)
    array[40:, 40:, 40:] = np.random.default_rng(0).uniform(-1, 1, (20, 20, 20))
    resized = resample(array, (47, 71, 53), 3, None)
    assert (resized[:15, :20, :15] == array[0, 0, 0]).all()


def test_an_unchanged_grid_is_left_alone() -> None:
    array = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    assert resample(array, (3, 4, 5), 3, None) is array


@pytest.mark.parametrize(
    ("current", "target", "axis"),
    [
        ((3.0, 1.0, 1.0), (1.0, 1.0, 1.0), None),  # exactly three is not above three
        ((3.1, 1.0, 1.0), (1.0, 1.0, 1.0), 0),
        ((1.0, 5.0, 1.0), (1.0, 1.0, 1.0), 1),
        ((2.0, 1.0, 1.0), (1.0, 1.0, 4.0), 2),
        ((5.0, 5.0, 1.0), (1.0, 1.0, 1.0), None),  # two coarse axes
        ((5.0, 5.0, 1.0), (4.0, 1.0, 1.0), None),  # the current spacing alone decides once it is anisotropic
    ],
)
def test_which_axis_is_apart(current: Spacing, target: Spacing, axis: int | None) -> None:
    assert separate_axis(current, target, PLAN) == axis
    assert separate_axis(current, target, Resampling(order=3, separate_z=False)) is None


def test_an_axis_can_be_forced_apart() -> None:
    forced = Resampling(order=3, separate_z=True)
    assert separate_axis((2.0, 1.0, 1.0), (1.0, 1.0, 1.0), forced) == 0
    assert separate_axis((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), forced) is None


def test_the_threshold_can_be_planned() -> None:
    spacings = (3.5, 1.0, 1.0), (1.0, 1.0, 1.0)
    assert separate_axis(*spacings, Resampling(order=3, separate_z=None, anisotropy=4.0)) is None


@given(size=st.integers(1, 600), current=st.floats(0.3, 8), target=st.floats(0.3, 8))
def test_the_extent_is_kept(size: int, current: float, target: float) -> None:
    new_size = resampled_shape((size,) * 3, (current,) * 3, (target,) * 3)[0]
    assert math.isclose(new_size * target, size * current, abs_tol=target / 2 + 1e-6)
