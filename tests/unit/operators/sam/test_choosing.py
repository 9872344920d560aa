"""Which mask is the answer."""

from __future__ import annotations

import numpy as np
import pytest

from operators.sam.choosing import best_of_three, single, without_overlap
from operators.sam.memory_contract import Stability

STABILITY = Stability(0.05, 0.98)
QUALITIES = np.array([0.99, 0.2, 0.7, 0.6], np.float32)


def masks(wavering: int, sure: int) -> np.ndarray:
    """Four masks, the first with so many pixels on the edge and so many well inside."""
    first = np.full(200, -1, np.float32)
    first[:wavering] = 0.0
    first[wavering : wavering + sure] = 1.0
    return np.stack([first.reshape(10, 20), *np.zeros((3, 10, 20), np.float32)])


def test_the_best_of_three_leaves_the_first_aside() -> None:
    assert best_of_three(QUALITIES) == 2


@pytest.mark.parametrize(("wavering", "sure", "chosen"), [(2, 98, 0), (3, 97, 2), (0, 100, 0), (0, 0, 0), (5, 0, 2)])
def test_the_single_mask_is_taken_unless_it_wavers(wavering: int, sure: int, chosen: int) -> None:
    assert single(masks(wavering, sure), QUALITIES, STABILITY) == chosen


def test_where_objects_overlap_the_higher_logit_keeps_the_pixel() -> None:
    logits = np.array([[[3.0, 1.0, -2.0, -20.0]], [[2.0, 5.0, -2.0, -30.0]]], np.float32)
    np.testing.assert_array_equal(without_overlap(logits), [[[3.0, -10.0, -2.0, -20.0]], [[-10.0, 5.0, -10.0, -30.0]]])


def test_one_object_alone_is_left_as_it_is() -> None:
    logits = np.array([[[3.0, -1.0]]], np.float32)
    assert without_overlap(logits) is logits
