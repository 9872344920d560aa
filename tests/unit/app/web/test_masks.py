"""Masks as run lengths and as PNG."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image

from app.web.masks import png, png_text, run_lengths, unpacked

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12))


@given(MASKS)
def test_runs_are_all_pixels_in_turns_and_outside_first(mask: NDArray[np.bool_]) -> None:
    runs = run_lengths(mask)
    flat = np.concatenate([np.full(length, number % 2 == 1) for number, length in enumerate(runs)])
    assert np.array_equal(flat.reshape(mask.shape), mask)
    assert all(runs[1:]), "only the first may be empty"


@given(MASKS, st.integers(1, 3))
def test_what_is_packed_comes_back(mask: NDArray[np.bool_], count: int) -> None:
    content = np.packbits(mask).tobytes() * count
    for one in unpacked(content, count, *mask.shape):
        assert np.array_equal(one, mask)


@pytest.mark.parametrize("content", [b"", b"\0" * 4, b"\0" * 7])
def test_another_number_of_bytes_is_no_mask(content: bytes) -> None:
    with pytest.raises(ValueError, match="expected 2 masks of 3 bytes"):
        unpacked(content, 2, 4, 5)


@given(MASKS)
def test_png_says_the_same_and_nothing_else(mask: NDArray[np.bool_]) -> None:
    picture = Image.open(io.BytesIO(png(mask)))
    assert picture.mode == "L"
    assert picture.info == {}
    assert np.array_equal(np.array(picture), mask * np.uint8(255))
    assert base64.b64decode(png_text(mask)) == png(mask)
