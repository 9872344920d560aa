"""A presentation state that does not say what was computed, or on which image, is caught."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from app.errors import VerificationFailed
from app.jobs.readback.presentation_state import check_presentation_state
from operators.results.presentation_state import write_presentation_state
from tests.pictured_phantom import AS_MR, ORIENTED, Pictured, intricate_labels, pictured
from tests.segmented_phantom import no_labels

Points = NDArray[np.float64]


@dataclass(frozen=True)
class _Written:
    one: Pictured
    dataset: Dataset

    def check(self) -> None:
        check_presentation_state(self.dataset, self.one.computed, self.one.record, self.one.slices)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> _Written:
    folder = tmp_path_factory.mktemp("presentation-state")
    one = pictured(folder / "ct", ORIENTED["oblique"])
    return _Written(one, pydicom.dcmread(write_presentation_state(one.finding, folder / "pr.dcm").path))


@pytest.fixture
def written(stored: _Written) -> _Written:
    return copy.deepcopy(stored)


@pytest.mark.parametrize("name", ORIENTED)
def test_what_was_written_is_what_was_computed(name: str, tmp_path: Path) -> None:
    for paint in (intricate_labels, no_labels):
        one = pictured(tmp_path / "ct", ORIENTED[name], paint=paint)
        _Written(one, pydicom.dcmread(write_presentation_state(one.finding, tmp_path / "pr.dcm").path)).check()


def test_of_mr_too(tmp_path: Path) -> None:
    one = pictured(tmp_path / "mr", edit=AS_MR)
    _Written(one, pydicom.dcmread(write_presentation_state(one.finding, tmp_path / "pr.dcm").path)).check()


def _moved(dataset: Dataset, change: Callable[[Points], Points]) -> None:
    for annotation in dataset.GraphicAnnotationSequence:
        for graphic in annotation.get("GraphicObjectSequence", ()):
            points = np.array(graphic.GraphicData, np.float64).reshape(-1, 2)
            graphic.GraphicData = change(points).reshape(-1).tolist()


MOVES: dict[str, Callable[[Points], Points]] = {
    "one pixel right": lambda points: points + (1, 0),
    "one pixel up": lambda points: points - (0, 1),
    "half a pixel": lambda points: points + 0.5,
    "counted from one": lambda points: points + 1,
    "mirrored": lambda points: np.array([30, 0]) + points * (-1, 1),
    "upside down": lambda points: np.array([0, 24]) + points * (1, -1),
    "exchanged": lambda points: points[:, ::-1],
}


@pytest.mark.parametrize("name", MOVES)
def test_outlines_that_lie_elsewhere(written: _Written, name: str) -> None:
    _moved(written.dataset, lambda points: points)
    written.check()
    _moved(written.dataset, MOVES[name])
    with pytest.raises(VerificationFailed):
        written.check()


def _next_image(dataset: Dataset) -> None:
    order = [str(item.ReferencedSOPInstanceUID) for item in dataset.ReferencedSeriesSequence[0].ReferencedImageSequence]
    for annotation in dataset.GraphicAnnotationSequence[:-1]:
        (image,) = annotation.ReferencedImageSequence
        place = order.index(str(image.ReferencedSOPInstanceUID))
        image.ReferencedSOPInstanceUID = order[(place + 1) % len(order)]


def _with_all_images(dataset: Dataset) -> None:
    annotation, notice = dataset.GraphicAnnotationSequence[0], dataset.GraphicAnnotationSequence[-1]
    annotation.ReferencedImageSequence = notice.ReferencedImageSequence


def _shortened(dataset: Dataset) -> None:
    graphic = dataset.GraphicAnnotationSequence[0].GraphicObjectSequence[0]
    graphic.GraphicData = graphic.GraphicData[:-2]
    graphic.NumberOfGraphicPoints -= 1


def _first(dataset: Dataset) -> Dataset:
    found: Dataset = dataset.GraphicAnnotationSequence[0]
    return found


CHANGES: dict[str, Callable[[Dataset], object]] = {
    "each on the next image": _next_image,
    "on all images": _with_all_images,
    "another layer": lambda dataset: setattr(_first(dataset), "GraphicLayer", "SEGMENT 2"),
    "an annotation less": lambda dataset: dataset.GraphicAnnotationSequence.pop(0),
    "an annotation twice": lambda dataset: dataset.GraphicAnnotationSequence.append(_first(dataset)),
    "an outline less": lambda dataset: dataset.GraphicAnnotationSequence[1].GraphicObjectSequence.pop(),
    "open": _shortened,
    "another type": lambda dataset: setattr(_first(dataset).GraphicObjectSequence[0], "GraphicType", "INTERPOLATED"),
    "other units": lambda dataset: setattr(
        _first(dataset).GraphicObjectSequence[0], "GraphicAnnotationUnits", "DISPLAY"
    ),
    "another label": lambda dataset: setattr(dataset.GraphicLayerSequence[0], "GraphicLayerDescription", "Spleen"),
    "verified": lambda dataset: setattr(
        dataset.GraphicAnnotationSequence[-1].TextObjectSequence[0], "UnformattedTextValue", "Verified"
    ),
    "a notice less": lambda dataset: dataset.GraphicAnnotationSequence[-1].ReferencedImageSequence.pop(),
    "an image less": lambda dataset: dataset.ReferencedSeriesSequence[0].ReferencedImageSequence.pop(),
    "another version": lambda dataset: setattr(dataset, "SoftwareVersions", "3"),
    "other weights": lambda dataset: setattr(dataset, "DeviceSerialNumber", "0"),
    "another class": lambda dataset: setattr(dataset, "SOPClassUID", "1.2"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_object_that_says_something_else(written: _Written, name: str) -> None:
    CHANGES[name](written.dataset)
    with pytest.raises(VerificationFailed):
        written.check()
