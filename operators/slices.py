"""The slices of a series: one an instance of a single-frame image, one a frame of a multi-frame image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pydicom

from operators.errors import SeriesRefused
from operators.functional_groups import frame_headers
from operators.instances import MULTI_FRAME_SOP_CLASSES


@dataclass(frozen=True)
class Slice:
    """One plane of pixels in the patient."""

    path: Path
    """Of the instance that holds it."""
    header: pydicom.Dataset
    """Without pixel data. A frame's is what a single-frame image of it would say, with the UIDs of its instance."""
    frame_number: int | None = None
    """Which frame of its instance it is, counted from 1; None in a single-frame image."""
    frame_count: int = 1
    """Of its instance."""


def slices_of(path: Path, instance: pydicom.Dataset) -> list[Slice]:
    """Return the slices of one instance, in the order of its frames; one, where it has none that lie in the patient.

    Raises
    ------
    SeriesRefused
        ``colour`` or ``unreadable-instance``.
    """
    if instance.get("SOPClassUID") not in MULTI_FRAME_SOP_CLASSES:
        return [Slice(path, instance)]
    if instance.get("PixelPresentation", "MONOCHROME") != "MONOCHROME":
        raise SeriesRefused(
            "expected grey values, got a multi-frame image of which part is colour (Pixel Presentation); "
            "send the images without colour",
            code="colour",
        )
    headers = frame_headers(instance)
    return [Slice(path, header, number, len(headers)) for number, header in enumerate(headers, start=1)]
