"""Which values of a series the generalist is shown: what is asked for, or what suits the modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from operators.sam.volume import Shown
from operators.sam.windowing import (
    PERCENTILE_WINDOW,
    Window,
    asked_window,
    given_window,
    named_window,
    percentile_window,
)
from operators.series_volume import SeriesVolume

_CT_WINDOW = "soft-tissue"


def shown_series(series: SeriesVolume, asked: Mapping[str, Any] | None) -> tuple[Shown, Window]:
    """Return the slices of `series` through a window.

    Parameters
    ----------
    series
        Its first channel is shown.
    asked
        ``{"name": …}``, ``{"centre": …, "width": …}`` or ``{"lower": …, "upper": …}`` (percentiles of what is above 0);
        None: soft tissue for CT, percentiles 0.5 and 99.5 for all others, as MedSAM's training data were made.

    Raises
    ------
    PromptRefused, SeriesRefused
        As `operators.sam.windowing`.
    """
    if asked is None:
        is_ct = str(series.datasets[0].get("Modality", "")) == "CT"
        asked = {"name": _CT_WINDOW} if is_ct else PERCENTILE_WINDOW
    if "name" in asked:
        window = named_window(asked["name"])
    elif "centre" in asked:
        window = given_window(asked["centre"], asked["width"])
    else:
        window = percentile_window(series.volume.array, asked["lower"], asked["upper"])
    return Shown(series.volume, window, zero_stays_black="lower" in asked), window


def shown_segments(series: SeriesVolume, windows: Mapping[int, str]) -> dict[int, Shown]:
    """Return the slices of `series` through each segment's window.

    Parameters
    ----------
    windows
        By label value, what settings have (`operators.sam.windowing.asked_window`).

    Returns
    -------
    By label value; segments with the same window share one `Shown`.

    Raises
    ------
    PromptRefused, SeriesRefused
        As `shown_series`.
    """
    shown = {text: shown_series(series, asked_window(text))[0] for text in set(windows.values())}
    return {value: shown[text] for value, text in windows.items()}
