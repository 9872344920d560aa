"""A structure set that does not say what was computed, or where, is caught."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from app.errors import VerificationFailed
from app.jobs.readback.structure_set import check_structure_set
from operators.results.structure_set import write_structure_set
from tests.pictured_phantom import AS_MR, ORIENTED, Pictured, intricate_labels, pictured
from tests.segmented_phantom import no_labels

Points = NDArray[np.float64]


@dataclass(frozen=True)
class _Written:
    one: Pictured
    dataset: Dataset

    def check(self) -> None:
        check_structure_set(self.dataset, self.one.computed, self.one.record, self.one.slices)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> _Written:
    folder = tmp_path_factory.mktemp("structure-set")
    one = pictured(folder / "ct", ORIENTED["oblique"])
    return _Written(one, pydicom.dcmread(write_structure_set(one.finding, folder / "rt.dcm").path))


@pytest.fixture
def written(stored: _Written) -> _Written:
    return copy.deepcopy(stored)


@pytest.mark.parametrize("name", ORIENTED)
def test_what_was_written_is_what_was_computed(name: str, tmp_path: Path) -> None:
    for paint in (intricate_labels, no_labels):
        one = pictured(tmp_path / "ct", ORIENTED[name], paint=paint)
        dataset = pydicom.dcmread(write_structure_set(one.finding, tmp_path / "rt.dcm").path)
        _Written(one, dataset).check()
        dataset.ROIContourSequence[0].walk(lambda *_: None)  # values that were read before are taken as well
        _Written(one, dataset).check()


def test_of_mr_too(tmp_path: Path) -> None:
    one = pictured(tmp_path / "mr", edit=AS_MR)
    _Written(one, pydicom.dcmread(write_structure_set(one.finding, tmp_path / "rt.dcm").path)).check()


def _moved(written: _Written, change: Callable[[Points], Points]) -> None:
    """Change all contours in voxels: slice, row and column from the middle of the first."""
    affine = written.one.computed.affine
    for drawn in written.dataset.ROIContourSequence:
        for contour in drawn.get("ContourSequence", ()):
            points = np.array(contour.ContourData, np.float64).reshape(-1, 3)
            indices = change(written.one.computed.indices(points))
            places = indices @ affine[:3, :3].T + affine[:3, 3]
            contour.ContourData = [f"{value:.4f}" for value in places.reshape(-1)]


def _flipped(indices: Points, axis: int, count: int) -> Points:
    indices[:, axis] = count - 1 - indices[:, axis]
    return indices


SHAPE = (7, 24, 30)
MOVES: dict[str, Callable[[Points], Points]] = {
    "one slice on": lambda indices: indices + (1, 0, 0),
    "half a slice on": lambda indices: indices + (0.5, 0, 0),
    "one row down": lambda indices: indices + (0, 1, 0),
    "one column right": lambda indices: indices + (0, 0, 1),
    "half a pixel": lambda indices: indices + (0, 0.5, 0.5),
    "a tenth of a pixel": lambda indices: indices + (0, 0, 0.1),
    "slices flipped": lambda indices: _flipped(indices, 0, SHAPE[0]),
    "rows flipped": lambda indices: _flipped(indices, 1, SHAPE[1]),
    "columns flipped": lambda indices: _flipped(indices, 2, SHAPE[2]),
    "rows and columns exchanged": lambda indices: indices[:, [0, 2, 1]],
    "all mirrored at the origin": lambda indices: -indices,
}


@pytest.mark.parametrize("name", MOVES)
def test_contours_that_lie_elsewhere(written: _Written, name: str) -> None:
    _moved(written, lambda indices: indices)
    written.check()
    _moved(written, MOVES[name])
    with pytest.raises(VerificationFailed):
        written.check()


def _one_slice_on(dataset: Dataset) -> None:
    """Contours and the images that they refer to, together."""
    images = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    order = [str(image.ReferencedSOPInstanceUID) for image in images.ContourImageSequence]
    contour = dataset.ROIContourSequence[0].ContourSequence[0]
    image = contour.ContourImageSequence[0]
    image.ReferencedSOPInstanceUID = order[order.index(str(image.ReferencedSOPInstanceUID)) + 1]


def _exchange_contours(drawn: Sequence[Dataset]) -> None:
    drawn[0].ContourSequence, drawn[1].ContourSequence = drawn[1].ContourSequence, drawn[0].ContourSequence


CHANGES: dict[str, Callable[[Dataset], object]] = {
    "another image": _one_slice_on,
    "a contour less": lambda dataset: dataset.ROIContourSequence[0].ContourSequence.pop(),
    "a contour twice": lambda dataset: dataset.ROIContourSequence[0].ContourSequence.append(
        dataset.ROIContourSequence[0].ContourSequence[0]
    ),
    "a segment's contours less": lambda dataset: dataset.ROIContourSequence[1].pop("ContourSequence"),
    "regions exchanged": lambda dataset: dataset.ROIContourSequence.reverse(),
    "contours exchanged": lambda dataset: _exchange_contours(dataset.ROIContourSequence),
    "a point less": lambda dataset: setattr(
        dataset.ROIContourSequence[0].ContourSequence[0],
        "ContourData",
        dataset.ROIContourSequence[0].ContourSequence[0].ContourData[:-3],
    ),
    "open": lambda dataset: setattr(
        dataset.ROIContourSequence[0].ContourSequence[0], "ContourGeometricType", "OPEN_PLANAR"
    ),
    "another name": lambda dataset: setattr(dataset.StructureSetROISequence[0], "ROIName", "Spleen"),
    "another volume": lambda dataset: setattr(dataset.StructureSetROISequence[0], "ROIVolume", "1"),
    "another code": lambda dataset: setattr(
        dataset.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0], "CodeValue", "1"
    ),
    "another frame of reference": lambda dataset: setattr(
        dataset.ReferencedFrameOfReferenceSequence[0], "FrameOfReferenceUID", "1.2"
    ),
    "a region's frame of reference": lambda dataset: setattr(
        dataset.StructureSetROISequence[0], "ReferencedFrameOfReferenceUID", "1.2"
    ),
    "another version": lambda dataset: setattr(
        dataset.StructureSetROISequence[0].ROIDerivationAlgorithmIdentificationSequence[0], "AlgorithmVersion", "3"
    ),
    "an image less": lambda dataset: (
        dataset.ReferencedFrameOfReferenceSequence[0]
        .RTReferencedStudySequence[0]
        .RTReferencedSeriesSequence[0]
        .ContourImageSequence.pop()
    ),
    "another class": lambda dataset: setattr(dataset, "SOPClassUID", "1.2"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_object_that_says_something_else(written: _Written, name: str) -> None:
    CHANGES[name](written.dataset)
    with pytest.raises(VerificationFailed):
        written.check()


def test_a_hole_that_was_filled(tmp_path: Path) -> None:
    def without_holes(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        labels = np.zeros(shape, np.uint8)
        labels[1, 2:9, 3:12] = 1
        return labels

    one = pictured(tmp_path / "ct", paint=without_holes)
    dataset = pydicom.dcmread(write_structure_set(one.finding, tmp_path / "rt.dcm").path)
    labels = one.computed.array.copy()
    labels[1, 5, 7] = 0
    with pytest.raises(VerificationFailed):
        check_structure_set(dataset, replace(one.computed, array=labels), one.record, one.slices)
