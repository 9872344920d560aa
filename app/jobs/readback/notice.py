"""A notice that there is no result, read back: it is its source's, and says why."""

from __future__ import annotations

import pydicom

from app.jobs.readback.computed import require

_SAME_AS_SOURCE = ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "AccessionNumber")


def check_notice(dataset: pydicom.Dataset, source: pydicom.Dataset, code: str) -> None:
    """Raise ``VerificationFailed`` if it is of another patient or study than `source`, or does not say `code`.

    A report says it in its content, a page in its comment (the text in its pixels is not read).
    """
    for keyword in _SAME_AS_SOURCE:
        same = str(dataset.get(keyword, "") or "") == str(source.get(keyword, "") or "")
        require(same, f"its {keyword} is not the source's")
    said = [str(element.value) for element in dataset.iterall() if element.VR in ("LO", "LT", "SH", "UT")]
    require(any(code in one for one in said), "it does not say why there is no result")
    if "PixelData" in dataset:
        require(bool(dataset.pixel_array.any()), "its page is empty")
