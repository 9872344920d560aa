"""Results of all kinds on multi-frame images: each says which frame it is about, and another frame is found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage

from app.errors import VerificationFailed
from app.graph import CompletionRecord
from app.jobs.verification import verify_results
from operators.gate.gate import Gate
from operators.object_kinds import Kind
from operators.series_volume import SeriesVolume, read_series
from tests.completed_run import ALL_KINDS, completed_results
from tests.gate_fixture import localizer, write_beside
from tests.multi_frame import write_concatenation, write_enhanced, write_legacy_converted, write_two_echoes
from tests.phantom import OBLIQUE, Phantom, setting
from tests.segmented_phantom import no_labels

Write = Callable[[Path], list[Path]]
PHANTOM = Phantom(slices=7, rows=12, columns=20, orientation=OBLIQUE, against_normal=True)
RESCALED = replace(PHANTOM, slopes=(1.0, 2.0))
SECOND = Gate(take={"EffectiveEchoTime": 80})
SINGLE = replace(PHANTOM, slices=1)
ALONE = Gate(takes_single_slice=True)
SOURCES: dict[str, tuple[Write, Gate]] = {
    "a slice alone": (SINGLE.write, ALONE),
    "a slice alone of unknown thickness": (
        lambda folder: SINGLE.write(folder, edit=setting(SliceThickness=None)),
        ALONE,
    ),
    "a frame alone": (lambda folder: write_enhanced(SINGLE, folder), ALONE),
    "enhanced": (lambda folder: write_enhanced(PHANTOM, folder, shuffled=True), Gate()),
    "frame by frame": (lambda folder: write_enhanced(PHANTOM, folder, shared=False), Gate()),
    "rescaled otherwise frame by frame": (lambda folder: write_enhanced(RESCALED, folder, shuffled=True), Gate()),
    "mr": (lambda folder: write_enhanced(PHANTOM, folder, sop_class=EnhancedMRImageStorage), Gate()),
    "concatenation": (lambda folder: write_concatenation(PHANTOM, folder), Gate()),
    "legacy converted": (lambda folder: write_legacy_converted(PHANTOM, folder), Gate()),
    "one of two echoes": (lambda folder: write_two_echoes(PHANTOM, folder), SECOND),
    "rescaled echoes": (lambda folder: write_two_echoes(RESCALED, folder), SECOND),
    "single-frame images": (PHANTOM.write, Gate()),
    "with a localizer": (
        lambda folder: [*PHANTOM.write(folder), *write_beside(folder, [localizer(PHANTOM)])],
        Gate(),
    ),
}


@dataclass(frozen=True)
class _Run:
    record: CompletionRecord
    folder: Path
    files: list[Path]
    series: SeriesVolume

    def verify(self) -> None:
        verify_results(CompletionRecord.from_json(self.record.to_json()), self.folder, self.files)

    def read(self, kind: Kind, number: int = 0) -> Dataset:
        return pydicom.dcmread(self._paths(kind)[number])

    def changed(self, kind: Kind, change: Callable[[Dataset], None]) -> _Run:
        """The run with another first object of a kind, as if the graph itself had written it so."""
        path = self._paths(kind)[0]
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(path, enforce_file_format=True)
        (finding,) = self.record.findings
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        objects = tuple(replace(one, digest=digest) if one.file == path.name else one for one in finding.objects)
        return replace(self, record=replace(self.record, findings=(replace(finding, objects=objects),)))

    def _paths(self, kind: Kind) -> list[Path]:
        (finding,) = self.record.findings
        return [self.folder / Path(one.file).name for one in finding.objects if one.kind == kind]


def _run(folder: Path, name: str, *, is_empty: bool = False) -> _Run:
    write, gate = SOURCES[name]
    files = write(folder / "source")
    series = read_series(files, gate=gate)
    (folder / "results").mkdir()
    record = completed_results(series, folder / "results", paint=no_labels if is_empty else None)
    return _Run(record, folder / "results", files, series)


@pytest.mark.parametrize("is_empty", [False, True])
@pytest.mark.parametrize("name", SOURCES)
def test_all_kinds_verify(name: str, is_empty: bool, tmp_path: Path) -> None:
    run = _run(tmp_path, name, is_empty=is_empty)
    assert {one.kind for one in run.record.findings[0].objects} == set(ALL_KINDS)
    run.verify()


def _places(run: _Run) -> dict[tuple[str, int], np.ndarray]:
    """Where the frames lie, by their files: a point of each."""
    found = {}
    for path in run.files:
        source = pydicom.dcmread(path)
        for number, groups in enumerate(source.PerFrameFunctionalGroupsSequence, start=1):
            position = groups.PlanePositionSequence[0].ImagePositionPatient
            found[str(source.SOPInstanceUID), number] = np.array(position, np.float64)
    return found


@pytest.mark.parametrize("name", ["enhanced", "concatenation", "one of two echoes"])
def test_contours_lie_on_the_frames_that_they_name(name: str, tmp_path: Path) -> None:
    run = _run(tmp_path, name)
    places, normal = _places(run), np.cross(PHANTOM.orientation[:3], PHANTOM.orientation[3:])
    contours = [
        one for drawn in run.read("structure-set").ROIContourSequence for one in drawn.get("ContourSequence", ())
    ]
    assert len(contours) > 5
    for contour in contours:
        (image,) = contour.ContourImageSequence
        place = places[str(image.ReferencedSOPInstanceUID), int(image.ReferencedFrameNumber)]
        points = np.array(contour.ContourData, np.float64).reshape(-1, 3)
        assert np.abs((points - place) @ normal).max() < 0.01


def test_only_the_frames_of_the_echo_are_named(tmp_path: Path) -> None:
    run = _run(tmp_path, "one of two echoes")
    (uid,) = {str(header.SOPInstanceUID) for header in run.series.datasets}
    assert run.record.dropped == {uid: (1, 3, 5, 7, 9, 11, 13)}
    seconds = [2, 4, 6, 8, 10, 12, 14]
    structures, state = run.read("structure-set"), run.read("presentation-state")
    (frame,) = structures.ReferencedFrameOfReferenceSequence
    (series,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    wholes = [
        *series.ContourImageSequence,
        *state.ReferencedSeriesSequence[0].ReferencedImageSequence,
        *run.read("segmentation").SourceImageSequence,
        *run.read("labelmap").SourceImageSequence,
    ]
    assert [list(one.ReferencedFrameNumber) for one in wholes] == [seconds] * 4
    assert {str(one.ReferencedSOPInstanceUID) for one in wholes} == {uid}
    (shown,) = run.read("capture").SourceImageSequence
    assert shown.ReferencedFrameNumber in seconds
    # what has no place for frames names the instance, once
    for items in (structures.SourceInstanceSequence, structures.ReferencedSeriesSequence[0].ReferencedInstanceSequence):
        assert [(str(one.ReferencedSOPInstanceUID), "ReferencedFrameNumber" in one) for one in items] == [(uid, False)]


def test_a_whole_image_is_named_without_frames_and_by_its_own_class(tmp_path: Path) -> None:
    run = _run(tmp_path, "mr")
    (series,) = run.read("presentation-state").ReferencedSeriesSequence
    (image,) = series.ReferencedImageSequence
    assert (image.ReferencedSOPClassUID, "ReferencedFrameNumber" in image) == (EnhancedMRImageStorage, False)


def _other_frame(item: Dataset) -> None:
    item.ReferencedFrameNumber = int(item.ReferencedFrameNumber) % 7 + 1


def _no_frame(item: Dataset) -> None:
    del item.ReferencedFrameNumber


def _single_frame_class(item: Dataset) -> None:
    item.ReferencedSOPClassUID = CTImageStorage


def _contour_image(dataset: Dataset) -> Dataset:
    image: Dataset = dataset.ROIContourSequence[0].ContourSequence[0].ContourImageSequence[0]
    return image


def _annotated_image(dataset: Dataset) -> Dataset:
    image: Dataset = dataset.GraphicAnnotationSequence[0].ReferencedImageSequence[0]
    return image


def _captured_image(dataset: Dataset) -> Dataset:
    image: Dataset = dataset.SourceImageSequence[0]
    return image


@pytest.mark.parametrize("change", [_other_frame, _no_frame, _single_frame_class])
@pytest.mark.parametrize(
    ("kind", "item"),
    [("structure-set", _contour_image), ("presentation-state", _annotated_image), ("capture", _captured_image)],
)
def test_another_frame_is_found(
    kind: Kind, item: Callable[[Dataset], Dataset], change: Callable[[Dataset], None], tmp_path: Path
) -> None:
    run = _run(tmp_path, "enhanced").changed(kind, lambda dataset: change(item(dataset)))
    with pytest.raises(VerificationFailed):
        run.verify()


def test_a_window_for_another_frame_is_found(tmp_path: Path) -> None:
    def change(dataset: Dataset) -> None:
        one, other = (window.ReferencedImageSequence[0] for window in dataset.SoftcopyVOILUTSequence)
        one.ReferencedFrameNumber = [other.ReferencedFrameNumber[0], *one.ReferencedFrameNumber[1:]]

    run = _run(tmp_path, "rescaled otherwise frame by frame").changed("presentation-state", change)
    with pytest.raises(VerificationFailed, match="one window"):
        run.verify()


def _evidence(dataset: Dataset) -> None:
    (study,) = dataset.CurrentRequestedProcedureEvidenceSequence
    source = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    source.append(source[0])


def _structure_images(dataset: Dataset) -> Dataset:
    study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    series: Dataset = study.RTReferencedSeriesSequence[0]
    return series


def _twice(dataset: Dataset) -> None:
    images = _structure_images(dataset).ContourImageSequence
    images.append(images[0])


@pytest.mark.parametrize(("kind", "change"), [("report", _evidence), ("structure-set", _twice)])
def test_an_instance_that_is_named_twice_is_found(
    kind: Kind, change: Callable[[Dataset], None], tmp_path: Path
) -> None:
    run = _run(tmp_path, "enhanced").changed(kind, change)
    with pytest.raises(VerificationFailed):
        run.verify()


@pytest.mark.parametrize("kind", ["structure-set", "presentation-state", "segmentation", "labelmap"])
def test_a_reference_to_frames_that_were_left_out_is_found(kind: Kind, tmp_path: Path) -> None:
    def change(dataset: Dataset) -> None:
        items = {
            "structure-set": lambda: _structure_images(dataset).ContourImageSequence,
            "presentation-state": lambda: dataset.ReferencedSeriesSequence[0].ReferencedImageSequence,
        }.get(kind, lambda: dataset.SourceImageSequence)()
        del items[0].ReferencedFrameNumber

    run = _run(tmp_path, "one of two echoes").changed(kind, change)
    with pytest.raises(VerificationFailed, match="no slice of the source"):
        run.verify()


@pytest.mark.parametrize(
    ("dropped", "told"),
    [
        (lambda frames: (), "left every instance out"),
        (lambda frames: frames[1:], "another number of slices"),
        (lambda frames: tuple(number + 1 for number in frames), "names another source slice|no slice of the source"),
    ],
)
def test_frames_left_out_otherwise_than_the_record_says_are_found(
    dropped: Callable[[tuple[int, ...]], tuple[int, ...]], told: str, tmp_path: Path
) -> None:
    run = _run(tmp_path, "one of two echoes")
    changed = {uid: dropped(frames) for uid, frames in run.record.dropped.items()}
    with pytest.raises(VerificationFailed, match=told):
        replace(run, record=replace(run.record, dropped=changed)).verify()


def test_frames_left_out_without_a_word_are_found(tmp_path: Path) -> None:
    run = _run(tmp_path, "one of two echoes")
    with pytest.raises(VerificationFailed, match="no note says why"):
        replace(run, record=replace(run.record, notes=())).verify()
