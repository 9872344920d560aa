"""A rejection note, read back: it is of the patient and study of what it withdraws, and withdraws exactly that."""

from __future__ import annotations

from collections.abc import Collection

import pydicom
from pydicom.sr.coding import Code
from pydicom.uid import KeyObjectSelectionDocumentStorage

from app.jobs.readback.computed import require

_SAME_AS_REJECTED = ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "AccessionNumber")
Reference = tuple[str, str, str]
"""Series, SOP Class and SOP Instance UID."""


def check_rejection_note(
    dataset: pydicom.Dataset, rejected: pydicom.Dataset, title: Code, expected: Collection[Reference]
) -> None:
    """Raise ``VerificationFailed`` if it is not the note that withdraws exactly the objects `expected`.

    Parameters
    ----------
    rejected
        The header of one of them.
    title
        What its title must be (CID 7010).
    """
    require(dataset.SOPClassUID == KeyObjectSelectionDocumentStorage, "it is no Key Object Selection Document")
    for keyword in _SAME_AS_REJECTED:
        same = str(dataset.get(keyword, "") or "") == str(rejected.get(keyword, "") or "")
        require(same, f"its {keyword} is not that of what it withdraws")
    (name,) = dataset.ConceptNameCodeSequence
    is_title = (name.CodeValue, name.CodingSchemeDesignator) == (title.value, title.scheme_designator)
    require(is_title, "its title is another one than the reason's")
    evidence = [
        (str(series.SeriesInstanceUID), str(one.ReferencedSOPClassUID), str(one.ReferencedSOPInstanceUID))
        for study in dataset.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    ]
    require(sorted(evidence) == sorted(expected), "its evidence is not exactly what is withdrawn")
    content = [
        (str(one.ReferencedSOPClassUID), str(one.ReferencedSOPInstanceUID))
        for item in dataset.ContentSequence
        for one in item.get("ReferencedSOPSequence", ())
    ]
    require(sorted(content) == sorted(one[1:] for one in expected), "its content is not exactly what is withdrawn")
