"""How a presentation state shows the images of a series: their rescaling and the window (PS3.3 C.11.1, C.11.8)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import highdicom
import numpy as np
import pydicom
from highdicom.content import ReferencedImageSequence
from highdicom.pr import SoftcopyVOILUTTransformation

from operators.errors import OperatorError
from operators.parse_errors import PARSE_ERRORS
from operators.pixels import rescale
from operators.sam.showing import shown_series
from operators.sam.windowing import Window
from operators.series_checks import text
from operators.series_volume import SeriesVolume

_UNSPECIFIED = "US"
"""Rescale Type."""
_LEAST_LINEAR_WIDTH = 1.0
"""Of a window whose VOI LUT Function is LINEAR (PS3.3 C.11.2.1.2.1)."""


@dataclass(frozen=True)
class Display:
    """The transformations from stored values to shown ones."""

    modality: highdicom.ModalityLUTTransformation | None
    windows: list[SoftcopyVOILUTTransformation]


def display_of(series: SeriesVolume, window: Window | None, images: Sequence[pydicom.Dataset]) -> Display:
    """Return how to show the images of a series.

    A presentation state has one rescaling for all images. Where theirs differ, as in PET, there is none, and each
    image's window is given for its stored values.

    Parameters
    ----------
    window
        In the unit of the images; None: their own, or else what suits the modality.
    images
        The same instances as the series has, as the presentation state refers to them.
    """
    scales = [rescale(header) or (1.0, 0.0) for header in series.datasets]
    is_one = len(set(scales)) == 1
    windows = _windows(series, window)
    if not is_one:
        windows = [
            ((centre - intercept) / slope, width / abs(slope))
            for (centre, width), (slope, intercept) in zip(windows, scales, strict=True)
        ]
    grouped: dict[tuple[float, float], list[pydicom.Dataset]] = defaultdict(list)
    for one, image in zip(windows, images, strict=True):
        grouped[one].append(image)
    transformations = [
        _transformation(*one, None if len(grouped) == 1 else members) for one, members in grouped.items()
    ]
    return Display(_modality(series.datasets[0], *scales[0]) if is_one else None, transformations)


def _windows(series: SeriesVolume, window: Window | None) -> list[tuple[float, float]]:
    """Centre and width for each image."""
    if window is None:
        own = [found for header in series.datasets if (found := _own_window(header)) is not None]
        if len(own) == len(series.datasets):
            return own
        window = suitable_window(series)
    return [(window.centre, window.width)] * len(series.datasets)


def _own_window(header: pydicom.Dataset) -> tuple[float, float] | None:
    """The first of the image's own windows, if there is one that can be used."""
    try:
        centre, width = (
            float(value[0] if isinstance(value, (list, pydicom.multival.MultiValue)) else value)
            for value in (header.WindowCenter, header.WindowWidth)
        )
    except PARSE_ERRORS:
        return None
    except IndexError:
        return None
    return (centre, width) if np.isfinite([centre, width]).all() and width > 0 else None


def suitable_window(series: SeriesVolume) -> Window:
    """Return the window that suits the series' modality."""
    try:
        return shown_series(series, None)[1]
    except OperatorError:  # nothing above 0: whatever is there
        low, high = float(np.nanmin(series.volume.array)), float(np.nanmax(series.volume.array))
        return Window((low + high) / 2, max(high - low, 1.0))


def _transformation(
    centre: float, width: float, images: Sequence[pydicom.Dataset] | None
) -> SoftcopyVOILUTTransformation:
    return SoftcopyVOILUTTransformation(
        window_center=centre,
        window_width=width,
        voi_lut_function=None if width >= _LEAST_LINEAR_WIDTH else "LINEAR_EXACT",
        referenced_images=None if images is None else ReferencedImageSequence(images),
    )


def _modality(header: pydicom.Dataset, slope: float, intercept: float) -> highdicom.ModalityLUTTransformation | None:
    if rescale(header) is None:
        return None
    is_ct = text(header, "Modality") == "CT"
    kind = text(header, "RescaleType") or ("HU" if is_ct else _UNSPECIFIED)
    return highdicom.ModalityLUTTransformation(rescale_intercept=intercept, rescale_slope=slope, rescale_type=kind)
