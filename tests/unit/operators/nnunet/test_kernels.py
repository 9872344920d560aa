import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.nnunet.kernels import NOTHING, find_winners

_LARGE = (95, 97)
"""A plane that is looked at in several parts, the last of them shorter."""


def ring(heads: int, shape: tuple[int, int], seed: int) -> NDArray[np.float32]:
    """Sums of which many are equal, 0 among them."""
    return np.random.default_rng(seed).integers(-3, 4, (heads, 3, *shape)).astype(np.float32)


@given(heads=st.integers(1, 11), shape=st.sampled_from([(1, 1), (3, 7), _LARGE]), seed=st.integers(0, 1 << 16))
def test_the_first_of_the_highest_wins(heads: int, shape: tuple[int, int], seed: int) -> None:
    sums, winners = ring(heads, shape, seed), np.empty(shape, np.int16)
    assert find_winners(sums, 1, False, winners)
    np.testing.assert_array_equal(winners, sums[:, 1].argmax(axis=0))


@given(heads=st.integers(1, 11), shape=st.sampled_from([(1, 1), (3, 7), _LARGE]), seed=st.integers(0, 1 << 16))
def test_of_regions_the_last_above_zero_wins(heads: int, shape: tuple[int, int], seed: int) -> None:
    sums, winners = ring(heads, shape, seed), np.empty(shape, np.int16)
    sums -= 2
    assert find_winners(sums, 2, True, winners)
    expected = np.full(shape, NOTHING)
    for head, plane in enumerate(sums[:, 2]):
        expected[plane > 0] = head
    np.testing.assert_array_equal(winners, expected)


@pytest.mark.parametrize("has_regions", [False, True])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("head", range(6))
def test_what_is_not_finite_is_told_wherever_it_is(head: int, wrong: float, has_regions: bool) -> None:
    sums, winners = ring(6, _LARGE, 0), np.empty(_LARGE, np.int16)
    assert find_winners(sums, 0, has_regions, winners)
    sums[head, 0, -1, -1] = wrong
    assert not find_winners(sums, 0, has_regions, winners)
    assert find_winners(sums, 1, has_regions, winners), "another plane's"
    sums[head, 0, -1, -1] = np.finfo(np.float32).max
    assert find_winners(sums, 0, has_regions, winners)
