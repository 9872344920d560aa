"""Whether instances are one series of one patient, of images that can become one volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pydicom
from pydicom.uid import UID, CTImageStorage, PositronEmissionTomographyImageStorage

from operators.errors import SeriesRefused
from operators.instances import IMAGE_SOP_CLASSES, rescale

_RESCALED_SOP_CLASSES = (CTImageStorage, PositronEmissionTomographyImageStorage)
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


def check_pixels(headers: Sequence[pydicom.Dataset]) -> None:
    """Refuse what can't be read as slices of one volume of single-valued pixels (PS3.3 C.7.6.3).

    Raises
    ------
    SeriesRefused
        ``multi-frame-unsupported``, ``sop-class-unsupported``, ``unreadable-instance``, ``colour``,
        ``not-monochrome2``, ``mixed-matrix`` or ``missing-rescale``.
    """
    for header in headers:
        _check_sop_class(header)
        _check_matrix(header)
        _check_photometry(header)
        _check_rescale(header)
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


def _check_sop_class(header: pydicom.Dataset) -> None:
    sop_class = UID(text(header, "SOPClassUID"))
    if text(header, "NumberOfFrames") not in ("", "0", "1") or "Enhanced" in sop_class.name:
        raise SeriesRefused(
            "expected single-frame images, got a multi-frame image, which is not supported yet; "
            "send the classic single-frame series",
            code="multi-frame-unsupported",
        )
    if sop_class not in IMAGE_SOP_CLASSES:
        raise SeriesRefused(
            f"expected CT, MR or PET images, got {sop_class.name}; route only those here", code="sop-class-unsupported"
        )


def _check_matrix(header: pydicom.Dataset) -> None:
    for keyword in ("Rows", "Columns", "BitsAllocated"):
        value = header.get(keyword)
        if not isinstance(value, int) or value < 1:
            raise SeriesRefused(
                f"expected {keyword} above 0 in every instance, and one lacks it; send it again",
                code="unreadable-instance",
            )


def _check_photometry(header: pydicom.Dataset) -> None:
    if text(header, "SamplesPerPixel") not in ("", "1"):
        raise SeriesRefused("expected one sample a pixel, got a colour image", code="colour")
    photometric = text(header, "PhotometricInterpretation")
    if photometric != "MONOCHROME2":
        known = photometric if photometric.replace("_", " ").isascii() and len(photometric) <= 16 else "another"
        raise SeriesRefused(
            f"expected the photometric interpretation MONOCHROME2, got {known or 'none'}", code="not-monochrome2"
        )


def _check_rescale(header: pydicom.Dataset) -> None:
    """A CT without rescale holds stored values, not Hounsfield units; guessing would shift all of them."""
    if "ModalityLUTSequence" in header:
        raise SeriesRefused("expected rescale slope and intercept, got a modality LUT", code="missing-rescale")
    wants = UID(text(header, "SOPClassUID")) in _RESCALED_SOP_CLASSES
    if wants and rescale(header) is None:
        raise SeriesRefused(
            "expected a rescale slope other than 0 and an intercept in every instance, and one lacks them",
            code="missing-rescale",
        )
