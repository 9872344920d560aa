"""The figures of agreement are those of their definitions, spelled out voxel by voxel."""

from __future__ import annotations

import itertools

import highdicom
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

from operators.agreement import compare_labels, surface_distance
from operators.agreement_limits import Agreement, AgreementLimits
from operators.errors import OperatorError

SPACING = (2.5, 0.8, 0.5)
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
SPACINGS = st.tuples(*[st.floats(0.2, 6.0)] * 3)
LABELS = SHAPES.flatmap(lambda shape: st.tuples(*[arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 3]))] * 2))
Labels = NDArray[np.uint8]


def volume(labels: Labels, spacing: tuple[float, ...] = SPACING, origin: float = 0.0) -> highdicom.Volume:
    affine = np.diag([*spacing, 1.0])
    affine[2, 3] = origin
    return highdicom.Volume(labels, affine, "PATIENT", frame_of_reference_uid="1.2.3")


def one(first: Labels, second: Labels, spacing: tuple[float, ...] = SPACING) -> Agreement:
    (found,) = compare_labels(volume(first, spacing), volume(second, spacing), [1])
    return found


def spelled_surface(mask: NDArray[np.bool_]) -> list[tuple[int, ...]]:
    """Voxels with one of six neighbours outside the mask or outside the array."""
    steps = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]

    def is_in(place: tuple[int, ...]) -> bool:
        return all(0 <= at < length for at, length in zip(place, mask.shape, strict=True)) and bool(mask[place])

    return [
        place
        for place in itertools.product(*map(range, mask.shape))
        if mask[place] and not all(is_in(tuple(np.add(place, step))) for step in steps)
    ]


def spelled_distance(first: NDArray[np.bool_], second: NDArray[np.bool_], spacing: tuple[float, ...]) -> float:
    """The definition, pair by pair."""
    ends = [np.array(spelled_surface(mask)) * np.array(spacing) for mask in (first, second)]
    between = np.sqrt(((ends[0][:, None] - ends[1][None]) ** 2).sum(axis=-1))
    return float(np.percentile(np.concatenate([between.min(axis=1), between.min(axis=0)]), 95))


@given(LABELS, SPACINGS)
def test_every_figure_is_its_definition_spelled_out(pair: tuple[Labels, Labels], spacing: tuple[float, ...]) -> None:
    first, second = pair
    for found in compare_labels(volume(first, spacing), volume(second, spacing), [1, 3]):
        masks = first == found.label_value, second == found.label_value
        counts = int(masks[0].sum()), int(masks[1].sum())
        ml = np.prod(spacing) / 1000
        assert (found.first_ml, found.second_ml) == pytest.approx((counts[0] * ml, counts[1] * ml))
        if not any(counts):
            assert (found.dice, found.distance_mm, found.difference_percent) == (1, 0, 0)
            continue
        assert found.dice == pytest.approx(2 * (masks[0] & masks[1]).sum() / sum(counts))
        if all(counts):
            assert found.distance_mm == pytest.approx(spelled_distance(*masks, spacing), abs=1e-9)
            assert found.difference_percent == pytest.approx(100 * (counts[1] - counts[0]) / counts[0])
        else:
            assert (found.dice, found.distance_mm) == (0, None)


@given(LABELS)
def test_it_is_the_same_from_both_sides_but_for_the_difference(pair: tuple[Labels, Labels]) -> None:
    there, back = one(pair[0], pair[1]), one(pair[1], pair[0])
    assert (there.dice, there.distance_mm) == (back.dice, back.distance_mm)
    assert there.difference_ml == -back.difference_ml


def test_the_distance_is_that_of_distance_maps_of_the_whole_volume() -> None:
    """The usual way, by Euclidean distance maps, on masks with holes and touching the edge."""
    random = np.random.default_rng(1)
    masks = [random.random((12, 30, 40)) < share for share in (0.7, 0.6)]
    masks[0][:, :10], masks[1][:, -8:] = True, True
    surfaces = [mask & ~binary_erosion(mask) for mask in masks]
    distances = [distance_transform_edt(~surfaces[1 - number], sampling=SPACING)[surfaces[number]] for number in (0, 1)]
    expected = np.percentile(np.concatenate(distances), 95)
    assert surface_distance(masks[0], masks[1], np.array(SPACING)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mask_moved_along_an_axis_is_as_far_as_that_axis_spacing(axis: int) -> None:
    labels = np.zeros((9, 9, 9), np.uint8)
    plane = [slice(1, 8)] * 3
    plane[axis] = slice(3, 4)  # one voxel thick: each of its voxels is surface, and all moved alike
    labels[tuple(plane)] = 1
    found = one(labels, np.roll(labels, 2, axis=axis))
    assert found.distance_mm == pytest.approx(2 * SPACING[axis])
    assert found.dice == 0


def test_limits_name_what_lies_beyond_them() -> None:
    limits = AgreementLimits(least_dice=0.9, most_distance_mm=3, most_difference_percent=10)
    assert limits.exceeded_by(Agreement(1, 0.9, 3.0, 100, 90)) == ()
    assert limits.exceeded_by(Agreement(1, 0.89, 3.1, 100, 111)) == ("dice", "distance", "volume")
    assert limits.exceeded_by(Agreement(1, 0.95, 1.0, 100, 88)) == ("volume",)
    assert limits.exceeded_by(Agreement(1, 1.0, 0.0, 0, 0)) == ()
    assert AgreementLimits().exceeded_by(Agreement(1, 0.1, 99, 100, 1)) == ()


@pytest.mark.parametrize(("first", "second"), [(0.0, 5.0), (5.0, 0.0)])
def test_one_that_is_empty_never_agrees(first: float, second: float) -> None:
    assert AgreementLimits().exceeded_by(Agreement(1, 0, None, first, second)) == ("one-empty",)


def test_labels_on_another_grid_are_not_compared() -> None:
    labels = np.ones((2, 3, 4), np.uint8)
    with pytest.raises(OperatorError) as raised:
        compare_labels(volume(labels), volume(labels, origin=1.0), [1])
    assert raised.value.code == "labels-elsewhere"
