"""dicom3tools' and DCMTK's judgement of rejection notes, over objects of each kind and studies of odd headers."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pydicom
import pytest

from operators.object_kinds import NEEDS, Kind
from operators.rejection_reasons import REASONS, SENTENCES, RejectionReason
from operators.results.binary import write_binary
from operators.results.finding import WrittenObject
from operators.results.rejection_note import TITLES, RejectedObject, write_rejection_note
from operators.results.report import write_report
from tests.finding_phantom import JAPANESE, KINDS, planted_finding
from tests.judges import dsrdump, run_dcentvfy, run_dciodvfy
from tests.peers import require

MOMENT = datetime(2026, 11, 29, 4, 0)  # noqa: DTZ001 - DICOM's dates are the place's


@pytest.fixture(autouse=True)
def _judges() -> None:
    require("dciodvfy", "dcentvfy", "dsrdump")


@pytest.mark.parametrize("name", KINDS)
def test_no_error_in_a_note_on_real_results(name: str, tmp_path: Path) -> None:
    phantom, edit = KINDS[name]
    finding = planted_finding(tmp_path / "images", phantom, edit=edit)
    segmentation = write_binary(finding, tmp_path / "segmentation.dcm")
    report = write_report(finding, segmentation, tmp_path / "report.dcm")
    kinds: dict[Kind, WrittenObject] = {"segmentation": segmentation, "report": report}
    objects = [
        RejectedObject(one.sop_class_uid, one.sop_instance_uid, one.series_instance_uid, kind)
        for kind, one in kinds.items()
    ]
    header = pydicom.dcmread(segmentation.path)
    note = write_rejection_note(
        header, objects, tmp_path / "note.dcm", reason="quality", identity="identity", moment=MOMENT
    )
    assert run_dciodvfy(note.path) == []
    told = run_dcentvfy([*sorted((tmp_path / "images").iterdir()), segmentation.path, report.path, note.path])
    # it says this of every document beside images (test_dciodvfy_results)
    assert [line for line in told.splitlines() if "Element=<AccessionNumber>" not in line] == []
    printed = dsrdump(note.path)
    assert "Key Object Selection Document" in printed
    assert SENTENCES["quality"] in printed
    assert printed.count("<contains IMAGE:") == 1
    assert printed.count("<contains COMPOSITE:") == 1


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_over_objects_of_every_kind(reason: RejectionReason, tmp_path: Path) -> None:
    header = pydicom.dcmread(JAPANESE.write(tmp_path / "images")[0], stop_before_pixels=True)
    objects = [
        RejectedObject(str(sop_class), f"2.25.{number}", f"2.25.{1000 + number}", kind)
        for number, (kind, (sop_class, _)) in enumerate(NEEDS.items(), start=1)
        if kind not in ("labelmap", "rejection-note")  # Debian's DCMTK is older than the class of label maps
    ]
    note = write_rejection_note(header, objects, tmp_path / "note.dcm", reason=reason, identity="i", moment=MOMENT)
    assert run_dciodvfy(note.path) == []
    printed = dsrdump(note.path)
    assert f'"{TITLES[reason].meaning}"' in printed
    assert SENTENCES[reason] in printed
