"""Objects of all kinds on multi-frame images: dicom3tools finds no error in them, and DCMTK reads the reports."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import EnhancedMRImageStorage, EnhancedPETImageStorage

from app.jobs.verification import verify_results
from operators.gate.gate import Gate
from operators.series_volume import read_series
from tests.completed_run import completed_results
from tests.judges import dsrdump, run_dcentvfy, run_dciodvfy
from tests.multi_frame import write_concatenation, write_enhanced, write_legacy_converted, write_two_echoes
from tests.peers import require
from tests.phantom import OBLIQUE, Phantom
from tests.segmented_phantom import asymmetric_labels, no_labels

PHANTOM = Phantom(
    slices=7,
    rows=12,
    columns=20,
    row_spacing=1.25,
    column_spacing=0.5,
    slice_spacing=3.0,
    orientation=OBLIQUE,
    against_normal=True,
)
RESCALED = replace(PHANTOM, slopes=(1.0, 2.0))
KINDS: dict[str, Callable[[Path], list[Path]]] = {
    "enhanced-ct": lambda folder: write_enhanced(PHANTOM, folder, shuffled=True),
    "enhanced-ct-rescaled": lambda folder: write_enhanced(RESCALED, folder, shuffled=True),
    "enhanced-mr": lambda folder: write_enhanced(PHANTOM, folder, sop_class=EnhancedMRImageStorage, shared=False),
    "enhanced-pet": lambda folder: write_enhanced(PHANTOM, folder, sop_class=EnhancedPETImageStorage),
    "concatenation": lambda folder: write_concatenation(PHANTOM, folder),
    "legacy-ct": lambda folder: write_legacy_converted(PHANTOM, folder, "CT"),
    "legacy-mr": lambda folder: write_legacy_converted(PHANTOM, folder, "MR"),
    "legacy-pet": lambda folder: write_legacy_converted(PHANTOM, folder, "PT"),
    "one-of-two-echoes": lambda folder: write_two_echoes(PHANTOM, folder),
}
_NO_SEGMENTATION = "Shall not be present for Referenced SOP Class that is not segmentation"
"""What dciodvfy says of a reference to a LABELMAP Segmentation, whose SOP class it does not know."""


@pytest.fixture(autouse=True)
def _judges() -> None:
    require("dciodvfy", "dcentvfy", "dsrdump")


def _errors(path: Path) -> list[str]:
    return [line for line in run_dciodvfy(path) if path.stem != "report-on-labelmap" or _NO_SEGMENTATION not in line]


def _inconsistencies(paths: Sequence[Path], study_instance_uid: str) -> list[str]:
    """What dcentvfy finds, but for what it says of every report and of every structure set."""
    known = (
        r"Warning - Different information entities for attribute - Element=<AccessionNumber> ",
        rf"Error - Missing SOPInstanceUID that was referenced - {re.escape(study_instance_uid)} ",
    )
    return [line for line in run_dcentvfy(paths).splitlines() if line and not any(re.match(one, line) for one in known)]


@pytest.mark.parametrize("paint", [asymmetric_labels, no_labels])
@pytest.mark.parametrize("kind", KINDS)
def test_no_error_in_any_object(kind: str, paint: Callable[..., object], tmp_path: Path) -> None:
    files = KINDS[kind](tmp_path / "source")
    gate = Gate(take={"EffectiveEchoTime": 80}) if kind == "one-of-two-echoes" else Gate()
    series = read_series(files, gate=gate)
    folder = tmp_path / "results"
    folder.mkdir()
    record = completed_results(series, folder, paint=paint)  # type: ignore[arg-type]
    verify_results(record, folder, files)
    written = sorted(folder.glob("*.dcm"))
    assert {path.name: _errors(path) for path in written} == {path.name: [] for path in written}
    study = str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    before_conversion = PHANTOM.write(tmp_path / "classic") if kind.startswith("legacy") else []
    assert _inconsistencies([*before_conversion, *files, *written], study) == []
    for name in ("report", "report-alone"):  # DCMTK does not know what the third refers to
        assert "Imaging Measurement Report" in dsrdump(folder / f"{name}.dcm")
