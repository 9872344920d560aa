"""A model that takes two MR images: from two series of a study to the labels that nnU-Net itself gives."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import MRImageStorage

from archive import DemonstrationArchive
from operators.triton import PROBE_MODEL
from tests.journey.limner_server import REPOSITORY, LimnerServer
from tests.nnunet_fixtures import Case, read_fixture
from tests.phantom import Phantom
from tests.triton_fixture import MODEL_REPOSITORY, TRITON_PYTHON

CHANNELS = ("T1", "T2")
MODEL = "fixture_mr_two_channels"
RULE = """
[[destination]]
name = "archive"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {port}
retry_first_seconds = 1

[[pipeline]]
name = "two"
model = "fixture_mr_two_channels"

[[rule]]
name = "mr"
pipeline = "two"
after = "study"
destinations = ["archive"]
match = {{ Modality = "MR" }}

[rule.channels]
T1 = {{ SeriesDescription = "T1 axial" }}
T2 = {{ SeriesDescription = "T2 axial" }}
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model and the probe, as every command of the test finds them."""
    folder = tmp_path / "repository"
    shutil.copytree(read_fixture("mr_two_channels").repository, folder)
    shutil.copytree(MODEL_REPOSITORY / PROBE_MODEL, folder / PROBE_MODEL)
    monkeypatch.setenv("LIMNER__MODEL_REPOSITORY", str(folder))
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[DemonstrationArchive]:
    with DemonstrationArchive(tmp_path / "archive") as running:
        yield running


def write_mr(folder: Path, image: NDArray[np.int16], spacing: tuple[float, float, float], name: str, seed: int) -> str:
    """Write one channel as a series, its slices numbered from the head down; return its Series Instance UID."""
    slices, rows, columns = image.shape
    phantom = Phantom(
        slices=slices,
        rows=rows,
        columns=columns,
        slice_spacing=spacing[0],
        row_spacing=spacing[1],
        column_spacing=spacing[2],
        against_normal=True,
        series=name,
        series_description=f"{name} axial",
        seed=seed,
    )

    def edit(index: int, dataset: pydicom.Dataset) -> pydicom.Dataset:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
        dataset.Modality = "MR"
        dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "SE", "NONE", ""
        for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType", "KVP"):
            delattr(dataset, keyword)
        dataset.PixelData = np.ascontiguousarray(image[slices - 1 - index]).astype(np.int16).tobytes()
        return dataset

    files = phantom.write(folder, edit=edit)
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID)


def labels_of(path: Path, case: Case) -> NDArray[np.uint8]:
    """The segments of a Segmentation as label values, axes z, y, x by rising z; this model numbers them alike."""
    segmentation = highdicom.seg.segread(path)
    volume = segmentation.get_volume(combine_segments=True)
    shape = case.image.shape[1:]
    place = (
        volume.affine[2, 3]
        if volume.affine[2, 0] > 0
        else volume.affine[2, 3] + volume.affine[2, 0] * (len(volume.array) - 1)
    )
    rising = volume.array if volume.affine[2, 0] > 0 else volume.array[::-1]
    first = round((place - (30.0 - (shape[0] - 1) * case.spacing[0])) / case.spacing[0])
    labels = np.zeros(shape, np.uint8)
    labels[first : first + len(rising)] = rising
    return labels


@pytest.mark.timeout(600)
def test_two_series_become_one_result(repository: Path, archive: DemonstrationArchive, tmp_path: Path) -> None:
    (case,) = read_fixture("mr_two_channels").cases
    uids = {
        name: write_mr(tmp_path / "study" / name, image, case.spacing, name, seed=1)
        for name, image in zip(CHANNELS, case.image, strict=True)
    }
    write_mr(tmp_path / "study" / "localizer", case.image[0, :3], case.spacing, "localizer", seed=1)
    write_mr(tmp_path / "half", case.image[0], case.spacing, "T1", seed=2)
    folder = tmp_path / "server"
    folder.mkdir()
    # longer than a command takes to start on a busy machine
    server = LimnerServer(folder, RULE.format(port=archive.port), quiet_seconds=20)
    with server.running_server():
        assert server.submit(tmp_path / "study" / "T2").returncode == 0  # whatever comes first
        assert server.submit(tmp_path / "study" / "localizer").returncode == 0
        assert server.submit(tmp_path / "study" / "T1").returncode == 0
        assert server.submit(tmp_path / "half").returncode == 0
        jobs = {job["state"]: job for job in server.wait_for_jobs(2)}
        assert set(jobs) == {"closed", "refused"}, [job["reason"] for job in jobs.values()]
        series = {one["series_instance_uid"]: one for one in server.series()}
    assert jobs["refused"]["code"] == "channel-missing"
    assert "T2" in jobs["refused"]["reason"]
    assert jobs["closed"]["series_instance_uid"] == uids["T1"]
    channels = jobs["closed"]["channels"]
    assert {name: len(digests) for name, digests in channels.items()} == dict.fromkeys(CHANNELS, len(case.image[0]))
    assert series[uids["T2"]]["state"] == "routed"
    (result,) = jobs["closed"]["results"]
    segmentation = pydicom.dcmread(result["path"])
    assert {one.SeriesInstanceUID for one in segmentation.ReferencedSeriesSequence} == {uids["T1"]}
    found = labels_of(Path(result["path"]), case)
    assert (found != case.labels).mean() <= 1e-4
    assert len(np.unique(found)) == 4
    server.verify_audit()

    completed = subprocess.run(
        [sys.executable, "-m", "app", "-o", str(tmp_path / "out"), "-m", str(repository), "--model", MODEL,
         *(f"--channel={name}={tmp_path / 'study' / name}" for name in CHANNELS)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=240,
        env={**os.environ, "LIMNER__TRITON__PYTHON": str(TRITON_PYTHON)},
    )  # fmt: skip
    assert completed.returncode == 0, completed.stderr
    (alone,) = (tmp_path / "out").glob("*.dcm")
    np.testing.assert_array_equal(labels_of(alone, case), found)
