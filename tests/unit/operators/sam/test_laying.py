"""Structures in one label map: what lies within another stays visible, and what that costs is counted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.sam.laying import Layers, Overlap

SHAPE = (2, 12, 10)


def _square(first: int, last: int) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE[1:], np.bool_)
    mask[first:last, first:last] = True
    return mask


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
def test_what_lies_within_another_stays_visible_whichever_comes_first(order: tuple[int, ...]) -> None:
    masks = {1: _square(0, 10), 2: _square(2, 8), 3: _square(4, 6)}
    layers = Layers()
    for label in order:
        layers.add(label, 1, masks[label])
    labels, overlaps = layers.laid(SHAPE)
    assert labels.dtype == np.uint8
    assert not labels[0].any()
    assert [int((labels[1] == label).sum()) for label in (1, 2, 3)] == [100 - 36, 36 - 4, 4]
    assert overlaps == (Overlap(1, 100, {2: 36}), Overlap(2, 36, {3: 4}))
    assert [one.left for one in overlaps] == [64, 32]


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_of_equal_ones_the_later_has_the_voxels_and_the_earlier_is_said_to_keep_none(order: tuple[int, int]) -> None:
    layers = Layers()
    for label in order:
        layers.add(label, 0, _square(2, 4))
    labels, (overlap,) = layers.laid(SHAPE)
    assert set(np.unique(labels)) == {0, order[1]}
    assert (overlap.label, overlap.given, overlap.left) == (order[0], {order[1]: 4}, 0)


def test_a_structure_is_judged_by_all_its_slices_and_gives_nothing_to_itself() -> None:
    layers = Layers()
    layers.add(300, 0, _square(0, 4))
    layers.add(300, 0, _square(2, 6))
    layers.add(300, 1, _square(0, 6))
    layers.add(7, 1, _square(0, 7))
    labels, overlaps = layers.laid(SHAPE)
    assert labels.dtype == np.uint16
    assert [int((labels == label).sum()) for label in (300, 7)] == [28, 49]
    assert overlaps == (Overlap(300, 28 + 36, {7: 36}),)


def test_what_was_not_found_has_no_voxels() -> None:
    layers = Layers()
    layers.add(1, 0, np.zeros(SHAPE[1:], np.bool_))
    labels, overlaps = layers.laid(SHAPE)
    assert not labels.any()
    assert overlaps == ()
    assert not Layers().laid(SHAPE)[0].any()


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 1), st.integers(0, 9), st.integers(0, 10)), max_size=12))
def test_every_voxel_that_was_found_is_kept_or_said_to_be_given(parts: list[tuple[int, int, int, int]]) -> None:
    layers, found = Layers(), {label: np.zeros(SHAPE, np.bool_) for label in range(1, 5)}
    for label, index, first, last in parts:
        layers.add(label, index, _square(first, last))
        found[label][index] |= _square(first, last)
    labels, overlaps = layers.laid(SHAPE)
    given_by = {one.label: one for one in overlaps}
    np.testing.assert_array_equal(labels > 0, np.any([*found.values()], axis=0))
    for label, mask in found.items():
        assert not (labels[~mask] == label).any()
        gave = given_by.get(label)
        assert int((labels == label).sum()) == (int(mask.sum()) if gave is None else gave.left)
