"""A result that takes an earlier one's place says so, to people and to programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from operators.results.binary import write_binary
from operators.results.finding import ReplacedObject
from operators.results.replacing import say_replaces
from operators.results.report import write_report
from operators.results.series_description import say_ai, say_whose
from tests.finding_phantom import planted_finding

REPLACED = (
    ReplacedObject("segmentation", "1.2.840.10008.5.1.4.1.1.66.4", "2.25.11", "2.25.1"),
    ReplacedObject("labelmap", "1.2.840.10008.5.1.4.1.1.66.7", "2.25.12", "2.25.1"),  # of the same series
    ReplacedObject("report", "1.2.840.10008.5.1.4.1.1.88.34", "2.25.21", "2.25.2"),
    ReplacedObject("capture", "1.2.840.10008.5.1.4.1.1.7", "2.25.31", "2.25.3"),
)


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ("Liver", "AI, replaces earlier: Liver"),
        ("AI: Liver", "AI, replaces earlier: Liver"),
        ("x" * 64, "AI, replaces earlier: " + "x" * 42),
    ],
)
def test_the_series_description_begins_with_it(description: str, said: str) -> None:
    assert say_replaces(description) == said
    assert say_ai(said) == said  # which is a machine's word still
    assert say_whose(said, "SAM").startswith("AI, replaces earlier: ")


def test_a_segmentation_names_the_series_that_it_replaces(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "images")
    alone = pydicom.dcmread(write_binary(finding, tmp_path / "alone.dcm").path)
    assert "RelatedSeriesSequence" not in alone
    written = pydicom.dcmread(write_binary(replace(finding, replaces=REPLACED), tmp_path / "binary.dcm").path)
    [related] = written.RelatedSeriesSequence
    assert (related.StudyInstanceUID, related.SeriesInstanceUID) == (written.StudyInstanceUID, "2.25.1")
    assert list(related.PurposeOfReferenceCodeSequence) == []
    del written.RelatedSeriesSequence
    assert written == alone


def test_a_report_names_its_predecessor(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "images")
    alone = pydicom.dcmread(write_report(finding, None, tmp_path / "alone.dcm").path)
    assert "PredecessorDocumentsSequence" not in alone
    written = pydicom.dcmread(write_report(replace(finding, replaces=REPLACED), None, tmp_path / "report.dcm").path)
    [study] = written.PredecessorDocumentsSequence
    assert study.StudyInstanceUID == written.StudyInstanceUID
    [series] = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "2.25.2"
    [document] = series.ReferencedSOPSequence
    assert document.ReferencedSOPInstanceUID == "2.25.21"
    assert document.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
