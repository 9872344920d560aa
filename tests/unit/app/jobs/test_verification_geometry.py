"""Flips, transpositions and shifts of a result are caught by reading it back, wherever they were made.

The series is a cube of voxels as long as they are wide: no matrix, spacing or count tells, only where each voxel lies.
Each fault is planted into the written Segmentation alone, as by a writer, and into the label map alone, as by whatever
came between network and label map. A fault that both have alike is none of theirs: that the network sees the series as
it lies is proved by the tests of reading and of the whole way, which hold results against the anatomy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from app.errors import VerificationFailed
from app.graph import CompletionRecord
from app.jobs.verification import verify_results
from operators.series_volume import SeriesVolume, read_series
from tests.completed_run import completed_run
from tests.phantom import OBLIQUE, Phantom
from tests.segmented_phantom import ALGORITHM, SEGMENTS, asymmetric_labels
from tests.written_segmentation import write_segmentation

SIDE = 12
CUBE = Phantom(slices=SIDE, rows=SIDE, columns=SIDE, row_spacing=2.5, column_spacing=2.5, orientation=OBLIQUE)
ELSEWHERE = replace(CUBE, origin=(-17.5, -15.0, 30.0), series="elsewhere")
"""Another series of the same study, patient and frame of reference, a pixel beside."""

Voxels = NDArray[np.uint8]
Affine = NDArray[np.float64]

VOXEL_FAULTS: dict[str, Callable[[Voxels], Voxels]] = {
    "slices flipped": lambda labels: labels[::-1],
    "rows flipped": lambda labels: labels[:, ::-1],
    "columns flipped": lambda labels: labels[:, :, ::-1],
    "rows and columns flipped": lambda labels: labels[:, ::-1, ::-1],
    "all flipped": lambda labels: labels[::-1, ::-1, ::-1],
    "rows and columns transposed": lambda labels: labels.transpose(0, 2, 1),
    "slices and rows transposed": lambda labels: labels.transpose(1, 0, 2),
    "slices and columns transposed": lambda labels: labels.transpose(2, 1, 0),
    "axes rotated": lambda labels: labels.transpose(1, 2, 0),
    "turned by a right angle": lambda labels: np.rot90(labels, axes=(1, 2)),
    "a slice further": lambda labels: np.roll(labels, 1, axis=0),
    "a row further": lambda labels: np.roll(labels, 1, axis=1),
    "a column further": lambda labels: np.roll(labels, -1, axis=2),
}


def _moved(affine: Affine, axis: int, by: float) -> Affine:
    moved = affine.copy()
    moved[:3, 3] += by * affine[:3, axis]
    return moved


def _turned(affine: Affine, axis: int) -> Affine:
    """The affine of the same voxels counted the other way along an axis, over voxels that are not turned."""
    turned = _moved(affine, axis, SIDE - 1)
    turned[:3, axis] = -affine[:3, axis]
    return turned


PLACE_FAULTS: dict[str, Callable[[Affine], Affine]] = {
    "slices counted the other way": lambda affine: _turned(affine, 0),
    "rows counted the other way": lambda affine: _turned(affine, 1),
    "columns counted the other way": lambda affine: _turned(affine, 2),
    "a slice further": lambda affine: _moved(affine, 0, 1),
    "half a slice further": lambda affine: _moved(affine, 0, 0.5),
    "a row further": lambda affine: _moved(affine, 1, 1),
    "a tenth of a pixel further": lambda affine: _moved(affine, 2, 0.1),
    "rows and columns exchanged": lambda affine: affine[:, [0, 2, 1, 3]],
    "slices and rows exchanged": lambda affine: affine[:, [1, 0, 2, 3]],
    "RAS instead of LPS": lambda affine: np.diag([-1.0, -1, 1, 1]) @ affine,
    "spacing doubled": lambda affine: affine @ np.diag([1.0, 2, 2, 1]),
    "the slice spacing doubled": lambda affine: affine @ np.diag([2.0, 1, 1, 1]),
}


@dataclass(frozen=True)
class _Run:
    """One run of a graph: its series, and the folder with what it wrote."""

    files: list[Path]
    series: SeriesVolume
    folder: Path

    def results(self, *, written: highdicom.Volume | None = None, computed: highdicom.Volume | None = None) -> _Results:
        """The results whose Segmentation shows `written` and whose label map is `computed`: by default the truth."""
        truth = self.series.volume.with_array(asymmetric_labels(self.series.volume.spatial_shape))
        shown, labels = written or truth, computed or truth
        one = write_segmentation(
            shown,
            self.series,
            SEGMENTS,
            ALGORITHM,
            identity="identity",
            series_description="organs",
            path=self.folder / "segmentation.dcm",
        )
        return _Results(completed_run(one, labels, self.folder), self.folder, self.files)

    def with_voxels(self, fault: Callable[[Voxels], Voxels]) -> highdicom.Volume:
        """The labels with a fault of their voxels, where the series lies."""
        return self.series.volume.with_array(
            np.ascontiguousarray(fault(asymmetric_labels(self.series.volume.spatial_shape)))
        )

    def at_place(self, fault: Callable[[Affine], Affine]) -> highdicom.Volume:
        """The labels with a fault of where they lie."""
        volume = self.series.volume
        return highdicom.Volume(
            asymmetric_labels(volume.spatial_shape),
            fault(np.array(volume.affine, np.float64)),
            coordinate_system="PATIENT",
            frame_of_reference_uid=volume.frame_of_reference_uid,
        )


@dataclass(frozen=True)
class _Results:
    record: CompletionRecord
    folder: Path
    files: list[Path]

    def verify(self) -> None:
        verify_results(self.record, self.folder, self.files)

    def rewritten(self, change: Callable[[Dataset], None]) -> _Results:
        """With another Segmentation, whose digest is recorded as if it had been written so."""
        path = self.folder / "segmentation.dcm"
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(path, enforce_file_format=True)
        (finding,) = self.record.findings
        one = replace(finding.objects[0], digest=hashlib.sha256(path.read_bytes()).hexdigest())
        return replace(self, record=replace(self.record, findings=(replace(finding, objects=(one,)),)))


@pytest.fixture
def run(tmp_path: Path) -> _Run:
    files = CUBE.write(tmp_path / "ct")
    return _Run(files, read_series(files), tmp_path)


def test_without_a_fault_it_verifies(run: _Run) -> None:
    assert run.series.volume.spatial_shape == (SIDE, SIDE, SIDE)
    assert len({round(spacing, 4) for spacing in run.series.volume.spacing}) == 1
    run.results().verify()


def test_every_fault_changes_something() -> None:
    labels = asymmetric_labels((SIDE, SIDE, SIDE))
    for name, fault in VOXEL_FAULTS.items():
        assert not np.array_equal(fault(labels), labels), name
        assert np.array_equal(np.bincount(fault(labels).ravel()), np.bincount(labels.ravel())), name


@pytest.mark.parametrize("fault", VOXEL_FAULTS)
def test_a_segmentation_with_its_voxels_elsewhere(fault: str, run: _Run) -> None:
    with pytest.raises(VerificationFailed):
        run.results(written=run.with_voxels(VOXEL_FAULTS[fault])).verify()


@pytest.mark.parametrize("fault", VOXEL_FAULTS)
def test_a_label_map_with_its_voxels_elsewhere(fault: str, run: _Run) -> None:
    with pytest.raises(VerificationFailed):
        run.results(computed=run.with_voxels(VOXEL_FAULTS[fault])).verify()


@pytest.mark.parametrize("fault", PLACE_FAULTS)
def test_a_label_map_that_lies_elsewhere(fault: str, run: _Run) -> None:
    with pytest.raises(VerificationFailed):
        run.results(computed=run.at_place(PLACE_FAULTS[fault])).verify()


@pytest.mark.parametrize("fault", PLACE_FAULTS)
def test_a_segmentation_that_lies_elsewhere(fault: str, run: _Run) -> None:
    """Each frame's place is that of its slice under a false affine."""
    truth = np.array(run.series.volume.affine, np.float64)
    false = PLACE_FAULTS[fault](truth)

    def change(dataset: Dataset) -> None:
        _place(dataset, truth, false)

    with pytest.raises(VerificationFailed):
        run.results().rewritten(change).verify()


def _place(dataset: Dataset, truth: Affine, false: Affine) -> None:
    """Say of every frame that it lies where `false` has its slice instead of `truth`."""
    slices, rows, columns = (float(np.linalg.norm(false[:3, axis])) for axis in range(3))
    (shared,) = dataset.SharedFunctionalGroupsSequence
    cosines = [*false[:3, 2] / columns, *false[:3, 1] / rows]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [f"{one:.10f}" for one in cosines]
    shared.PixelMeasuresSequence[0].PixelSpacing = [f"{rows:.10g}", f"{columns:.10g}"]
    shared.PixelMeasuresSequence[0].SpacingBetweenSlices = f"{slices:.10g}"
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        (plane,) = groups.PlanePositionSequence
        position = np.array([*map(float, plane.ImagePositionPatient), 1.0])
        index = np.rint(np.linalg.inv(truth) @ position)
        plane.ImagePositionPatient = [f"{one:.10g}" for one in (false @ index)[:3]]


def test_placing_by_the_true_affine_is_no_fault(run: _Run) -> None:
    truth = np.array(run.series.volume.affine, np.float64)
    run.results().rewritten(lambda dataset: _place(dataset, truth, truth)).verify()


def test_frames_in_reverse_order(run: _Run) -> None:
    def change(dataset: Dataset) -> None:
        dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[::-1]

    with pytest.raises(VerificationFailed):
        run.results().rewritten(change).verify()


def test_frames_and_what_belongs_to_them_in_reverse_order_is_no_fault(run: _Run) -> None:
    """In which order a file has its frames means nothing: each says its own place."""

    def change(dataset: Dataset) -> None:
        dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[::-1]
        frames = dataset.pixel_array[::-1]
        packed = np.packbits(frames.reshape(-1), bitorder="little").tobytes()
        dataset.PixelData = packed + b"\0" * (len(packed) % 2)

    run.results().rewritten(change).verify()


def test_a_label_map_of_another_series_of_the_study(run: _Run, tmp_path: Path) -> None:
    other = read_series(ELSEWHERE.write(tmp_path / "other")).volume
    with pytest.raises(VerificationFailed):
        run.results(computed=other.with_array(asymmetric_labels(other.spatial_shape))).verify()


def test_whole_results_of_another_series_of_the_study(run: _Run, tmp_path: Path) -> None:
    """Object and label map agree with each other, and with the wrong series."""
    files = ELSEWHERE.write(tmp_path / "other")
    with pytest.raises(VerificationFailed):
        replace(run.results(), files=files).verify()
