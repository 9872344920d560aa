"""From real values to the 8 bits that a generalist was trained on: a window of CT, or percentiles of anything else.

All variants of the family learnt from pictures of 8 bits, so a slice must become one first. Which values become
black and white decides what can be seen in it; it is the caller's choice, and belongs in the record of the result.

Values at or below the lower end become 0, those at or above the upper end 255; between, they grow linearly and are
cut to whole numbers, as MedSAM's preparation of its training data does (``utils/pre_CT_MR.py``). The ends are
centre - width / 2 and centre + width / 2: LINEAR_EXACT of PS3.3 C.11.2.1.3.2, not LINEAR, whose ends are half a value
off.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.errors import PromptRefused, SeriesRefused

_WHITE = 255
_RADIOPAEDIA = "https://radiopaedia.org/articles/windowing-ct"
_MEDSAM = "https://github.com/bowang-lab/MedSAM, utils/README.md and utils/pre_CT_MR.py"


@dataclass(frozen=True)
class Window:
    """Which values are shown, in the unit of the image (HU for CT)."""

    centre: float
    width: float
    source: str = ""
    """Who says so, for people."""

    @property
    def ends(self) -> tuple[float, float]:
        """The value that becomes 0 and the one that becomes 255."""
        return self.centre - self.width / 2, self.centre + self.width / 2


WINDOWS: Mapping[str, Window] = MappingProxyType(
    {
        "soft-tissue": Window(40, 400, _MEDSAM),
        "lung": Window(-600, 1500, f"{_MEDSAM}; {_RADIOPAEDIA}"),
        "mediastinum": Window(50, 350, _RADIOPAEDIA),
        "bone": Window(400, 1800, _RADIOPAEDIA),
        "temporal-bone": Window(600, 2800, _RADIOPAEDIA),
        "brain": Window(40, 80, f"{_MEDSAM}; {_RADIOPAEDIA}"),
        "subdural": Window(75, 215, f"{_RADIOPAEDIA}: the middle of its range, 50 to 100 and 130 to 300"),
        "stroke": Window(40, 40, _RADIOPAEDIA),
        "liver": Window(30, 150, _RADIOPAEDIA),
        "abdomen": Window(50, 400, _RADIOPAEDIA),
        "spine": Window(50, 250, _RADIOPAEDIA),
    }
)
"""CT windows by what they are for; centre and width in HU."""
PERCENTILES = "percentiles"
"""What settings call the window between two percentiles of the values above 0."""
PERCENTILE_WINDOW: Mapping[str, Any] = MappingProxyType({"lower": 0.5, "upper": 99.5})
"""MedSAM's."""


def named_window(name: str) -> Window:
    """Return the window called `name`.

    Raises
    ------
    PromptRefused
        ``window-unknown`` if there is none.
    """
    if name not in WINDOWS:
        raise PromptRefused(
            f"there is no window called {name!r}: expected {', '.join(WINDOWS)}, or a centre and a width",
            code="window-unknown",
        )
    return WINDOWS[name]


def given_window(centre: float, width: float) -> Window:
    """Return the window of these numbers.

    Raises
    ------
    PromptRefused
        ``window-impossible`` if one is not finite, or the width is not above 0.
    """
    if not np.isfinite([centre, width]).all() or width <= 0:
        raise PromptRefused(
            f"a window needs a finite centre and a width above 0, got {centre:g} and {width:g}",
            code="window-impossible",
        )
    return Window(float(centre), float(width), "given with the request")


def percentile_window(values: NDArray[Any], lower: float = 0.5, upper: float = 99.5) -> Window:
    """Return the window between two percentiles of the values above 0, as MedSAM takes it for MR and others.

    Parameters
    ----------
    values
        The whole volume, so that all its slices are shown alike; any shape, numbers of any type.
    lower, upper
        Percentiles, 0 <= `lower` < `upper` <= 100.

    Raises
    ------
    SeriesRefused
        ``image-empty`` if no value is above 0, or the percentiles fall together; ``image-not-finite`` if a value is
        no number.
    PromptRefused
        ``window-impossible`` if the percentiles are none.
    """
    if not 0 <= lower < upper <= 100:
        raise PromptRefused(
            f"expected percentiles with 0 <= lower < upper <= 100, got {lower:g} and {upper:g}",
            code="window-impossible",
        )
    _check_finite(values)
    shown = values[values > 0]
    low, high = np.percentile(shown, [lower, upper]) if shown.size else (0.0, 0.0)
    if not low < high:
        raise SeriesRefused(
            f"the image shows nothing: its values above 0 reach from {low:g} to {high:g} between percentiles "
            f"{lower:g} and {upper:g}; give a window's centre and width",
            code="image-empty",
        )
    return Window(float(low + high) / 2, float(high - low), f"percentiles {lower:g} and {upper:g} above 0")


def asked_window(text: str) -> Mapping[str, Any] | None:
    """Return what `operators.sam.showing.shown_series` is asked for by the text that settings have.

    Parameters
    ----------
    text
        A window's name, `PERCENTILES`, or ``centre/width``; empty: what suits the modality.

    Raises
    ------
    PromptRefused
        ``window-unknown``, ``window-impossible``.
    """
    if not text:
        return None
    if text == PERCENTILES:
        return PERCENTILE_WINDOW
    if text in WINDOWS:
        return {"name": text}
    centre, _, width = text.partition("/")
    with suppress(ValueError):
        window = given_window(float(centre), float(width))
        return {"centre": window.centre, "width": window.width}
    raise PromptRefused(
        f"there is no window {text!r}: expected {', '.join(WINDOWS)}, {PERCENTILES}, or a centre and a width as in "
        "40/400",
        code="window-unknown",
    )


def window_text(asked: Mapping[str, Any] | None) -> str:
    """Return what is asked for in words, as a result records it: where settings can say it, as `asked_window` reads it.

    Parameters
    ----------
    asked
        As `operators.sam.showing.shown_series` takes it.
    """
    if asked is None:
        return ""
    if "name" in asked:
        return str(asked["name"])
    if "centre" in asked:
        return f"{_number(asked['centre'])}/{_number(asked['width'])}"
    if asked == PERCENTILE_WINDOW:
        return PERCENTILES
    return f"{PERCENTILES} {_number(asked['lower'])} and {_number(asked['upper'])}"


def _number(value: float) -> str:
    """With all its digits, and none that say nothing."""
    return repr(float(value)).removesuffix(".0")


def to_bytes(values: NDArray[Any], window: Window, *, zero_stays_black: bool = False) -> NDArray[np.uint8]:
    """Return what `window` shows of `values`, 0 to 255.

    Parameters
    ----------
    values
        Any shape, numbers of any type, in the unit of the window; rescaled (HU) for CT.
    window
        Which of them are shown.
    zero_stays_black
        Values of exactly 0 become 0 whatever the window: the background of MR, as MedSAM has it.

    Raises
    ------
    SeriesRefused
        ``image-not-finite`` if a value is no number.
    """
    _check_finite(values)
    low, high = window.ends
    shown = (np.clip(values.astype(np.float64), low, high) - low) / (high - low) * _WHITE
    if zero_stays_black:
        shown[values == 0] = 0
    return shown.astype(np.uint8)


def _check_finite(values: NDArray[Any]) -> None:
    if not np.isfinite(values).all():
        raise SeriesRefused(
            "the image has values that are no numbers; expected finite ones, so the series can't be shown",
            code="image-not-finite",
        )
