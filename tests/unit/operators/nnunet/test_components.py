"""Only the largest component of some labels is kept, held against a flood fill voxel by voxel."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray

from operators.label_maps import LabelMap
from operators.nnunet.components import keep_largest_component
from tests.drawn_labels import label_choices, speckled_labels

Voxel = tuple[int, ...]


def _components(mask: NDArray[np.bool_]) -> list[set[Voxel]]:
    """The connected components of a mask; voxels that touch by a face, an edge or a corner are connected."""
    left = {tuple(place) for place in np.argwhere(mask).tolist()}
    steps = list(itertools.product((-1, 0, 1), repeat=mask.ndim))
    found = []
    while left:
        component = {left.pop()}
        edge = list(component)
        while edge:
            place = edge.pop()
            near = {tuple(a + b for a, b in zip(place, step, strict=True)) for step in steps} & left
            left -= near
            component |= near
            edge.extend(near)
        found.append(component)
    return found


def _by_flood_fill(labels: LabelMap, of: Sequence[int]) -> LabelMap:
    kept = labels.copy()
    components = _components(np.isin(labels, of))
    largest = max(map(len, components), default=0)
    for component in components:
        if len(component) < largest:
            for place in component:
                kept[place] = 0
    return kept


@given(speckled_labels(), label_choices())
def test_it_is_what_a_flood_fill_finds(labels: LabelMap, of: list[int]) -> None:
    before = labels.copy()
    kept = keep_largest_component(labels, of)
    assert kept.dtype == labels.dtype
    assert np.array_equal(kept, _by_flood_fill(labels, of))
    assert np.array_equal(labels, before)
    assert not np.shares_memory(kept, labels)


@given(speckled_labels(), label_choices())
def test_the_order_of_axes_does_not_matter(labels: LabelMap, of: list[int]) -> None:
    turned = keep_largest_component(labels.transpose(2, 0, 1), of)
    assert np.array_equal(turned, keep_largest_component(labels, of).transpose(2, 0, 1))


@given(speckled_labels(), label_choices())
def test_doing_it_again_changes_nothing(labels: LabelMap, of: list[int]) -> None:
    once = keep_largest_component(labels, of)
    assert np.array_equal(keep_largest_component(once, of), once)


@pytest.mark.parametrize(
    ("row", "of", "kept"),
    [
        ([1, 1, 0, 1], [1], [1, 1, 0, 0]),
        ([1, 0, 0, 1], [1], [1, 0, 0, 1]),  # both are the largest
        ([1, 2, 0, 1, 0, 2], [1, 2], [1, 2, 0, 0, 0, 0]),  # two labels, one component
        ([1, 3, 1, 1, 0, 3], [1], [0, 3, 1, 1, 0, 3]),  # others stay, and divide
        ([1, 0, 1, 1], [2], [1, 0, 1, 1]),  # not there
        ([1, 0, 1, 1], [], [1, 0, 1, 1]),
        ([1, 0, 1, 1], [-1, 1, 70000], [0, 0, 1, 1]),
        ([0, 0, 0, 0], [1], [0, 0, 0, 0]),
    ],
)
def test_cases_one_can_see(row: list[int], of: list[int], kept: list[int]) -> None:
    found = keep_largest_component(np.array(row, np.uint8).reshape(1, 1, -1), of)
    assert found.ravel().tolist() == kept


def test_a_corner_connects() -> None:
    labels = np.zeros((4, 4, 4), np.uint16)
    labels[0, 0, 0] = labels[1, 1, 1] = labels[3, 3, 3] = 300
    kept = keep_largest_component(labels, [300])
    assert np.argwhere(kept).tolist() == [[0, 0, 0], [1, 1, 1]]
