"""Presentation states hold the outlines in pixels, in a layer a segment, and show the images as they should be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.color import CIELabColor
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from operators.results.presentation_state import write_presentation_state
from operators.sam.windowing import Window
from tests.phantom import Phantom, setting
from tests.pictured_phantom import AS_MR, PHANTOM, Pictured, pictured
from tests.segmented_phantom import no_labels


def _written(one: Pictured, path: Path, window: Window | None = None) -> pydicom.Dataset:
    return pydicom.dcmread(write_presentation_state(one.finding, path, window).path)


def test_outlines_count_from_the_outer_corner_of_the_first_pixel(tmp_path: Path) -> None:
    """PS3.3 C.10.5.1.1: the first pixel reaches from 0, 0 to 1, 1; the last to columns, rows."""
    one = pictured(tmp_path / "ct")
    dataset = _written(one, tmp_path / "pr.dcm")
    first = dataset.GraphicAnnotationSequence[0]
    assert first.ReferencedImageSequence[0].ReferencedSOPInstanceUID == one.finding.source.SOPInstanceUID
    assert list(first.GraphicObjectSequence[0].GraphicData) == [0, 0, 1, 0, 1, 1, 0, 1, 0, 0]
    last = dataset.GraphicAnnotationSequence[-2].GraphicObjectSequence[0]
    assert np.reshape(last.GraphicData, (-1, 2)).max(axis=0).tolist() == [30, 24]
    assert list(dataset.DisplayedAreaSelectionSequence[0].DisplayedAreaTopLeftHandCorner) == [1, 1]


def test_each_segment_has_a_layer_with_its_colour_and_label(tmp_path: Path) -> None:
    dataset = _written(pictured(tmp_path / "ct"), tmp_path / "pr.dcm")
    layers = [(layer.GraphicLayer, layer.GraphicLayerDescription) for layer in dataset.GraphicLayerSequence]
    assert layers == [
        ("SEGMENT 1", "Liver"),
        ("SEGMENT 2", "Left kidney"),
        ("NOTICE", "AI result, not verified"),
    ]
    colour = dataset.GraphicLayerSequence[0].GraphicLayerRecommendedDisplayCIELabValue
    assert tuple(colour) == CIELabColor.from_rgb(221, 130, 101).value
    assert dataset.GraphicAnnotationSequence[0].TextObjectSequence[0].UnformattedTextValue == "Liver"


def test_holes_are_outlines_of_their_own(tmp_path: Path) -> None:
    dataset = _written(pictured(tmp_path / "ct"), tmp_path / "pr.dcm")
    counts = [len(one.get("GraphicObjectSequence", ())) for one in dataset.GraphicAnnotationSequence]
    assert max(counts) >= 5


def test_nothing_found_is_said_on_every_image(tmp_path: Path) -> None:
    dataset = _written(pictured(tmp_path / "ct", paint=no_labels), tmp_path / "pr.dcm")
    (notice,) = dataset.GraphicAnnotationSequence
    assert notice.TextObjectSequence[0].UnformattedTextValue == (
        "AI result, not verified: nothing found (Planted network 2.1.0)"
    )
    assert len(notice.ReferencedImageSequence) == PHANTOM.slices


def test_pixels_that_are_not_square_are_shown_so(tmp_path: Path) -> None:
    dataset = _written(pictured(tmp_path / "ct"), tmp_path / "pr.dcm")
    (area,) = dataset.DisplayedAreaSelectionSequence
    assert list(area.PresentationPixelSpacing) == [0.8, 0.5]
    assert "PresentationPixelAspectRatio" not in area


def test_values_are_rescaled_and_the_images_window_is_kept(tmp_path: Path) -> None:
    one = pictured(tmp_path / "ct", edit=setting(WindowCenter=["60", "300"], WindowWidth=["420", "900"]))
    dataset = _written(one, tmp_path / "pr.dcm")
    assert (dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType) == (1, -1024, "HU")
    (window,) = dataset.SoftcopyVOILUTSequence
    assert (window.WindowCenter, window.WindowWidth, "ReferencedImageSequence" in window) == (60, 420, False)


def test_a_window_that_is_given_is_taken_and_a_suitable_one_where_there_is_none(tmp_path: Path) -> None:
    one = pictured(tmp_path / "ct")
    for given, expected in ((Window(-600, 1500), (-600, 1500)), (None, (40, 400))):
        (window,) = _written(one, tmp_path / "pr.dcm", given).SoftcopyVOILUTSequence
        assert (window.WindowCenter, window.WindowWidth) == expected


def test_a_narrow_window_is_exact(tmp_path: Path) -> None:
    (window,) = _written(
        pictured(tmp_path / "mr", edit=AS_MR), tmp_path / "pr.dcm", Window(1, 0.5)
    ).SoftcopyVOILUTSequence
    assert (window.WindowWidth, window.VOILUTFunction) == (0.5, "LINEAR_EXACT")


def test_an_image_without_anything_above_zero_is_shown_too(tmp_path: Path) -> None:
    def dark(_: int, dataset: pydicom.Dataset) -> pydicom.Dataset:
        AS_MR(_, dataset)
        dataset.PixelData = bytes(len(dataset.PixelData))
        return dataset

    (window,) = _written(pictured(tmp_path / "mr", edit=dark), tmp_path / "pr.dcm").SoftcopyVOILUTSequence
    assert float(window.WindowWidth) == 1


def test_where_rescaling_differs_windows_are_of_stored_values(tmp_path: Path) -> None:
    one = pictured(tmp_path / "ct", replace(PHANTOM, slopes=(1.0, 2.0)))
    dataset = _written(one, tmp_path / "pr.dcm", Window(40, 400))
    assert "RescaleSlope" not in dataset
    found = {
        str(item.ReferencedSOPInstanceUID): (float(window.WindowCenter), float(window.WindowWidth))
        for window in dataset.SoftcopyVOILUTSequence
        for item in window.ReferencedImageSequence
    }
    for header in one.finding.series.datasets:
        slope = float(header.RescaleSlope)
        assert found[str(header.SOPInstanceUID)] == ((40 + 1024) / slope, 400 / slope)


def test_a_long_outline_makes_it_implicit(tmp_path: Path) -> None:
    def comb(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        labels = np.zeros(shape, np.uint8)
        labels[1, :, ::2] = 1
        labels[1, 0] = 1
        return labels

    for columns, syntax in ((30, ExplicitVRLittleEndian), (4400, ImplicitVRLittleEndian)):
        phantom = Phantom(slices=3, rows=3, columns=columns)
        dataset = _written(pictured(tmp_path / str(columns), phantom, paint=comb), tmp_path / "pr.dcm")
        assert dataset.file_meta.TransferSyntaxUID == syntax
        (drawn,) = dataset.GraphicAnnotationSequence[0].GraphicObjectSequence
        assert len(drawn.GraphicData) == 2 * drawn.NumberOfGraphicPoints


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    one = pictured(tmp_path / "ct")
    digests = {write_presentation_state(one.finding, tmp_path / name).digest for name in ("a.dcm", "b.dcm")}
    assert len(digests) == 1


@pytest.mark.parametrize("window", ["", "40", ["x", "y"]])
def test_a_window_that_can_not_be_used_is_not(tmp_path: Path, window: object) -> None:
    one = pictured(tmp_path / "ct", edit=lambda _, dataset: _with_raw_window(dataset, window))
    (shown,) = _written(one, tmp_path / "pr.dcm").SoftcopyVOILUTSequence
    assert (shown.WindowCenter, shown.WindowWidth) == (40, 400)


def _with_raw_window(dataset: pydicom.Dataset, window: object) -> pydicom.Dataset:
    if window != ["x", "y"]:
        dataset.WindowCenter = window
        return dataset
    for tag in (0x00281050, 0x00281051):
        dataset.add(pydicom.DataElement(tag, "DS", "x\\y", already_converted=True))
    return dataset
