"""Another model's labels on a slice: a box around the whole, and a point well within each part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from operators.sam.objects.labels import box_around, points_inside, prompt_from_mask
from operators.sam.prompts import MOST_POINTS, Box, Point, SegmentPrompts, SlicePrompt

SPACING = (1.0, 1.0)


def two_parts() -> NDArray[np.bool_]:
    """A small part above and left of a larger one."""
    mask = np.zeros((30, 40), np.bool_)
    mask[2:5, 3:6] = True
    mask[10:21, 20:35] = True
    return mask


def test_a_box_ends_with_the_image() -> None:
    mask = np.zeros((30, 40), np.bool_)
    mask[2:5, 37:39] = True
    assert box_around(mask, 0) == Box(37, 2, 39, 5)
    assert box_around(mask, 3.5) == Box(33.5, 0, 40, 8.5)


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ("boxes", SlicePrompt(Box(2, 1, 36, 22))),
        ("points", SlicePrompt(None, (Point(25.5, 15.5), Point(4.5, 3.5)))),
        ("boxes-and-points", SlicePrompt(Box(2, 1, 36, 22), (Point(25.5, 15.5), Point(4.5, 3.5)))),
    ],
)
def test_one_box_is_around_both_parts_and_each_has_a_point_the_larger_first(
    prompts: SegmentPrompts, expected: SlicePrompt
) -> None:
    assert prompt_from_mask(two_parts(), SPACING, prompts=prompts, margin=1) == expected


def test_a_ring_has_its_point_on_the_ring_and_not_in_the_hole() -> None:
    mask = np.zeros((20, 20), np.bool_)
    mask[2:18, 2:18] = True
    mask[5:13, 5:13] = False  # the wider sides are the right and the lower one
    (point,) = points_inside(mask, SPACING)
    assert max(point.x, point.y) > 14
    assert mask[int(point.y), int(point.x)]


def test_what_touches_at_a_corner_is_one_part() -> None:
    assert len(points_inside(np.eye(3, dtype=np.bool_), SPACING)) == 1


def test_of_more_parts_than_a_prompt_can_have_points_the_largest_have_one() -> None:
    mask = np.zeros((40, 40), np.bool_)
    mask[:20:2, ::2] = True  # 200 pixels, each by itself
    mask[30:33, 10:13] = True
    points = points_inside(mask, SPACING)
    assert len(points) == MOST_POINTS
    assert points[0] == Point(11.5, 31.5)
    assert points[1:3] == (Point(0.5, 0.5), Point(2.5, 0.5))


@given(arrays.arrays(np.bool_, (9, 11)).filter(np.any), st.floats(0.3, 5), st.floats(0.3, 5))
def test_every_point_lies_on_the_segment_and_within_its_box(
    mask: NDArray[np.bool_], down: float, across: float
) -> None:
    prompt = prompt_from_mask(mask, (down, across), prompts="boxes-and-points", margin=0).checked(9, 11)
    box = prompt.box
    assert box is not None
    assert prompt.points
    for point in prompt.points:
        assert mask[int(point.y), int(point.x)]
        assert box.left < point.x < box.right
        assert box.top < point.y < box.bottom
