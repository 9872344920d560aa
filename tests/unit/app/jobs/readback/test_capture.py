"""Pictures of other slices than they say, or with outlines elsewhere, are caught."""

from __future__ import annotations

import copy
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
from app.jobs.readback.capture import check_captures
from operators.results import capture
from operators.results.capture import write_captures
from operators.results.pages import Picture
from operators.sam.windowing import Window
from tests.phantom import CORONAL
from tests.pictured_phantom import AS_MR, ORIENTED, PHANTOM, Pictured, intricate_labels, pictured
from tests.segmented_phantom import no_labels

SIZES = {
    "rows far apart": replace(PHANTOM, row_spacing=1.7, column_spacing=0.5),
    "columns far apart": replace(PHANTOM, row_spacing=0.5, column_spacing=1.3, orientation=CORONAL),
    "large": replace(PHANTOM, rows=520, columns=540, row_spacing=0.7, column_spacing=0.7),
    "two slices": replace(PHANTOM, slices=2),
    "half again": replace(PHANTOM, rows=520, columns=300, row_spacing=0.5, column_spacing=0.75),
}


@dataclass(frozen=True)
class _Written:
    one: Pictured
    datasets: list[Dataset]

    def check(self) -> None:
        check_captures(self.datasets, self.one.computed, self.one.record, self.one.slices)


def _written(one: Pictured, folder: Path) -> _Written:
    folder.mkdir(exist_ok=True)
    return _Written(one, [pydicom.dcmread(each.path) for each in write_captures(one.finding, folder, Window(40, 400))])


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> _Written:
    folder = tmp_path_factory.mktemp("captures")
    return _written(pictured(folder / "ct", ORIENTED["oblique"]), folder / "sc")


@pytest.fixture
def written(stored: _Written) -> _Written:
    return copy.deepcopy(stored)


@pytest.mark.parametrize("name", ORIENTED | SIZES)
def test_what_was_written_is_what_was_computed(name: str, tmp_path: Path) -> None:
    for paint in (single_voxel if name == "two slices" else intricate_labels, no_labels):
        _written(pictured(tmp_path / "ct", (ORIENTED | SIZES)[name], paint=paint), tmp_path / "sc").check()


def single_voxel(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    labels = np.zeros(shape, np.uint8)
    labels[0, 3, 5] = 1
    return labels


def test_of_mr_too_and_of_very_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "MOST_CAPTURES", 3)
    found = _written(pictured(tmp_path / "mr", edit=AS_MR), tmp_path / "sc")
    found.check()
    for fewer in (found.datasets[:1], []):
        with pytest.raises(VerificationFailed):
            _Written(found.one, fewer).check()


def _change_pixels(change: Callable[[Picture], Picture]) -> Callable[[list[Dataset]], None]:
    """Change the slice's part of each picture, between title and legend."""

    def changed(datasets: list[Dataset]) -> None:
        for dataset in datasets:
            picture = dataset.pixel_array.copy()
            rows = round(PHANTOM.rows * PHANTOM.row_spacing / float(dataset.PixelSpacing[0]))
            columns = round(PHANTOM.columns * PHANTOM.column_spacing / float(dataset.PixelSpacing[1]))
            shown = picture[66 : 66 + rows, :columns]
            shown[...] = change(shown.copy())
            dataset.PixelData = picture.tobytes()

    return changed


def _repositioned(step: int) -> Callable[[list[Dataset]], None]:
    def changed(datasets: list[Dataset]) -> None:
        positions = [list(dataset.ImagePositionPatient) for dataset in datasets]
        for number, dataset in enumerate(datasets):
            dataset.ImagePositionPatient = positions[(number + step) % len(positions)]

    return changed


def _moved(dataset: Dataset) -> None:
    """By one voxel along a row."""
    step = np.array(dataset.ImageOrientationPatient[:3]) * 0.5
    dataset.ImagePositionPatient = [f"{value:.6f}" for value in np.array(dataset.ImagePositionPatient) + step]


def _recoloured(datasets: list[Dataset]) -> None:
    picture = datasets[0].pixel_array.copy()
    datasets[0].PixelData = picture[..., ::-1].tobytes()


def _exchanged_sources(datasets: list[Dataset]) -> None:
    one, other = datasets[1], datasets[2]
    one.SourceImageSequence, other.SourceImageSequence = other.SourceImageSequence, one.SourceImageSequence


def _set(keyword: str, value: object) -> Callable[[list[Dataset]], None]:
    return lambda datasets: setattr(datasets[0], keyword, value)


CHANGES: dict[str, Callable[[list[Dataset]], object]] = {
    "mirrored": _change_pixels(lambda picture: picture[:, ::-1]),
    "upside down": _change_pixels(lambda picture: picture[::-1]),
    "a pixel to the right": _change_pixels(lambda picture: np.roll(picture, 1, axis=1)),
    "a voxel down": _change_pixels(lambda picture: np.roll(picture, 27, axis=0)),
    "without outlines": _change_pixels(lambda picture: np.repeat(picture[..., :1], 3, axis=2)),
    "one position on": _repositioned(1),
    "moved": lambda datasets: _moved(datasets[2]),
    "another source": _exchanged_sources,
    "one less": lambda datasets: datasets.pop(3),
    "the last less": lambda datasets: datasets.pop(),
    "in another order": lambda datasets: datasets.reverse(),
    "another colour": _recoloured,
    "verified": _set("DerivationDescription", "outlines"),
    "another frame of reference": _set("FrameOfReferenceUID", "1.2"),
    "another version": _set("SoftwareVersions", "3"),
    "another class": _set("SOPClassUID", "1.2"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_pictures_of_something_else(written: _Written, name: str) -> None:
    _change_pixels(lambda picture: picture)(written.datasets)
    written.check()
    CHANGES[name](written.datasets)
    with pytest.raises(VerificationFailed):
        written.check()


def test_a_page_that_says_nothing_was_found_where_something_was(tmp_path: Path) -> None:
    found = pictured(tmp_path / "ct")
    empty = _written(replace(found, finding=replace(found.finding, labels=_nothing(found))), tmp_path / "sc")
    empty.check()
    with pytest.raises(VerificationFailed):
        _Written(found, empty.datasets).check()
    with pytest.raises(VerificationFailed):
        _Written(empty.one, _written(found, tmp_path / "other").datasets).check()


def _nothing(found: Pictured) -> highdicom.Volume:
    return found.finding.labels.with_array(np.zeros(found.finding.labels.spatial_shape, np.uint8))
