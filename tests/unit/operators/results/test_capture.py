"""Pictures of a finding: which slices, what they say, and that they are the same each time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from operators.results import capture
from operators.results.capture import write_captures
from operators.results.finding import PromptingObject
from operators.sam.windowing import Window
from tests.pictured_phantom import PHANTOM, Pictured, pictured
from tests.segmented_phantom import no_labels

WINDOW = Window(40, 400)


def _written(one: Pictured, folder: Path) -> list[pydicom.Dataset]:
    folder.mkdir()
    return [pydicom.dcmread(written.path) for written in write_captures(one.finding, folder, WINDOW)]


def _one_slice(index: int) -> Callable[[tuple[int, int, int]], NDArray[np.uint8]]:
    def paint(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        labels = np.zeros(shape, np.uint8)
        labels[index, 3:9, 4:12] = 1
        return labels

    return paint


@pytest.mark.parametrize(("index", "shown"), [(0, [0, 1]), (3, [2, 3, 4]), (6, [5, 6])])
def test_slices_with_a_finding_and_their_neighbours_are_shown(index: int, shown: list[int], tmp_path: Path) -> None:
    one = pictured(tmp_path / "ct", paint=_one_slice(index))
    found = _written(one, tmp_path / "sc")
    instances = [str(header.SOPInstanceUID) for header in one.finding.series.datasets]
    assert [instances.index(image.SourceImageSequence[0].ReferencedSOPInstanceUID) for image in found] == shown
    assert [image.InstanceNumber for image in found] == list(range(1, len(shown) + 1))
    assert len({image.SOPInstanceUID for image in found}) == len(found)
    assert len({(image.Rows, image.Columns, image.SeriesInstanceUID) for image in found}) == 1


def test_a_pictures_place_is_the_slices(tmp_path: Path) -> None:
    """The planted voxel in the first slice's first corner is coloured where the picture says that it lies."""
    one = pictured(tmp_path / "ct")
    image = _written(one, tmp_path / "sc")[0]
    coloured = np.argwhere(np.ptp(image.pixel_array[:-30], axis=2) > 0)
    coloured = coloured[coloured[:, 0] >= 66]  # below the title
    cosines = np.array(image.ImageOrientationPatient, float)
    steps = np.stack([cosines[3:], cosines[:3]]) * float(image.PixelSpacing[0])
    middle = np.array(image.ImagePositionPatient, float) + coloured.mean(axis=0) @ steps
    position = np.array(one.finding.source.ImagePositionPatient, float)
    assert np.abs(middle - position).max() < 0.01


def test_nothing_found_is_one_page_without_place(tmp_path: Path) -> None:
    (page,) = _written(pictured(tmp_path / "ct", paint=no_labels), tmp_path / "sc")
    assert len(page.SourceImageSequence) == PHANTOM.slices
    assert "ImagePositionPatient" not in page
    assert page.pixel_array.any()


def test_what_an_image_says(tmp_path: Path) -> None:
    one = pictured(tmp_path / "ct")
    guided = replace(one, finding=replace(one.finding, prompted_by=[PromptingObject("1.2.3", "1.2.3.4")]))
    image = _written(guided, tmp_path / "sc")[0]
    assert image.DerivationDescription == "AI result, not verified: outlines by Planted network 2.1.0"
    assert (image.BurnedInAnnotation, image.ConversionType, image.Modality) == ("YES", "WSD", "OT")
    assert list(image.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
    assert (image.SeriesNumber, image.SeriesDescription) == (4003, "AI: organs: pictures")
    assert image.SourceInstanceSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"
    assert image.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "109102"


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    one = pictured(tmp_path / "ct")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = write_captures(one.finding, tmp_path / "a", WINDOW)
    second = write_captures(one.finding, tmp_path / "b", WINDOW)
    assert [each.digest for each in first] == [each.digest for each in second]
    assert [each.path.name for each in first][:2] == ["capture-0001.dcm", "capture-0002.dcm"]


def test_of_very_many_slices_evenly_some_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "MOST_CAPTURES", 3)
    one = pictured(tmp_path / "ct")  # all 7 have a finding or are beside one
    found = _written(one, tmp_path / "sc")
    instances = [str(header.SOPInstanceUID) for header in one.finding.series.datasets]
    assert [instances.index(image.SourceImageSequence[0].ReferencedSOPInstanceUID) for image in found] == [0, 3, 6]


def test_a_grey_segment_is_drawn_in_a_colour(tmp_path: Path) -> None:
    one = pictured(tmp_path / "ct")
    grey = [replace(segment, rgb=(200, 200, 200)) for segment in one.finding.segments]
    found = _written(replace(one, finding=replace(one.finding, segments=grey)), tmp_path / "sc")
    assert all(np.ptp(image.pixel_array[66:-30], axis=2).any() for image in found[:3])
