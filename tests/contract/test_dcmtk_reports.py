"""DCMTK reads reports and notices without a complaint, and shows what people are to read."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from operators.results.binary import write_binary
from operators.results.notice import write_notice
from operators.results.report import write_report
from tests.finding_phantom import JAPANESE, KINDS, planted_finding
from tests.judges import dsrdump
from tests.peers import require


@pytest.fixture(autouse=True)
def _reader() -> None:
    require("dsrdump")


@pytest.mark.parametrize("name", KINDS)
def test_a_report_is_read(name: str, tmp_path: Path) -> None:
    phantom, edit = KINDS[name]
    finding = planted_finding(tmp_path / "images", phantom, edit=edit)
    segmentation = write_binary(finding, tmp_path / "seg.dcm")
    report = write_report(finding, segmentation, tmp_path / "report.dcm", notes=["the second model disagrees"])
    printed = dsrdump(report.path)
    assert "Comprehensive 3D SR Document" in printed
    assert '"the second model disagrees"' in printed
    assert printed.count("Referenced Segment") == 2
    assert printed.count('(272519000,SCT,"Absent")') == 1


def test_a_notice_is_read(tmp_path: Path) -> None:
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in JAPANESE.write(tmp_path / "images")]
    notice = write_notice(
        headers, tmp_path / "notice.dcm", outcome="refused", code="slice-missing", sentence="expected every slice",
        pipeline="abdomen", identity="identity",
    )  # fmt: skip
    printed = dsrdump(notice.path)
    assert "Enhanced SR Document" in printed
    assert '(111225,DCM,"Not Attempted")' in printed
    assert '"expected every slice"' in printed
    assert '"slice-missing"' in printed
