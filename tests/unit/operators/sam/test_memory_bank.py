"""What is remembered of the slices behind: which of them, how far back, and no more than can be used."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.sam.memory_bank import MemoryBank, Remembered, lengthened, shortened
from operators.sam.memory_contract import MemoryContract, read_memory_contract
from tests.unit.operators.sam.test_memory_contract import MEMORY

CONTRACT: MemoryContract = read_memory_contract(MEMORY)


def left_by(index: int) -> Remembered:
    """A slice whose memory and pointer say which it was."""
    return Remembered(shortened(np.full((2, 3), index, np.float32)), np.full(4, index, np.float32))


def filled(prompted: list[int], added: list[int], slices: int, *, backwards: bool = False) -> MemoryBank:
    bank = MemoryBank(CONTRACT, {index: left_by(index) for index in prompted}, slices, backwards=backwards)
    for index in added:
        bank.add(index, left_by(index))
    return bank


@pytest.mark.parametrize("backwards", [False, True])
def test_the_prompted_slice_and_the_last_six_are_remembered_oldest_first(backwards: bool) -> None:
    sign, start = (-1, 60) if backwards else (1, 10)
    behind = [start + sign * step for step in range(1, 31)]
    recalled = filled([start], behind, 100, backwards=backwards).recall(start + sign * 31)
    assert recalled.memories[:, 0, 0].tolist() == [start, *behind[-6:]]
    assert recalled.steps.tolist() == [7, 6, 5, 4, 3, 2, 1]
    assert recalled.pointers[:, 0].tolist() == [start, *reversed(behind[-15:])]
    np.testing.assert_array_equal(recalled.distances, np.array([31, *range(1, 16)], np.float32) / np.float32(15))


def test_a_prompted_slice_ahead_is_remembered_but_its_pointer_is_not() -> None:
    recalled = filled([10, 14], [11, 12], 100).recall(13)
    assert recalled.memories[:, 0, 0].tolist() == [10, 14, 11, 12]
    assert recalled.steps.tolist() == [7, 7, 2, 1]
    assert recalled.pointers[:, 0].tolist() == [10, 12, 11]


def test_a_short_series_measures_distances_by_itself() -> None:
    recalled = filled([0], [1, 2], 5).recall(3)
    np.testing.assert_array_equal(recalled.distances, np.array([3, 1, 2], np.float32) / np.float32(4))


def test_slices_that_were_passed_over_are_not_taken_for_near_ones() -> None:
    recalled = filled([0], [1, 2, 3], 100).recall(9)
    assert recalled.steps.tolist() == [7, 6]
    assert recalled.memories[:, 0, 0].tolist() == [0, 3]


@given(
    st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**100), max_value=2.0**100),
        min_size=1,
    )
)
def test_what_is_shortened_keeps_eight_bits_and_is_not_shortened_twice(values: list[float]) -> None:
    array = np.array(values, np.float32)
    halves = shortened(array)
    back = lengthened(halves)
    normal = np.abs(array) > 1e-30
    assert (np.abs(back - array)[normal] <= np.abs(array)[normal] * 2.0**-8).all()
    np.testing.assert_array_equal(shortened(back), halves)


def test_ties_are_rounded_to_even() -> None:
    values = np.array([0x3F808000, 0x3F818000, 0x3F808001], np.uint32).view(np.float32)
    assert [hex(one) for one in shortened(values)] == ["0x3f80", "0x3f82", "0x3f81"]
