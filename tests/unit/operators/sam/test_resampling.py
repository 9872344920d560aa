"""A few numbers by hand; tests/oracle/test_sam_resampling.py holds all of it against the libraries themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.sam import resampling
from operators.sam.contract import Resampling
from operators.sam.resampling import RESIZES, Shape

shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def test_opencvs_mean_rounds_halves_up_for_two_by_two_and_to_even_else() -> None:
    assert resampling.area(np.array([[1, 1], [0, 0]], np.uint8), (1, 1)) == 1
    assert resampling.area(np.array([[1, 0], [0, 0]], np.uint8), (1, 1)) == 0
    assert resampling.area(np.array([[1, 0]], np.uint8), (1, 1)) == 0
    assert resampling.area(np.array([[1, 2]], np.uint8), (1, 1)) == 2


def test_a_pixel_that_covers_parts_takes_their_shares() -> None:
    assert resampling.area(np.array([[90, 30, 60]], np.uint8), (1, 2)).tolist() == [[70, 50]]


def test_opencvs_mean_of_a_growing_image_keeps_pixels_whole() -> None:
    assert resampling.area(np.array([[0, 100]], np.uint8), (1, 4)).tolist() == [[0, 0, 100, 100]]
    assert resampling.area(np.array([[0, 100]], np.uint8), (1, 3)).tolist() == [[0, 50, 100]]


def test_the_nearest_pixel_is_the_one_a_corner_falls_into() -> None:
    assert resampling.nearest(np.arange(5)[None], (1, 3)).tolist() == [[0, 1, 3]]


def test_torchs_weights() -> None:
    assert resampling.bilinear_weights(2, 4).tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    assert resampling.bilinear_weights(4, 2).tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
    assert resampling.antialiased_weights(4, 2)[0] == pytest.approx([3 / 7, 3 / 7, 1 / 7, 0])


@pytest.mark.parametrize("kind", RESIZES)
@given(old=shapes, new=shapes, value=st.integers(0, 255))
def test_a_plain_image_stays_plain(kind: Resampling, old: Shape, new: Shape, value: int) -> None:
    resized = RESIZES[kind](np.full(old, value, np.uint8), new)
    assert resized.shape[:2] == new
    np.testing.assert_allclose(resized, value, rtol=0, atol=1e-4)
