"""A mask that is shown, on its way into the encoder's square and to the decoder."""

from __future__ import annotations

import numpy as np
import pytest

from operators.sam.frames import on_image
from operators.sam.mask_prompts import as_answer, decoder_mask, mask_in_square, mask_logits
from operators.sam.memory_contract import MaskPrompt
from tests.sam_fixture import contract


def test_a_mask_of_the_squares_own_size_stays_as_it_is() -> None:
    mask = np.random.default_rng(1).random((16, 16)) > 0.5
    np.testing.assert_array_equal(mask_in_square(mask, 16), mask)


def test_a_mask_is_stretched_into_the_square() -> None:
    mask = np.zeros((10, 20), bool)
    mask[:, 10:] = True
    square = mask_in_square(mask, 40)
    assert square[:, 20:].all()
    assert not square[:, :20].any()


def test_logits_of_a_mask_are_plus_and_minus_ten() -> None:
    mask = np.zeros((64, 64), bool)
    mask[:, 32:] = True
    logits = mask_logits(mask, 16)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits[:, [0, 15]], [[-10, 10]] * 16, atol=1e-5)
    np.testing.assert_allclose(logits, -logits[:, ::-1], atol=1e-5)


@pytest.mark.parametrize("fit", ["longest-side", "square"])
def test_a_mask_as_an_answer_comes_back_onto_the_image(fit: str) -> None:
    frame = contract(image={"fit": fit}, logits={"path": "through-input"})
    mask = np.zeros((150, 100), bool)
    mask[30:120, 10:70] = True
    logits = as_answer(mask, frame)
    assert (logits.min(), logits.max()) == pytest.approx((-10, 10))
    back = on_image(logits[None], 150, 100, frame)[0] > 0
    assert np.count_nonzero(back != mask) < 0.02 * mask.sum()


def test_the_decoders_mask_is_a_weighted_sum_of_each_block() -> None:
    kernel = np.arange(16, dtype=np.float32).reshape(4, 4)
    mask = np.zeros((8, 8), bool)
    mask[1, 6] = True  # of the block in the upper right, row 1 and column 2
    expected = np.full((2, 2), 0.5, np.float32)
    expected[0, 1] += kernel[1, 2]
    np.testing.assert_array_equal(decoder_mask(mask, MaskPrompt(kernel, 0.5, np.zeros(1, np.float32))), expected)
