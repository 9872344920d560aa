"""A notice is written whatever the source's headers lack, and says how the run ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedSRStorage

from operators.errors import OperatorError
from operators.results.finding import Algorithm, device_uid, object_instance_uid
from operators.results.notice import Outcome, write_notice
from tests.finding_phantom import JAPANESE, PHANTOM
from tests.phantom import Phantom
from tests.segmented_phantom import ALGORITHM

SENTENCE = "expected a slice every 2.50 mm; missing: 1 between 2.50 and 7.50 mm; send the whole series"


def _headers(phantom: Phantom = PHANTOM) -> list[Dataset]:
    headers = [phantom.dataset(index) for index in range(phantom.slices)]
    for header in headers:
        del header.PixelData
    return headers


def _notice(headers: Sequence[Dataset], path: Path, **changed: Any) -> Dataset:
    given: dict[str, Any] = {
        "outcome": "refused",
        "code": "slice-missing",
        "sentence": SENTENCE,
        "pipeline": "abdomen",
        "identity": "identity",
        "algorithm": ALGORITHM,
    }
    return pydicom.dcmread(write_notice(headers, path, **given | changed).path)


def _said(dataset: Dataset) -> dict[str, str]:
    (container,) = (one for one in dataset.ContentSequence if one.ValueType == "CONTAINER")
    return {
        item.ConceptNameCodeSequence[0].CodeMeaning: item.TextValue
        if item.ValueType == "TEXT"
        else item.ConceptCodeSequence[0].CodeMeaning
        for item in container.ContentSequence
    }


@pytest.mark.parametrize(
    ("outcome", "summary", "status", "description"),
    [
        ("refused", "No algorithms succeeded; without findings", "Not Attempted", "AI: not analysed (abdomen)"),
        ("failed", "No algorithms succeeded; without findings", "Failed", "AI: analysis failed (abdomen)"),
        ("nothing-found", "All algorithms succeeded; without findings", "Succeeded", "AI: nothing found (abdomen)"),
    ],
)
def test_it_says_how_the_run_ended(
    outcome: Outcome, summary: str, status: str, description: str, tmp_path: Path
) -> None:
    dataset = _notice(_headers(), tmp_path / "notice.dcm", outcome=outcome)
    assert _said(dataset) == {
        "CAD Processing and Findings Summary": summary,
        "Summary of Analyses": status,
        "Comment": SENTENCE,
        "Reason code": "slice-missing",
        "Pipeline": "abdomen",
    }
    assert (dataset.SOPClassUID, dataset.SeriesDescription) == (EnhancedSRStorage, description)
    assert (dataset.CompletionFlag, dataset.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert (dataset.SeriesNumber, dataset.SOPInstanceUID) == (6003, object_instance_uid("identity", "notice"))
    assert dataset.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99LIMNER"


def test_it_is_in_the_study_and_names_its_instances(tmp_path: Path) -> None:
    headers = _headers()
    dataset = _notice(headers, tmp_path / "notice.dcm")
    assert (dataset.StudyInstanceUID, dataset.PatientID) == (headers[0].StudyInstanceUID, "PHANTOM-1")
    (study,) = dataset.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert {one.ReferencedSOPInstanceUID for one in series.ReferencedSOPSequence} == {
        one.SOPInstanceUID for one in headers
    }
    devices = [one.get("DeviceUID") for one in dataset.ContributingEquipmentSequence]
    assert device_uid(ALGORITHM) in devices


def test_study_and_series_are_enough(tmp_path: Path) -> None:
    header = Dataset()
    header.StudyInstanceUID, header.SeriesInstanceUID, header.StudyDate = "2.25.1", "2.25.2", "20240305"
    dataset = _notice([header], tmp_path / "notice.dcm")
    assert dataset.StudyInstanceUID == "2.25.1"
    assert "CurrentRequestedProcedureEvidenceSequence" not in dataset
    assert not any(dataset[keyword].value for keyword in ("PatientName", "PatientID", "StudyID", "AccessionNumber"))
    assert len(header) == 3  # it is as it was


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_headers_may_hold_what_is_none_of_its_kind(tmp_path: Path) -> None:
    headers = _headers()
    for header in headers:
        for keyword, value in (("PatientBirthDate", "19609999"), ("StudyTime", "late"), ("SeriesNumber", "three")):
            header[keyword]._value = value
        header.PatientSex = "U"
        del header.ImagePositionPatient, header.FrameOfReferenceUID
    del headers[2].SOPInstanceUID
    dataset = _notice(headers, tmp_path / "notice.dcm")
    assert (dataset.PatientBirthDate, dataset.StudyTime, dataset.PatientSex) == ("19609999", "late", "U")
    assert dataset.SeriesNumber == 6000
    (study,) = dataset.CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == len(headers) - 1


def test_instances_of_another_study_are_other_evidence(tmp_path: Path) -> None:
    mixed = [*_headers(), Phantom(seed=5).dataset(0)]
    dataset = _notice(mixed, tmp_path / "notice.dcm", code="mixed-series")
    (study,) = dataset.PertinentOtherEvidenceSequence
    assert study.StudyInstanceUID == mixed[-1].StudyInstanceUID


def test_a_name_in_japanese_is_kept(tmp_path: Path) -> None:
    files = JAPANESE.write(tmp_path / "ct")
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
    dataset = _notice(headers, tmp_path / "notice.dcm")
    assert str(dataset.PatientName) == JAPANESE.patient_name
    assert list(dataset.SpecificCharacterSet) == JAPANESE.character_set


def test_the_pipeline_stands_for_a_model_that_is_not_known(tmp_path: Path) -> None:
    dataset = _notice(_headers(), tmp_path / "notice.dcm", algorithm=None)
    assert (dataset.Manufacturer, dataset.ManufacturerModelName) == ("Limner", "abdomen")
    assert "SoftwareVersions" not in dataset
    assert device_uid(Algorithm("abdomen", "", "")) in [
        one.get("DeviceUID") for one in dataset.ContributingEquipmentSequence
    ]


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    _notice(_headers(), tmp_path / "1.dcm")
    _notice(_headers(), tmp_path / "2.dcm")
    assert (tmp_path / "1.dcm").read_bytes() == (tmp_path / "2.dcm").read_bytes()


@pytest.mark.parametrize("headers", [[], [Dataset()]])
def test_without_a_study_there_is_none(headers: list[Dataset], tmp_path: Path) -> None:
    with pytest.raises(OperatorError) as caught:
        _notice(headers, tmp_path / "notice.dcm")
    assert caught.value.code == "no-study"
    assert not (tmp_path / "notice.dcm").exists()
