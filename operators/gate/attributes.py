"""Attributes that no image needs to have, read so that a damaged or odd value is as good as none."""

from __future__ import annotations

from collections.abc import Sequence

import pydicom
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence

from operators.parse_errors import PARSE_ERRORS


def texts(header: pydicom.Dataset, keyword: str) -> tuple[str, ...]:
    """Return each value of an attribute as text without padding; empty if there is none, or none that can be read."""
    try:
        value = header.get(keyword)
    except PARSE_ERRORS:
        return ()
    if value is None or isinstance(value, (bytes, DicomSequence)):
        return ()
    items = value if isinstance(value, (MultiValue, list, tuple)) else [value]
    return tuple(text for item in items if (text := str(item).strip(" \0")))


def floats(header: pydicom.Dataset, keyword: str) -> tuple[float, ...]:
    """Return those values of an attribute that are numbers."""
    found = []
    for text in texts(header, keyword):
        try:
            found.append(float(text))
        except ValueError:
            continue
    return tuple(found)


def items(header: pydicom.Dataset, keyword: str) -> Sequence[pydicom.Dataset]:
    """Return the items of a sequence; none if it is missing or can't be read."""
    try:
        value = header.get(keyword)
    except PARSE_ERRORS:
        return ()
    return tuple(value) if isinstance(value, DicomSequence) else ()


def is_number(text: str) -> bool:
    """Whether a value is a number, and so may be shown: names and dates of patients are kept from messages."""
    try:
        float(text)
    except ValueError:
        return False
    return True
