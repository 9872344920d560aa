"""Whether instances are one series of one patient, of images that can become one volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pydicom
from pydicom.uid import UID, CTImageStorage, PositronEmissionTomographyImageStorage

from operators.errors import SeriesRefused
from operators.instances import IMAGE_SOP_CLASSES, MULTI_FRAME_SOP_CLASSES, frame_count
from operators.pixels import rescale

_IN_UNITS = (CTImageStorage, PositronEmissionTomographyImageStorage)
"""The modalities whose rescaled values have a unit: Hounsfield's, or one of activity."""
_IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_ONE_STUDY = (
    ("StudyInstanceUID", "mixed-series", "studies"),
    ("PatientID", "mixed-patient", "patients (Patient ID)"),
    ("PatientName", "mixed-patient", "patients (Patient's Name)"),
    ("PatientBirthDate", "mixed-patient", "patients (Patient's Birth Date)"),
)


def check_same_series(headers: Sequence[pydicom.Dataset]) -> None:
    """Refuse instances of several series or patients, and those that do not say whose they are.

    Raises
    ------
    SeriesRefused
        ``missing-identifiers``, ``mixed-series``, ``mixed-patient`` or ``duplicate-instance``.
    """
    for keyword in _IDENTIFIERS:
        missing = sum(not text(header, keyword) for header in headers)
        if missing:
            raise SeriesRefused(
                f"{missing} of {len(headers)} instances have no {keyword}; an archive that fills identifiers is needed",
                code="missing-identifiers",
            )
    for keyword, code, what in (*_ONE_STUDY, ("SeriesInstanceUID", "mixed-series", "series")):
        found = _count(headers, keyword)
        if found > 1:
            raise SeriesRefused(f"expected one series of one patient, got instances of {found} {what}", code=code)
    if len({text(header, "SOPInstanceUID") for header in headers}) < len(headers):
        raise SeriesRefused(
            "two different instances have the same SOP Instance UID; the sender must give each its own",
            code="duplicate-instance",
        )


def check_same_study(headers: Sequence[pydicom.Dataset]) -> None:
    """Refuse series, one header each, of several studies or patients.

    Raises
    ------
    SeriesRefused
        ``mixed-series`` or ``mixed-patient``.
    """
    for keyword, code, what in _ONE_STUDY:
        found = _count(headers, keyword)
        if found > 1:
            raise SeriesRefused(f"expected series of one study of one patient, got {found} {what}", code=code)


def _count(headers: Sequence[pydicom.Dataset], keyword: str) -> int:
    return len({text(header, keyword) for header in headers})


def check_concatenations(headers: Sequence[pydicom.Dataset]) -> None:
    """Refuse a multi-frame image that was split into several instances of which not all are there (PS3.3 C.7.6.16.1).

    Raises
    ------
    SeriesRefused
        ``slice-missing``.
    """
    parts: dict[str, list[pydicom.Dataset]] = {}
    for header in headers:
        if text(header, "ConcatenationUID"):
            parts.setdefault(text(header, "ConcatenationUID"), []).append(header)
    for found in parts.values():
        numbers_found = [_whole(one, "InConcatenationNumber") for one in found]
        total = max(*numbers_found, *(_whole(one, "InConcatenationTotalNumber") for one in found), 1)
        missing = len(set(range(1, total + 1)) - set(numbers_found))
        if missing:
            raise SeriesRefused(
                f"expected all {total} instances of a concatenation, and {missing} of them are missing; "
                "send the whole series",
                code="slice-missing",
            )


def _whole(header: pydicom.Dataset, keyword: str) -> int:
    value = header.get(keyword)
    return value if isinstance(value, int) else 0


def check_pixels(headers: Sequence[pydicom.Dataset]) -> None:
    """Refuse what can't be read as slices of one volume of single-valued pixels (PS3.3 C.7.6.3).

    Raises
    ------
    SeriesRefused
        ``sop-class-unsupported``, ``multi-frame-unsupported``, ``mixed-sop-class``, ``unreadable-instance``,
        ``colour``, ``not-monochrome2``, ``mixed-matrix`` or ``missing-rescale``.
    """
    _check_sop_classes(headers)
    for header in headers:
        _check_matrix(header)
        _check_photometry(header)
    _check_rescale(headers)
    matrices = {(int(header.Rows), int(header.Columns)) for header in headers}
    if len(matrices) > 1:
        sizes = ", ".join(f"{rows} x {columns}" for rows, columns in sorted(matrices))
        raise SeriesRefused(
            f"expected slices with one number of rows and columns, got {sizes}; is a localizer among them?",
            code="mixed-matrix",
        )


def text(header: pydicom.Dataset, keyword: str) -> str:
    """Return an attribute as text; empty if it is missing or has no value."""
    value = header.get(keyword)
    return "" if value is None else str(value)


def numbers(header: pydicom.Dataset, keyword: str) -> list[float]:
    """Return an attribute's numbers; empty if it is missing, has no value or holds what is not a finite number."""
    value = header.get(keyword)
    if value is None or isinstance(value, str):
        return []
    try:
        found = [float(one) for one in value]
    except (TypeError, ValueError):
        return []
    return found if np.all(np.isfinite(found)) else []


def _check_sop_classes(headers: Sequence[pydicom.Dataset]) -> None:
    for header in headers:
        sop_class = UID(text(header, "SOPClassUID"))
        if sop_class not in IMAGE_SOP_CLASSES:
            name = sop_class.name or "an instance without SOP Class UID"
            raise SeriesRefused(
                f"expected CT, MR or PET images, single-frame or enhanced, got {name}; route only those here",
                code="sop-class-unsupported",
            )
        if sop_class not in MULTI_FRAME_SOP_CLASSES and frame_count(header) > 1:
            raise SeriesRefused(
                f"expected one frame in each {sop_class.name}, got several, and nothing says where they lie; "
                "send single-frame or enhanced images",
                code="multi-frame-unsupported",
            )
    found = {text(header, "SOPClassUID") for header in headers}
    if len(found) > 1:
        names = " and ".join(sorted(UID(one).name for one in found))
        raise SeriesRefused(
            f"expected images of one SOP class, got {names}; each has units of its own, so send them as series of "
            "their own",
            code="mixed-sop-class",
        )


def _check_matrix(header: pydicom.Dataset) -> None:
    for keyword in ("Rows", "Columns", "BitsAllocated"):
        value = header.get(keyword)
        if not isinstance(value, int) or value < 1:
            raise SeriesRefused(
                f"expected {keyword} above 0 in every instance, and one lacks it; send it again",
                code="unreadable-instance",
            )
    bits_stored, high_bit = header.get("BitsStored"), header.get("HighBit")
    if isinstance(bits_stored, int) and isinstance(high_bit, int) and high_bit != bits_stored - 1:
        raise SeriesRefused(
            f"expected a High Bit one below the Bits Stored of {bits_stored} (PS3.5 section 8.1.1), got {high_bit}; "
            "nothing says which bits are the values: send the images with them in the lowest bits",
            code="unreadable-instance",
        )


def _check_photometry(header: pydicom.Dataset) -> None:
    if text(header, "SamplesPerPixel") not in ("", "1"):
        raise SeriesRefused("expected one sample a pixel, got a colour image", code="colour")
    photometric = text(header, "PhotometricInterpretation")
    if photometric == "MONOCHROME2" or (photometric == "MONOCHROME1" and _is_in_units(header)):
        return
    known = photometric if photometric.replace("_", " ").isascii() and len(photometric) <= 16 else "another"
    what = "an MR in MONOCHROME1, whose values may be inverted" if known == "MONOCHROME1" else known or "none"
    raise SeriesRefused(
        f"expected the photometric interpretation MONOCHROME2, got {what}; send the image as MONOCHROME2",
        code="not-monochrome2",
    )


def _check_rescale(headers: Sequence[pydicom.Dataset]) -> None:
    """A CT without rescale holds stored values, not Hounsfield units; guessing would shift all of them.

    An MR need not have any (PS3.3 C.8.3.1). Where one slice has, the others' stored values are on another scale.
    """
    if any("ModalityLUTSequence" in header for header in headers):
        raise SeriesRefused("expected rescale slope and intercept, got a modality LUT", code="missing-rescale")
    are_scaled = any(_is_in_units(header) or _states_rescale(header) for header in headers)
    missing = sum(rescale(header) is None for header in headers)
    if are_scaled and missing:
        raise SeriesRefused(
            f"expected a rescale slope other than 0 and an intercept for every slice, and {missing} of {len(headers)} "
            "lack them or have what is no number",
            code="missing-rescale",
        )


def _states_rescale(header: pydicom.Dataset) -> bool:
    return any(text(header, keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))


def _is_in_units(header: pydicom.Dataset) -> bool:
    sop_class = UID(text(header, "SOPClassUID"))
    return MULTI_FRAME_SOP_CLASSES.get(sop_class, sop_class) in _IN_UNITS
