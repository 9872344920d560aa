from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.errors import OperatorError, PromptRefused, SeriesRefused
from operators.sam.windowing import (
    WINDOWS,
    Window,
    asked_window,
    given_window,
    named_window,
    percentile_window,
    to_bytes,
    window_text,
)


def test_the_ends_of_a_window_are_black_and_white() -> None:
    values = np.array([[-2000, -160, -159, 40, 239, 240, 3000]], np.float32)
    shown = to_bytes(values, named_window("soft-tissue"))
    assert shown.dtype == np.uint8
    assert shown.tolist() == [[0, 0, 0, 127, 254, 255, 255]]


@given(centre=st.floats(-1000, 1000), width=st.floats(1, 4000), seed=st.integers(0, 99))
def test_brighter_is_never_darker(centre: float, width: float, seed: int) -> None:
    values = np.sort(np.random.default_rng(seed).normal(0, 800, 50))
    shown = to_bytes(values, given_window(centre, width)).astype(int)
    assert (np.diff(shown) >= 0).all()


def test_every_named_window_says_where_it_is_from() -> None:
    for name, window in WINDOWS.items():
        assert named_window(name) is window
        assert window.width > 0
        assert "https://" in window.source


def test_percentiles_look_at_what_is_above_zero() -> None:
    volume = np.zeros((4, 50, 50))
    volume[1:3] = np.linspace(1, 1001, 5000).reshape(2, 50, 50)
    window = percentile_window(volume)
    assert window.ends == pytest.approx((6, 996))
    shown = to_bytes(volume, Window(0, 2000), zero_stays_black=True)
    assert shown[0].max() == 0
    assert shown[1:3].min() == 127
    assert to_bytes(volume, Window(0, 2000)).min() == 127


@pytest.mark.parametrize(
    ("call", "kind", "code"),
    [
        (lambda: named_window("kidney stone"), PromptRefused, "window-unknown"),
        (lambda: given_window(40, 0), PromptRefused, "window-impossible"),
        (lambda: given_window(float("nan"), 400), PromptRefused, "window-impossible"),
        (lambda: percentile_window(np.ones(9), 99, 1), PromptRefused, "window-impossible"),
        (lambda: percentile_window(np.zeros(9)), SeriesRefused, "image-empty"),
        (lambda: percentile_window(np.full(9, 7.0)), SeriesRefused, "image-empty"),
        (lambda: percentile_window(np.array([1.0, np.inf])), SeriesRefused, "image-not-finite"),
        (lambda: to_bytes(np.array([np.nan]), Window(40, 400)), SeriesRefused, "image-not-finite"),
    ],
)
def test_what_can_not_be_shown_is_refused(call, kind: type[OperatorError], code: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(kind) as refusal:
        call()
    assert refusal.value.code == code


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("", None),
        ("liver", {"name": "liver"}),
        ("percentiles", {"lower": 0.5, "upper": 99.5}),
        ("40/400", {"centre": 40.0, "width": 400.0}),
        ("-600/1500.5", {"centre": -600.0, "width": 1500.5}),
    ],
)
def test_what_settings_ask_for(text: str, asked: dict[str, Any] | None) -> None:
    assert asked_window(text) == asked
    assert asked_window(window_text(asked)) == asked


def test_a_window_in_words() -> None:
    assert window_text({"centre": 40.5, "width": 1 / 3}) == "40.5/0.3333333333333333"
    assert window_text({"lower": 0.5, "upper": 99.5}) == "percentiles"
    assert window_text({"lower": 1, "upper": 99}) == "percentiles 1 and 99"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("livre", "window-unknown"),
        ("40", "window-unknown"),
        ("40/0", "window-impossible"),
        ("nan/1", "window-impossible"),
    ],
)
def test_what_settings_cannot_ask_for(text: str, code: str) -> None:
    with pytest.raises(PromptRefused) as caught:
        asked_window(text)
    assert caught.value.code == code
