"""Whose a result is: the patient and study attributes of its source, taken over unchanged, and when it was made.

highdicom interprets these attributes and fails at what real studies hold: missing Type 2 attributes, dates that are
none, a sex that is no defined term, a Specific Character Set that begins with an empty value (as Japanese ones do).
So it is given headers in which they are empty, and the source's own are put into the finished object.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
from collections.abc import Sequence

import pydicom
from pydicom.valuerep import DA, TM, DSfloat

from operators.headers import is_unread
from operators.parse_errors import PARSE_ERRORS

IDENTITY_KEYWORDS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
)
"""Type 2 attributes of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1)."""
_TIMES = (("ContentDate", "ContentTime"), ("AcquisitionDate", "AcquisitionTime"), ("SeriesDate", "SeriesTime"))
_STUDY_TIME = ("StudyDate", "StudyTime")
UTF8 = "ISO_IR 192"


def with_same_elements(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """Return another data set of the same elements, which can be given others in their place.

    (``copy.copy`` of a pydicom data set is no such thing: the table of the elements is one for both.) What can't be
    parsed, or was left in the file for its length, is left out. The elements themselves are shared, so that they must
    not be changed.
    """
    found = pydicom.Dataset()
    for tag in dataset.keys():  # noqa: SIM118 - a data set iterates over its elements, which parses them
        if is_unread(dataset, tag):
            continue
        with contextlib.suppress(*PARSE_ERRORS):
            found[tag] = dataset[tag]
    if hasattr(dataset, "file_meta"):
        found.file_meta = dataset.file_meta
    return found


def normalised_headers(headers: Sequence[pydicom.Dataset], spacing: float) -> list[pydicom.Dataset]:
    """Return `headers` as highdicom takes them: it asks the first for patient and study, so that one is a copy.

    A missing Slice Thickness becomes `spacing` (mm), the distance of the slices.
    """
    first = without_identity(readable_copy(headers[0]))
    if not first.get("SliceThickness"):
        first.SliceThickness = DSfloat(spacing, auto_format=True)
    return [first, *headers[1:]]


def readable_copy(header: pydicom.Dataset) -> pydicom.Dataset:
    """Return a copy without what can't be parsed, or was left in the file for its length.

    It is a deep one: a shallow copy of a pydicom data set shares its elements with the original.
    """
    copied = copy.deepcopy(header)
    for tag in list(copied.keys()):
        try:
            if is_unread(copied, tag):
                del copied[tag]
            else:
                copied[tag]
        except PARSE_ERRORS:
            del copied[tag]
    return copied


def without_identity(header: pydicom.Dataset) -> pydicom.Dataset:
    """Make the attributes of `IDENTITY_KEYWORDS` empty in `header`, and return it."""
    for keyword in IDENTITY_KEYWORDS:
        setattr(header, keyword, None if keyword.endswith(("Date", "Time")) else "")
    return header


def take_over_identity(result: pydicom.Dataset, source: pydicom.Dataset, own_text: str) -> None:
    """Put the identity of `source` into `result`, in the source's character set.

    If `own_text`, what the result says itself, has other characters than ASCII, the result is in UTF-8 instead: every
    character set can be told in it.
    """
    if not own_text.isascii():
        result.SpecificCharacterSet = UTF8
    elif "SpecificCharacterSet" in source:
        result["SpecificCharacterSet"] = copy.deepcopy(source["SpecificCharacterSet"])
    for keyword in IDENTITY_KEYWORDS:
        if keyword in source:
            result[keyword] = copy.deepcopy(source[keyword])


def moment_of(headers: Sequence[pydicom.Dataset], undated: datetime.datetime | None = None) -> tuple[str, str]:
    """Return the date and time (DA, TM) to give to a result: the latest that its source was made at.

    A result of the same input must be the same object, so the time of the run can't be in it; when it ran is in the
    records and the audit log. A source without any usable date gets `undated`, or the present time where that is not
    given.
    """
    # few, of many headers
    written = {_written(header, *keywords) for header in headers for keywords in (*_TIMES, _STUDY_TIME)}
    found = [moment for date, time in written if (moment := _moment(date, time)) is not None]
    latest = max(found, default=None) or (undated or datetime.datetime.now(tz=datetime.UTC)).astimezone(datetime.UTC)
    return latest.strftime("%Y%m%d"), latest.strftime("%H%M%S")


def _written(header: pydicom.Dataset, date_keyword: str, time_keyword: str) -> tuple[str, str]:
    try:
        return str(header.get(date_keyword) or ""), str(header.get(time_keyword) or "")
    except PARSE_ERRORS:
        return "", ""


def _moment(written_date: str, written_time: str) -> datetime.datetime | None:
    try:
        date: datetime.date | None = DA(written_date)
        time: datetime.time | None = TM(written_time)
    except PARSE_ERRORS:
        return None
    if date is None:
        return None
    clock = datetime.time() if time is None else datetime.time(time.hour, time.minute, time.second)
    return datetime.datetime.combine(date, clock)
