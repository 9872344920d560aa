"""The components of a mask and the largest of them, held against a flood fill voxel by voxel."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from hypothesis import given

from operators.components import Bits, components_of, largest_component
from operators.label_maps import LabelMap
from tests.drawn_labels import speckled_labels

Voxel = tuple[int, ...]
STEPS = list(itertools.product((-1, 0, 1), repeat=3))


def _flooded(mask: Bits) -> Iterator[set[Voxel]]:
    """The components, each begun at the first voxel that no other holds."""
    inside = [tuple(place) for place in np.argwhere(mask).tolist()]
    left = set(inside)
    for first in inside:
        if first not in left:
            continue
        component, edge = {first}, [first]
        left.remove(first)
        while edge:
            place = edge.pop()
            near = {tuple(a + b for a, b in zip(place, step, strict=True)) for step in STEPS} & left
            left -= near
            component |= near
            edge.extend(near)
        yield component


def _places(mask: Bits) -> set[Voxel]:
    return {tuple(place) for place in np.argwhere(mask).tolist()}


@given(speckled_labels())
def test_the_largest_is_what_a_flood_fill_finds_and_of_equals_the_first(labels: LabelMap) -> None:
    mask = labels > 0
    before = mask.copy()
    expected = max(_flooded(mask), key=len, default=set())  # of equals the first
    assert _places(largest_component(mask)) == expected
    assert np.array_equal(mask, before)


@given(speckled_labels())
def test_components_come_in_the_order_of_their_first_voxels(labels: LabelMap) -> None:
    mask = labels > 0
    found = components_of(mask)
    if found is None:
        assert not mask.any()
        return
    expected = list(_flooded(mask))
    numbers = np.zeros(mask.shape, np.int32)
    numbers[found.box] = found.numbers
    assert [_places(numbers == number) for number in range(1, len(found.sizes))] == expected
    assert found.sizes.tolist() == [0, *map(len, expected)]
