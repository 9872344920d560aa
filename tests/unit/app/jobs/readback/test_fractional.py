"""A FRACTIONAL Segmentation whose values are not the probabilities, or lie elsewhere, is caught."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from app.errors import VerificationFailed
from app.jobs.readback.fractional import check_fractional
from operators.results.finding import Finding
from operators.results.fractional import write_fractional
from tests.finding_phantom import computed, planted_finding, planted_probabilities, record_of
from tests.phantom import Phantom, variants
from tests.segmented_phantom import LIVER, no_labels

SQUARE = Phantom(slices=6, rows=12, columns=12, row_spacing=0.5, column_spacing=0.5)


def _arrays(finding: Finding) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
    return ((value, volume.array) for value, volume in planted_probabilities(finding))


def _check(finding: Finding, folder: Path, change: Callable[[Dataset], None] = lambda dataset: None) -> None:
    written = write_fractional(finding, planted_probabilities(finding), folder / "seg.dcm")
    dataset = pydicom.dcmread(written.path)
    change(dataset)
    check_fractional(dataset, computed(finding), record_of(finding, written), _arrays(finding))


@pytest.mark.parametrize("name", variants(Phantom()))
def test_what_was_written_is_right(name: str, tmp_path: Path) -> None:
    _check(planted_finding(tmp_path / "ct", variants(Phantom())[name]), tmp_path)


def test_one_segment_and_nothing_are_right(tmp_path: Path) -> None:
    _check(planted_finding(tmp_path / "1", paint=no_labels), tmp_path)
    _check(planted_finding(tmp_path / "2", paint=lambda shape: np.ones(shape, np.uint8), segments=[LIVER]), tmp_path)


def _pixels(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Dataset], None]:
    def edit(dataset: Dataset) -> None:
        dataset.PixelData = np.ascontiguousarray(change(dataset.pixel_array)).tobytes()

    return edit


def _one_step(frames: np.ndarray) -> np.ndarray:
    changed = frames.copy()
    changed[2, 3, 4] += 1
    return changed


@pytest.mark.parametrize(
    "change",
    [
        lambda frames: frames[::-1],
        lambda frames: frames[:, ::-1],
        lambda frames: frames[:, :, ::-1],
        lambda frames: frames.transpose(0, 2, 1),
        lambda frames: 255 - frames,
        np.zeros_like,
        _one_step,
    ],
)
def test_other_values_are_refused(change: Callable[[np.ndarray], np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(VerificationFailed, match="probabilities of segment . differ"):
        _check(planted_finding(tmp_path / "ct", SQUARE), tmp_path, _pixels(change))


def _other_step(dataset: Dataset) -> None:
    dataset.MaximumFractionalValue = 250


def _swapped(dataset: Dataset) -> None:
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        shown = groups.SegmentIdentificationSequence[0]
        shown.ReferencedSegmentNumber = 3 - shown.ReferencedSegmentNumber


def _elsewhere(dataset: Dataset) -> None:
    dataset.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0].ImagePositionPatient[1] += 0.4


def _twice(dataset: Dataset) -> None:
    groups = dataset.PerFrameFunctionalGroupsSequence
    groups[1].PlanePositionSequence = groups[0].PlanePositionSequence


def _missing(dataset: Dataset) -> None:
    del dataset.PerFrameFunctionalGroupsSequence[-1]
    dataset.NumberOfFrames -= 1
    dataset.PixelData = dataset.PixelData[: -dataset.Rows * dataset.Columns]


def _occupancy(dataset: Dataset) -> None:
    dataset.SegmentationFractionalType = "OCCUPANCY"


def _other_code(dataset: Dataset) -> None:
    dataset.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].CodeValue = "10200004"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_other_step, "differ"),
        (_swapped, "differ"),
        (_elsewhere, "lies elsewhere"),
        (_twice, "two frames show one slice"),
        (_missing, "differ"),
        (_occupancy, "no FRACTIONAL"),
        (_other_code, "segments are not the record's"),
    ],
)
def test_other_places_and_segments_are_refused(change: Callable[[Dataset], None], said: str, tmp_path: Path) -> None:
    with pytest.raises(VerificationFailed, match=said):
        _check(planted_finding(tmp_path / "ct", SQUARE), tmp_path, change)


def test_each_segments_probabilities_are_asked_for(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct")
    written = write_fractional(finding, planted_probabilities(finding), tmp_path / "seg.dcm")
    dataset, record = pydicom.dcmread(written.path), record_of(finding, written)
    given = list(_arrays(finding))
    with pytest.raises(VerificationFailed, match="segments without probabilities"):
        check_fractional(dataset, computed(finding), record, given[:2])
    with pytest.raises(VerificationFailed, match="more probabilities"):
        check_fractional(dataset, computed(finding), record, [*given, given[0]])
    with pytest.raises(VerificationFailed, match="another grid"):
        check_fractional(dataset, computed(finding), record, [(given[0][0], given[0][1][1:]), *given[1:]])
