"""The values of one attribute of a data set, as rules compare them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

from pydicom import Dataset, Sequence
from pydicom.datadict import tag_for_keyword
from pydicom.errors import BytesLengthException
from pydicom.tag import Tag

from operators.headers import is_unread

_SHOWN = 80
_LEADING_SPACE_COUNTS = {"LT", "ST", "UC", "UR", "UT"}
_FILE_META_GROUP = 0x0002
_UNREADABLE_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    NotImplementedError,
    AttributeError,
    OverflowError,
    BytesLengthException,
)
"""What pydicom raises for values that break the rules of their representation."""


@dataclass(frozen=True)
class Values:
    """An attribute's values.

    They can be a patient's: for comparing, and for a person at the terminal; never to be logged or kept.
    """

    present: bool
    """Whether the attribute has a value; true also for one that can't be read."""
    texts: tuple[str, ...] = ()
    """Each value as text, without padding (PS3.5 6.2)."""
    numbers: tuple[float, ...] = ()
    """Those of the values that are finite numbers."""
    note: str = ""
    """Why there are no values."""

    @property
    def shown(self) -> str:
        """The values for a person, shortened."""
        if self.note:
            return self.note
        text = ", ".join(f"'{value}'" for value in self.texts)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


_MISSING = Values(False, note="not in the data set")
_EMPTY = Values(False, note="no value")
_UNREADABLE = Values(True, note="a value that can't be read")
_TOO_LONG = Values(True, note="a value that is too long to be compared")


def read_values(dataset: Dataset, keyword: str) -> Values:
    """Return the values of the attribute `keyword`; text that can't be read is no error, and matches nothing."""
    number = tag_for_keyword(keyword)
    if number is None:
        return _MISSING
    tag = Tag(number)
    holder = getattr(dataset, "file_meta", None) if tag.group == _FILE_META_GROUP else dataset
    if holder is None or tag not in holder:
        return _MISSING
    if is_unread(holder, tag):
        return _TOO_LONG
    try:
        element = holder[tag]
        value, representation = element.value, element.VR
    except _UNREADABLE_ERRORS:
        return _UNREADABLE
    if value is None:
        return _EMPTY
    if isinstance(value, (bytes, Sequence)):
        return _UNREADABLE if len(value) else _EMPTY
    several = not isinstance(value, str) and isinstance(value, Iterable) and not hasattr(value, "components")
    items = list(value) if several else [value]
    texts = tuple(text for item in items if (text := _text(item, representation)))
    return Values(True, texts, tuple(_numbers(items))) if texts else _EMPTY


def _text(value: object, representation: str) -> str:
    text = "" if value is None else str(value)
    return text.rstrip(" \0") if representation in _LEADING_SPACE_COUNTS else text.strip(" \0")


def _numbers(items: list[object]) -> Iterable[float]:
    for item in items:
        if isinstance(item, str):
            continue
        try:
            number = float(item)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            continue
        if isfinite(number):
            yield number
