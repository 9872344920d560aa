"""Rejection notes: what they refer to, that they are the same each time, and that another note is told from them."""

from datetime import datetime
from pathlib import Path

import pydicom
import pytest

from app.errors import VerificationFailed
from app.jobs.readback.rejection_note import check_rejection_note
from operators.rejection_reasons import REASONS, SENTENCES
from operators.results.rejection_note import TITLES, RejectedObject, note_uid, write_rejection_note
from tests.phantom import Phantom

MOMENT = datetime(2026, 11, 29, 4, 0)  # noqa: DTZ001 - DICOM's dates are the place's
SEGMENTATION = RejectedObject("1.2.840.10008.5.1.4.1.1.66.4", "2.25.11", "2.25.1", "segmentation")
REPORT = RejectedObject("1.2.840.10008.5.1.4.1.1.88.34", "2.25.12", "2.25.2", "report")
EXPECTED = [(one.series_instance_uid, one.sop_class_uid, one.sop_instance_uid) for one in (SEGMENTATION, REPORT)]


def written(path: Path, *objects: RejectedObject, moment: datetime = MOMENT) -> pydicom.Dataset:
    header = Phantom(slices=1).dataset(0)
    write_rejection_note(header, objects, path, reason="quality", identity="job", moment=moment)
    return pydicom.dcmread(path)


def test_every_reason_has_a_title_and_a_sentence() -> None:
    assert set(TITLES) == set(SENTENCES) == set(REASONS)
    assert {one.value for one in TITLES.values()} == {"113001", "113037", "113038", "113039"}


def test_the_same_note_has_the_same_bytes(tmp_path: Path) -> None:
    written(tmp_path / "one.dcm", SEGMENTATION, REPORT)
    written(tmp_path / "other.dcm", SEGMENTATION, REPORT)
    assert (tmp_path / "one.dcm").read_bytes() == (tmp_path / "other.dcm").read_bytes()


def test_another_note_has_another_uid() -> None:
    one = note_uid("job", [SEGMENTATION, REPORT], "quality")
    assert one == note_uid("job", [REPORT, SEGMENTATION], "quality")
    others = {
        note_uid("job", [SEGMENTATION], "quality"),
        note_uid("job", [SEGMENTATION, REPORT], "unsafe"),
        note_uid("other", [SEGMENTATION, REPORT], "quality"),
    }
    assert len(others | {one}) == 4


def test_a_note_is_of_its_objects_study_and_says_when(tmp_path: Path) -> None:
    note, source = written(tmp_path / "note.dcm", SEGMENTATION, REPORT), Phantom(slices=1).dataset(0)
    assert (note.StudyInstanceUID, note.PatientID) == (source.StudyInstanceUID, source.PatientID)
    assert (note.ContentDate, note.ContentTime) == ("20261129", "040000")
    check_rejection_note(note, source, TITLES["quality"], EXPECTED)


def test_a_note_that_is_not_the_right_one_is_told(tmp_path: Path) -> None:
    note, source = written(tmp_path / "note.dcm", SEGMENTATION, REPORT), Phantom(slices=1).dataset(0)
    with pytest.raises(VerificationFailed, match="its title"):
        check_rejection_note(note, source, TITLES["unsafe"], EXPECTED)
    with pytest.raises(VerificationFailed, match="its evidence"):
        check_rejection_note(note, source, TITLES["quality"], EXPECTED[:1])
    del note.ContentSequence[-1]
    with pytest.raises(VerificationFailed, match="its content"):
        check_rejection_note(note, source, TITLES["quality"], EXPECTED)
    source.PatientID = "ANOTHER"
    with pytest.raises(VerificationFailed, match="its PatientID"):
        check_rejection_note(note, source, TITLES["quality"], EXPECTED)
    note.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    with pytest.raises(VerificationFailed, match="no Key Object Selection"):
        check_rejection_note(note, source, TITLES["quality"], EXPECTED)
