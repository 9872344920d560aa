"""A LABELMAP Segmentation that is not what was computed, or not where, is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from app.errors import VerificationFailed
from app.jobs.readback.labelmap import check_labelmap
from operators.results.binary import write_binary
from operators.results.finding import Finding
from operators.results.labelmap import write_labelmap
from tests.finding_phantom import computed, planted_finding, record_of
from tests.phantom import Phantom, variants
from tests.segmented_phantom import MANY_SEGMENTS, many_labels, no_labels

SQUARE = Phantom(slices=6, rows=12, columns=12, row_spacing=0.5, column_spacing=0.5)
"""So that what is turned still has its shape."""


def _check(finding: Finding, folder: Path, change: Callable[[Dataset], None] = lambda dataset: None) -> None:
    written = write_labelmap(finding, folder / "seg.dcm", transfer_syntax_uid=ExplicitVRLittleEndian)
    dataset = pydicom.dcmread(written.path)
    change(dataset)
    check_labelmap(dataset, computed(finding), record_of(finding, written))


@pytest.mark.parametrize("name", variants(Phantom()))
def test_what_was_written_is_right(name: str, tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct", variants(Phantom())[name])
    written = write_labelmap(finding, tmp_path / "seg.dcm")
    check_labelmap(pydicom.dcmread(written.path), computed(finding), record_of(finding, written))


def test_many_segments_and_none_are_right(tmp_path: Path) -> None:
    _check(planted_finding(tmp_path / "1", paint=many_labels, segments=MANY_SEGMENTS), tmp_path)
    _check(planted_finding(tmp_path / "2", paint=no_labels), tmp_path)


def _pixels(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Dataset], None]:
    def edit(dataset: Dataset) -> None:
        dataset.PixelData = np.ascontiguousarray(change(dataset.pixel_array)).tobytes()

    return edit


def _one_voxel(frames: np.ndarray) -> np.ndarray:
    changed = frames.copy()
    changed[3, 4, 5] ^= 1
    return changed


def _swapped(frames: np.ndarray) -> np.ndarray:
    changed: np.ndarray = np.array([0, 2, 1, 3], np.uint8)[frames]
    return changed


@pytest.mark.parametrize(
    "change",
    [
        lambda frames: frames[::-1],
        lambda frames: frames[:, ::-1],
        lambda frames: frames[:, :, ::-1],
        lambda frames: frames.transpose(0, 2, 1),
        lambda frames: np.roll(frames, 1, axis=2),
        _one_voxel,
        _swapped,
        np.zeros_like,
    ],
)
def test_other_voxels_are_refused(change: Callable[[np.ndarray], np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(VerificationFailed, match="voxels differ"):
        _check(planted_finding(tmp_path / "ct", SQUARE), tmp_path, _pixels(change))


def _elsewhere(dataset: Dataset) -> None:
    dataset.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0].ImagePositionPatient[0] += 0.5


def _turned(dataset: Dataset) -> None:
    shared = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    shared.ImageOrientationPatient = [*shared.ImageOrientationPatient[3:], *shared.ImageOrientationPatient[:3]]


def _other_spacing(dataset: Dataset) -> None:
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0.5, 0.6]


def _twice(dataset: Dataset) -> None:
    groups = dataset.PerFrameFunctionalGroupsSequence
    groups[1].PlanePositionSequence = groups[0].PlanePositionSequence


def _fewer(dataset: Dataset) -> None:
    dataset.NumberOfFrames = 5
    dataset.PixelData = dataset.PixelData[: 5 * 144]
    del dataset.PerFrameFunctionalGroupsSequence[5]


def _other_code(dataset: Dataset) -> None:
    dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue = "78961009"


def _other_weights(dataset: Dataset) -> None:
    algorithm = dataset.SegmentSequence[1].SegmentationAlgorithmIdentificationSequence[0]
    algorithm.AlgorithmParameters = "weights_sha256=" + "f" * 64


def _other_background(dataset: Dataset) -> None:
    dataset.SegmentSequence[-1].SegmentedPropertyTypeCodeSequence[0].CodeValue = "10200004"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_elsewhere, "lies elsewhere"),
        (_turned, "lies elsewhere"),
        (_other_spacing, "lies elsewhere"),
        (_twice, "two frames show one slice"),
        (_fewer, "a slice has no frame"),
        (_other_code, "its segments are not the record's"),
        (_other_weights, "other weights"),
        (_other_background, "number 0 is not background"),
    ],
)
def test_other_places_and_segments_are_refused(change: Callable[[Dataset], None], said: str, tmp_path: Path) -> None:
    with pytest.raises(VerificationFailed, match=said):
        _check(planted_finding(tmp_path / "ct", SQUARE), tmp_path, change)


def test_a_label_that_has_no_segment_is_refused(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct", SQUARE)
    written = write_labelmap(finding, tmp_path / "seg.dcm")
    labels = computed(finding)
    labels = replace(labels, array=np.where(labels.array == 0, 77, labels.array).astype(np.uint8))
    with pytest.raises(VerificationFailed, match="a label without a segment"):
        check_labelmap(pydicom.dcmread(written.path), labels, record_of(finding, written))


def test_another_type_is_refused(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct")
    written = write_binary(finding, tmp_path / "seg.dcm")
    with pytest.raises(VerificationFailed, match="no LABELMAP"):
        check_labelmap(pydicom.dcmread(written.path), computed(finding), record_of(finding, written))
