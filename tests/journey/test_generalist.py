"""A generalist beside the specialist, through the server: real CT, nnU-Net and LiteMedSAM on the embedded Triton.

Three studies take three rules: one sends both objects on a disagreement, one holds the job, one has a generalist that
breaks after the start. LiteMedSAM's limits are so narrow that it can't but disagree.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import UID

from app.identifiers import derive_uid
from archive import DemonstrationArchive
from lite_medsam import CACHE, MODEL, fetch, put
from operators.sam.package import GeneralistPackage
from tests.journey.limner_server import REPOSITORY, LimnerServer
from tests.sam_fixture import put_generalist
from tests.triton_fixture import MODEL_REPOSITORY

SPECIALIST = "nnunet_liver_spleen_demo"
SLICES = slice(6, 16)
_PIPELINE = """
[[pipeline]]
name = "{name}"
model = "{specialist}"

[pipeline.generalist]
model = "{generalist}"
least_dice = 1.0

[[rule]]
name = "{name}"
pipeline = "{name}"
destinations = ["archive"]
on_disagreement = "{on_disagreement}"
match = {{ SeriesDescription = "{name}" }}
"""


def _settings(archive_port: int) -> str:
    parts = [
        _PIPELINE.format(name=name, specialist=SPECIALIST, generalist=generalist, on_disagreement=on_disagreement)
        for name, generalist, on_disagreement in (
            ("both", MODEL, "both"),
            ("held", MODEL, "hold"),
            ("broken", "breaks", "both"),
        )
    ]
    destination = (
        f'[[destination]]\nname = "archive"\nae_title = "ARCHIVE"\nhost = "127.0.0.1"\nport = {archive_port}\n'
    )
    return "\n".join([*parts, destination])


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    for name in (SPECIALIST, "limner_probe"):
        shutil.copytree(MODEL_REPOSITORY / name, folder / name)
    put(fetch(CACHE), folder)
    put_generalist(folder, "breaks")
    return folder


def _study(files: list[Path], folder: Path, name: str) -> Path:
    """Some slices of the CT as a series of its own, told by its description."""
    folder.mkdir(parents=True)
    ordered = sorted(files, key=lambda path: float(pydicom.dcmread(path, specific_tags=["ImagePositionPatient"])[
        "ImagePositionPatient"].value[2]))  # fmt: skip
    for path in ordered[SLICES]:
        dataset = pydicom.dcmread(path)
        dataset.SeriesDescription = name
        dataset.StudyInstanceUID = derive_uid("study", name)
        dataset.SeriesInstanceUID = derive_uid("series", name)
        dataset.SOPInstanceUID = derive_uid("instance", name, path.name)
        dataset.file_meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
        dataset.save_as(folder / path.name, enforce_file_format=True)
    return folder


@dataclass(frozen=True)
class _Journey:
    server: LimnerServer
    archive: DemonstrationArchive

    def arrived(self, name: str) -> list[pydicom.Dataset]:
        """What the archive holds of a study."""
        found = [pydicom.dcmread(path) for path in sorted(self.archive.folder.glob("*.dcm"))]
        return [one for one in found if one.StudyInstanceUID == derive_uid("study", name)]

    def job(self, name: str) -> dict[str, Any]:
        (job,) = [one for one in self.server.jobs() if one["pipeline"] == name]
        return job

    def shown(self, job: dict[str, Any]) -> dict[str, Any]:
        result = self.server.limner("jobs", "show", job["id"], "--json")
        assert result.returncode == 0, result.stderr
        shown: dict[str, Any] = json.loads(result.stdout)
        return shown


@contextmanager
def _journey(folder: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Journey]:
    monkeypatch.setenv("LIMNER__MODEL_REPOSITORY", str(repository))
    archive = DemonstrationArchive(folder / "archive")
    archive.start()
    try:
        server = LimnerServer(folder, _settings(archive.port))
        with server.running_server():
            yield _Journey(server, archive)
    finally:
        archive.stop()


@pytest.mark.timeout(1500)
def test_both_are_sent_a_held_job_waits_and_a_broken_generalist_leaves_the_specialist(
    tmp_path: Path, repository: Path, abdominal_ct: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with _journey(tmp_path, repository, monkeypatch) as journey:
        server = journey.server
        (repository / "breaks" / "manifest.json").write_text("no manifest any more")
        for name in ("broken", "held", "both"):
            assert server.submit(_study(abdominal_ct, tmp_path / "studies" / name, name)).returncode == 0
        expected = {"broken": "closed", "held": "held", "both": "closed"}
        server.wait_for(
            lambda: {one.pipeline: one.state for one in server.recorded_jobs()} == expected,
            seconds=1200,
            expected=str(expected),
        )
        _check_both(journey)
        _check_broken(journey)
        _check_held_then_released(journey)
        server.verify_audit()
    events = [one["event"] for one in server.audit_events()]
    assert [events.count(one) for one in ("RESULTS_FLAGGED", "JOB_HELD", "JOB_RELEASED")] == [3, 1, 1]


def _check_both(journey: _Journey) -> None:
    """Two Segmentations have arrived; the generalist's says who made it, and of what."""
    specialist, generalist = sorted(journey.arrived("both"), key=lambda one: len(one.get("SourceImageSequence", ())))
    assert specialist.SeriesInstanceUID != generalist.SeriesInstanceUID
    assert generalist.SeriesDescription.startswith("AI")
    assert generalist.SeriesDescription.endswith("(LiteMedSAM)")
    for one, name in ((specialist, SPECIALIST), (generalist, MODEL)):
        (algorithm,) = one.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName == "LiteMedSAM") == (name == MODEL)
        assert {item.SegmentAlgorithmType for item in one.SegmentSequence} == {"AUTOMATIC"}
    assert f"prompted_by={specialist.SOPInstanceUID}" in algorithm.AlgorithmParameters
    assert [item.SegmentLabel for item in generalist.SegmentSequence] == ["Liver", "Spleen"]
    assert generalist.SegmentSequence[0].TrackingUID != specialist.SegmentSequence[0].TrackingUID
    assert generalist.SourceImageSequence[-1].ReferencedSOPInstanceUID == specialist.SOPInstanceUID
    shown = journey.shown(journey.job("both"))
    assert shown["flag"] == "disagreement"
    assert {one["role"] for one in shown["segments"]} == {"specialist", "generalist"}
    for one in shown["agreement"]:
        assert 0.8 < one["dice"] < 1
        assert 0 < one["distance_mm"] < 20
        assert one["beyond"] == ["dice"]
    text = journey.server.limner("jobs", "show", shown["id"][:8])
    assert text.returncode == 0, text.stderr
    for told in (
        "generalist lite_medsam",
        "flagged: disagreement",
        "Spleen",
        "beyond the limits",
        "generalist's segmentation",
    ):
        assert told in text.stdout, told


def _check_broken(journey: _Journey) -> None:
    """The specialist's result is there, and why it is alone."""
    (one,) = journey.arrived("broken")
    assert len(one.ReferencedSeriesSequence) == 1
    shown = journey.shown(journey.job("broken"))
    assert (shown["flag"], shown["agreement"]) == ("generalist-failed", [])
    assert shown["flag_reason"].startswith("file-unreadable")


def _check_held_then_released(journey: _Journey) -> None:
    """Nothing was sent; then a person lets it go."""
    assert journey.arrived("held") == []
    job = journey.job("held")
    assert [one["state"] for one in job["deliveries"]] == ["held"]
    released = journey.server.limner("jobs", "release", job["id"])
    assert released.returncode == 0, released.stderr
    journey.server.wait_for(lambda: journey.job("held")["state"] == "closed", expected="the released job is closed")
    assert len(journey.arrived("held")) == 1
    again = journey.server.limner("jobs", "discard", job["id"])
    assert (again.returncode, "job-not-held" in again.stderr) == (2, True)


@pytest.mark.timeout(900)
def test_the_app_on_a_folder_compares_both(tmp_path: Path, repository: Path, abdominal_ct: list[Path]) -> None:
    study = _study(abdominal_ct, tmp_path / "in", "folder")
    command = [sys.executable, "-m", "app", "-i", str(study), "-o", str(tmp_path / "out"), "-m", str(repository)]
    result = subprocess.run(
        [*command, "--generalist", MODEL], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=600
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Liver: Dice 0." in result.stdout
    assert str(tmp_path / "out" / "generalist-segmentation.dcm") in result.stdout
    assert GeneralistPackage.load(repository / MODEL).algorithm_name == "LiteMedSAM"


@pytest.mark.timeout(900)
def test_the_app_on_a_folder_keeps_the_specialists_result_where_the_generalist_fails(
    tmp_path: Path, repository: Path, abdominal_ct: list[Path]
) -> None:
    study = _study(abdominal_ct, tmp_path / "in", "folder")
    command = [sys.executable, "-m", "app", "-i", str(study), "-o", str(tmp_path / "out"), "-m", str(repository)]
    result = subprocess.run(
        [*command, "--generalist", "none"], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=600
    )
    assert result.returncode == 1
    assert "generalist-failed: file-missing" in result.stderr
    assert str(tmp_path / "out" / "segmentation.dcm") in result.stdout
