"""dicom3tools' judgement of label maps, probabilities, reports and notices, on CT and MR of all orientations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from operators.gate.gate import Gate
from operators.results.binary import write_binary
from operators.results.finding import Finding, PromptingObject
from operators.results.fractional import write_fractional
from operators.results.labelmap import write_labelmap
from operators.results.notice import Outcome, write_notice
from operators.results.report import write_report
from tests.finding_phantom import (
    KINDS,
    PHANTOM,
    TUMOUR,
    WITHOUT_TYPE_2,
    as_mr,
    planted_finding,
    planted_probabilities,
)
from tests.judges import run_dcentvfy, run_dciodvfy
from tests.peers import require
from tests.phantom import Edit, setting
from tests.segmented_phantom import LIVER, MANY_SEGMENTS, many_labels, no_labels
from tests.unit.operators.results.test_replacing import REPLACED

SINGLE = replace(PHANTOM, slices=1)


@pytest.fixture(autouse=True)
def _judges() -> None:
    require("dciodvfy", "dcentvfy")


def _inconsistencies(paths: Sequence[Path]) -> list[str]:
    """What dcentvfy finds, but for what it says of every report beside images.

    It takes Accession Number for one of the series where a module of the series may hold it in a sequence, as General
    Series may and SR Document Series may not.
    """
    known = re.compile(r"Warning - Different information entities for attribute - Element=<AccessionNumber> ")
    return [line for line in run_dcentvfy(paths).splitlines() if not known.match(line)]


def _written(finding: Finding, folder: Path) -> list[Path]:
    """A finding as objects of every kind that says it."""
    binary = write_binary(finding, folder / "binary.dcm")
    written = [
        binary,
        write_labelmap(finding, folder / "labelmap.dcm"),
        write_fractional(finding, planted_probabilities(finding), folder / "fractional.dcm"),
        write_report(finding, binary, folder / "report.dcm", notes=["a note"]),
    ]
    return [one.path for one in written]


@pytest.mark.parametrize("name", KINDS)
def test_no_error_in_what_is_made_of_a_finding(name: str, tmp_path: Path) -> None:
    phantom, edit = KINDS[name]
    written = _written(planted_finding(tmp_path / "images", phantom, edit=edit), tmp_path)
    assert {path.name: run_dciodvfy(path) for path in written} == {path.name: [] for path in written}
    assert _inconsistencies([*sorted((tmp_path / "images").iterdir()), *written]) == []


@pytest.mark.parametrize("edit", [None, as_mr, setting(SliceThickness=None), setting(SpacingBetweenSlices="4")])
def test_no_error_in_what_is_made_of_a_slice_alone(edit: Edit | None, tmp_path: Path) -> None:
    alone = Gate(takes_single_slice=True)
    written = _written(planted_finding(tmp_path / "images", SINGLE, edit=edit, gate=alone), tmp_path)
    assert {path.name: run_dciodvfy(path) for path in written} == {path.name: [] for path in written}
    assert _inconsistencies([*sorted((tmp_path / "images").iterdir()), *written]) == []


@pytest.mark.parametrize("name", ["nothing", "many", "without-type-2", "on-a-side", "prompted", "replacing"])
def test_no_error_in_what_is_made_of_a_strange_one(name: str, tmp_path: Path) -> None:
    finding = {
        "nothing": lambda: planted_finding(tmp_path / "images", paint=no_labels),
        "many": lambda: planted_finding(tmp_path / "images", paint=many_labels, segments=MANY_SEGMENTS),
        "without-type-2": lambda: planted_finding(tmp_path / "images", edit=WITHOUT_TYPE_2),
        "on-a-side": lambda: planted_finding(tmp_path / "images", segments=[LIVER, replace(TUMOUR, label_value=5)]),
        "prompted": lambda: replace(
            planted_finding(tmp_path / "images"), prompted_by=[PromptingObject("2.25.1", "2.25.11")]
        ),
        "replacing": lambda: replace(planted_finding(tmp_path / "images"), replaces=REPLACED),
    }[name]()
    for path in _written(finding, tmp_path):
        assert run_dciodvfy(path) == [], path.name


def test_no_error_in_a_report_without_a_segmentation(tmp_path: Path) -> None:
    assert run_dciodvfy(write_report(planted_finding(tmp_path / "images"), None, tmp_path / "report.dcm").path) == []


def test_no_error_in_what_is_made_of_the_real_ct(abdominal_ct: list[Path], tmp_path: Path) -> None:
    from operators.series_volume import read_series  # noqa: PLC0415
    from tests.segmented_phantom import ALGORITHM, SEGMENTS, label_volume  # noqa: PLC0415

    series = read_series(abdominal_ct)
    written = _written(Finding(label_volume(series), series, SEGMENTS, ALGORITHM, "identity", "organs"), tmp_path)
    assert {path.name: run_dciodvfy(path) for path in written} == {path.name: [] for path in written}
    assert _inconsistencies([*abdominal_ct, *written]) == []


@pytest.mark.parametrize("outcome", ["refused", "failed", "nothing-found"])
def test_no_error_in_a_notice(outcome: Outcome, tmp_path: Path) -> None:
    files = PHANTOM.write(tmp_path / "images")
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
    path = _notice(headers, tmp_path / "notice.dcm", outcome)
    assert run_dciodvfy(path) == []
    assert _inconsistencies([*files, path]) == []


def test_no_error_in_a_notice_of_next_to_nothing(tmp_path: Path) -> None:
    header = Dataset()
    header.StudyInstanceUID, header.SeriesInstanceUID = "2.25.1", "2.25.2"
    assert run_dciodvfy(_notice([header], tmp_path / "notice.dcm", "refused")) == []


def _notice(headers: Sequence[Dataset], path: Path, outcome: Outcome) -> Path:
    return write_notice(
        headers, path, outcome=outcome, code="slice-missing", sentence="one is missing", pipeline="abdomen",
        identity="identity",
    ).path  # fmt: skip
