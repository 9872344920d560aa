"""A page for a run without a result needs no more than the UIDs of study and series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from operators.results.notice_page import Outcome, write_notice_page
from tests.pictured_phantom import PHANTOM
from tests.segmented_phantom import ALGORITHM

REASON = "expected a slice every 2.50 mm; missing: 1 between 5.00 and 10.00 mm; send the whole series"


def _page(headers: list[Dataset], path: Path, **changes: Any) -> pydicom.Dataset:
    facts: dict[str, Any] = {
        "study_instance_uid": "1.2.3",
        "series_instance_uid": "1.2.3.4",
        "identity": "identity",
        "pipeline": "ct-liver",
        "algorithm": ALGORITHM,
        "outcome": "refused",
        "code": "slice-missing",
        "reason": REASON,
    }
    return pydicom.dcmread(write_notice_page(headers, path, **(facts | changes)).path)


@pytest.mark.parametrize("outcome", ["refused", "failed", "nothing-found"])
def test_it_says_what_became_of_the_series(outcome: Outcome, tmp_path: Path) -> None:
    headers = [PHANTOM.dataset(index) for index in range(3)]
    page = _page(headers, tmp_path / "page.dcm", outcome=outcome)
    assert page.ImageComments.endswith(f"[slice-missing] {REASON}")
    assert page.SeriesDescription == f"AI: {outcome.replace('-', ' ')} (ct-liver)"
    assert (page.PatientID, page.StudyInstanceUID) == ("PHANTOM-1", headers[0].StudyInstanceUID)
    assert len(page.SourceImageSequence) == 3
    assert page.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.3.4"
    assert page.BurnedInAnnotation == "NO"
    assert page.SeriesNumber == 7003
    assert page.pixel_array.any()


def test_nothing_of_the_patient_is_in_the_pixels(tmp_path: Path) -> None:
    first, second = PHANTOM.dataset(0), PHANTOM.dataset(0)
    second.PatientName, second.PatientID, second.StudyDate = "Other^Name", "OTHER", "19990101"
    pages = [_page([one], tmp_path / f"{number}.dcm") for number, one in enumerate((first, second))]
    assert np.array_equal(pages[0].pixel_array, pages[1].pixel_array)


def test_headers_may_lack_everything(tmp_path: Path) -> None:
    page = _page([Dataset()], tmp_path / "page.dcm", algorithm=None)
    assert (page.StudyInstanceUID, page.PatientID, page.PatientName) == ("1.2.3", "", "")
    assert "SourceImageSequence" not in page
    assert page.Manufacturer == "Limner"
    assert "DeviceUID" not in page.ContributingEquipmentSequence[0]


def test_headers_may_be_damaged(tmp_path: Path) -> None:
    header = PHANTOM.dataset(0)
    header.add(pydicom.DataElement(0x00080020, "DA", "yesterday", already_converted=True))
    header.SOPClassUID = "1.2.3.4.5"
    for keyword in ("ImagePositionPatient", "PixelSpacing", "SeriesNumber", "SeriesInstanceUID", "PatientSex"):
        del header[keyword]
    page = _page([header], tmp_path / "page.dcm")
    assert page.PatientName == "Phantom^Limner"
    assert page.SourceImageSequence[0].ReferencedSOPClassUID == "1.2.3.4.5"


def test_another_outcome_is_another_page_of_the_same_series(tmp_path: Path) -> None:
    headers = [PHANTOM.dataset(0)]
    first = _page(headers, tmp_path / "first.dcm")
    same = _page(headers, tmp_path / "same.dcm")
    other = _page(headers, tmp_path / "other.dcm", outcome="failed", code="timeout", reason="it took too long")
    assert (tmp_path / "first.dcm").read_bytes() == (tmp_path / "same.dcm").read_bytes()
    assert same.SOPInstanceUID == first.SOPInstanceUID != other.SOPInstanceUID
    assert first.SeriesInstanceUID == other.SeriesInstanceUID


def test_a_reason_in_other_letters_is_kept(tmp_path: Path) -> None:
    page = _page([PHANTOM.dataset(0)], tmp_path / "page.dcm", reason="Schicht fehlt: über 5 mm")
    assert page.SpecificCharacterSet == "ISO_IR 192"
    assert page.ImageComments.endswith("Schicht fehlt: über 5 mm")
