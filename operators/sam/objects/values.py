"""Reading values out of data sets that anybody may have sent."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pydicom
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from operators.errors import PromptRefused
from operators.sam.objects.prompt_object import Floats, ImageReference
from operators.segments import Code
from operators.series_checks import text

MOST_COORDINATES = 300_000
"""Numbers in one graphic. A drawn outline has hundreds of points; more are no drawing."""

_FARTHEST = 1e6
"""Pixels or millimetres."""


def items(dataset: pydicom.Dataset, keyword: str) -> list[pydicom.Dataset]:
    """Return the items of a sequence; none if it is missing, empty or no sequence."""
    found = dataset.get(keyword)
    return list(found) if isinstance(found, Sequence) else []


def coordinates(dataset: pydicom.Dataset, keyword: str, dimensions: int) -> Floats:
    """Return an attribute's coordinates, (n, dimensions).

    Raises
    ------
    PromptRefused
        ``prompt-empty``, ``prompt-too-long``, ``prompt-not-finite``, or ``unreadable`` if their number is no multiple
        of `dimensions`.
    """
    value = dataset.get(keyword)
    if value is None or value == "":
        raise PromptRefused(f"expected coordinates in {keyword}, got none", code="prompt-empty")
    numbers = list(value) if isinstance(value, (list, tuple, MultiValue)) else [value]
    if not numbers:
        raise PromptRefused(f"expected coordinates in {keyword}, got none", code="prompt-empty")
    if len(numbers) > MOST_COORDINATES:
        raise PromptRefused(
            f"a graphic has {len(numbers)} coordinates, and {MOST_COORDINATES} are possible", code="prompt-too-long"
        )
    if len(numbers) % dimensions:
        raise PromptRefused(
            f"expected coordinates in groups of {dimensions} in {keyword}, got {len(numbers)}", code="unreadable"
        )
    found: Floats = np.array([float(number) for number in numbers]).reshape(-1, dimensions)
    if not np.isfinite(found).all():
        raise PromptRefused("a prompt's coordinates must be finite numbers", code="prompt-not-finite")
    if np.abs(found).max() > _FARTHEST:
        raise PromptRefused("a prompt's coordinates lie far beyond any image and patient", code="prompt-outside")
    return found


def code_of(dataset: pydicom.Dataset, keyword: str) -> Code | None:
    """Return the first coded concept of a sequence (PS3.3 section 8); None where none is whole."""
    for item in items(dataset, keyword):
        value = text(item, "CodeValue") or text(item, "LongCodeValue") or text(item, "URNCodeValue")
        if value:
            return Code(value, text(item, "CodingSchemeDesignator"), text(item, "CodeMeaning"))
    return None


def image_reference(
    item: pydicom.Dataset, series_instance_uid: str = "", frame_of_reference_uid: str = ""
) -> ImageReference:
    """Return what an item with Referenced SOP Instance UID and Referenced Frame Number names (PS3.3 10.3)."""
    frames = item.get("ReferencedFrameNumber")
    numbers = frames if isinstance(frames, (list, tuple, MultiValue)) else [frames]
    return ImageReference(
        sop_instance_uid=text(item, "ReferencedSOPInstanceUID"),
        series_instance_uid=series_instance_uid,
        frames=tuple(int(number) for number in numbers if number not in (None, "")),
        sop_class_uid=text(item, "ReferencedSOPClassUID"),
        frame_of_reference_uid=frame_of_reference_uid,
    )


def references_by_series(dataset: pydicom.Dataset, instances: str) -> Iterator[ImageReference]:
    """Return the images under Referenced Series Sequence, each series' in the sequence `instances`."""
    for series in items(dataset, "ReferencedSeriesSequence"):
        for instance in items(series, instances):
            yield image_reference(instance, text(series, "SeriesInstanceUID"))
