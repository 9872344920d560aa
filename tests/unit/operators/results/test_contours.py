"""Outlines, filled again by other code, are the mask: whatever its holes, components and corners."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy import ndimage

from app.jobs.readback.outlines import inside
from operators.results.contours import Corners, outlines, rings
from operators.sam.objects.rasters import filled

Mask = NDArray[np.bool_]

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.booleans())
dense_masks = arrays(
    np.bool_,
    array_shapes(min_dims=2, max_dims=2, min_side=3, max_side=14),
    elements=st.sampled_from([True, True, True, True, True, False]),
)


def _filled(corners: Corners, mask: Mask) -> Mask:
    return filled(corners.astype(np.float64), *mask.shape)


def _area(corners: Corners) -> float:
    x, y = corners[:, 0], corners[:, 1]
    return float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2


@given(st.one_of(masks, dense_masks))
def test_rings_enclose_the_mask(mask: Mask) -> None:
    back = np.zeros_like(mask)
    for ring in rings(mask):
        back ^= _filled(ring.corners, mask)
        assert (_area(ring.corners) < 0) == ring.is_hole
    assert np.array_equal(back, mask)


@given(st.one_of(masks, dense_masks))
def test_one_outline_a_component_encloses_it_and_nothing_else(mask: Mask) -> None:
    found = outlines(mask)
    assert len(found) == ndimage.label(mask)[1]
    counts = np.zeros(mask.shape, int)
    for corners in found:
        one = _filled(corners, mask)
        counts += one
        assert _area(corners) == np.count_nonzero(one)
    assert np.array_equal(counts, mask)


@given(st.one_of(masks, dense_masks))
def test_pillow_fills_them_so_too(mask: Mask) -> None:
    counts = np.zeros(mask.shape, np.uint8)
    for corners in outlines(mask):
        inside(corners.astype(np.float64), mask.shape).add_to(counts)
    assert np.array_equal(counts, mask)


@given(st.one_of(masks, dense_masks))
def test_no_point_is_left_that_is_not_a_corner(mask: Mask) -> None:
    for corners in [*outlines(mask), *(ring.corners for ring in rings(mask))]:
        steps = np.roll(corners, -1, axis=0) - corners
        assert ((steps != 0).sum(axis=1) == 1).all()
        came, goes = steps, np.roll(steps, -1, axis=0)
        assert not ((came * goes).sum(axis=1) > 0).any()


@pytest.mark.parametrize("rows", [["#"], ["##", "##"]])
def test_a_block_has_four_corners_from_the_upper_left_clockwise(rows: list[str]) -> None:
    mask = np.array([[letter == "#" for letter in row] for row in rows])
    (corners,) = outlines(mask)
    side = len(rows)
    assert corners.tolist() == [[0, 0], [side, 0], [side, side], [0, side]]


def test_pixels_that_touch_at_a_corner_are_two_outlines() -> None:
    assert len(outlines(np.eye(2, dtype=np.bool_))) == 2


def test_a_hole_is_joined_by_a_channel_to_the_left() -> None:
    mask = np.ones((3, 4), np.bool_)
    mask[1, 2] = False
    (corners,) = outlines(mask)
    channel = [[0, 1], [2, 1]]
    assert [point in corners.tolist() for point in channel] == [True, True]
    assert len(corners) == 10


def test_nothing_has_no_outline() -> None:
    assert outlines(np.zeros((3, 4), np.bool_)) == []
    assert rings(np.zeros((0, 4), np.bool_)) == []


def test_noise_of_a_whole_slice_is_outlined_in_seconds() -> None:
    mask = np.random.default_rng(0).random((256, 256)) < 0.9
    (largest, *_) = sorted(outlines(mask), key=len, reverse=True)
    assert _area(largest) == np.count_nonzero(_filled(largest, mask))
