"""What was drawn lands where it was drawn: every object, in every orientation, with pixels that are not square."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from operators.errors import PromptRefused
from operators.sam.objects.placing import PlacedPrompt, place_object
from operators.sam.objects.reading import read_prompts
from operators.sam.prompts import Box
from operators.series_volume import SeriesVolume, read_series
from tests.multi_frame import write_enhanced
from tests.phantom import OBLIQUE, SAGITTAL, Phantom, variants
from tests.prompt_objects import (
    in_patient,
    presentation_state,
    rectangle,
    region_group,
    report,
    stored,
    structure_set,
)

PHANTOM = Phantom(slices=5, rows=24, columns=40, row_spacing=0.8, column_spacing=0.5, slice_spacing=2.5)
VARIANTS = variants(PHANTOM)
DRAWN = rectangle(6.25, 3.5, 21.0, 14.75)
BOX = Box(6.25, 3.5, 21.0, 14.75)
SLICE = 3


def _series(phantom: Phantom, folder: Path) -> SeriesVolume:
    return read_series(phantom.write(folder))


def _index(phantom: Phantom, series: SeriesVolume, index: int) -> int:
    """Where a slice of the phantom is in the volume."""
    uids = [header.SOPInstanceUID for header in series.datasets]
    return uids.index(phantom.dataset(index).SOPInstanceUID)


def _one(dataset: Dataset, series: SeriesVolume) -> PlacedPrompt:
    (wanted,) = read_prompts(stored(dataset)).objects
    return place_object(wanted, series)


def _near(box: Box | None, expected: Box, tolerance: float = 0.02) -> bool:
    assert box is not None
    edges = (box.left - expected.left, box.top - expected.top, box.right - expected.right, box.bottom - expected.bottom)
    return max(map(abs, edges)) <= tolerance


def _state(phantom: Phantom) -> Dataset:
    return presentation_state(phantom, SLICE, [("POLYLINE", DRAWN)])


def _report(phantom: Phantom) -> Dataset:
    return report(phantom, [region_group(phantom, SLICE, "POLYLINE", DRAWN)])


def _report_in_patient(phantom: Phantom) -> Dataset:
    return report(phantom, [region_group(phantom, SLICE, "POLYGON", in_patient(phantom, SLICE, DRAWN))])


def _structures(phantom: Phantom) -> Dataset:
    return structure_set(phantom, [("liver", [("CLOSED_PLANAR", in_patient(phantom, SLICE, DRAWN[:-1]))])])


MAKERS = {
    "presentation state": _state,
    "report": _report,
    "report in the patient": _report_in_patient,
    "structure set": _structures,
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_an_outline_is_on_its_slice_and_its_pixels(
    make: Callable[[Phantom], Dataset], name: str, tmp_path: Path
) -> None:
    phantom = VARIANTS[name]
    series = _series(phantom, tmp_path)
    prompt = _one(make(phantom), series)
    (placed,) = prompt.slices
    assert placed.slice_index == _index(phantom, series, SLICE)
    assert _near(placed.prompt.box, BOX)
    assert placed.mask is not None
    expected: NDArray[np.bool_] = np.zeros((24, 40), np.bool_)
    expected[4:14, 6:21] = True  # pixels whose middle lies inside: rows 3.5 (4.0) to 14.75, columns 6.25 (6.5) to 21
    found = placed.mask.full(24, 40)
    assert (found[4:14, 6:21]).all()
    assert not found[:3].any()
    assert not found[15:].any()


@pytest.mark.parametrize("name", VARIANTS)
def test_points_in_the_patient_are_in_their_pixels(name: str, tmp_path: Path) -> None:
    phantom = VARIANTS[name]
    series = _series(phantom, tmp_path)
    pixels = np.array([[0.5, 0.5], [12.25, 7.75], [39.5, 23.5]])
    contours = [("POINT", in_patient(phantom, index, pixels[index : index + 1])) for index in range(3)]
    prompt = _one(structure_set(phantom, [("points", contours)]), series)
    for index in range(3):
        (placed,) = [one for one in prompt.slices if one.slice_index == _index(phantom, series, index)]
        (point,) = placed.prompt.points
        assert point.x == pytest.approx(pixels[index, 0], abs=0.02)
        assert point.y == pytest.approx(pixels[index, 1], abs=0.02)
        assert point.is_foreground


@pytest.mark.parametrize("orientation", [SAGITTAL, OBLIQUE])
def test_an_ellipsoid_is_the_cut_of_each_slice(orientation: tuple[float, ...], tmp_path: Path) -> None:
    phantom = replace(PHANTOM, orientation=orientation)
    series = _series(phantom, tmp_path)
    through, down, right = (axis / np.linalg.norm(axis) for axis in phantom.axes)
    centre = in_patient(phantom, 2, np.array([[20.0, 12.0]]))[0]
    halves = (5.2 * through, 4.0 * down, 6.0 * right)  # mm
    ends = np.array([centre + sign * half for half in halves for sign in (-1, 1)])
    prompt = _one(report(phantom, [_ellipsoid(phantom, ends)]), series)
    assert len(prompt.slices) == 5
    assert prompt.key.slice_index == _index(phantom, series, 2)
    for placed in prompt.slices:
        depth = (placed.slice_index - prompt.key.slice_index) * 2.5
        size = np.sqrt(1 - (depth / 5.2) ** 2)
        half_x, half_y = 6.0 * size / 0.5, 4.0 * size / 0.8
        assert _near(placed.prompt.box, Box(20 - half_x, 12 - half_y, 20 + half_x, 12 + half_y), 0.05)


def _ellipsoid(phantom: Phantom, ends: NDArray[np.float64]) -> Any:
    """A group whose region is an ellipsoid; highdicom has them in volumetric groups only."""
    group = region_group(phantom, 2, "POLYGON", in_patient(phantom, 2, DRAWN))
    for item in group[0].ContentSequence:
        if item.ValueType == "SCOORD3D":
            item.GraphicType, item.GraphicData = "ELLIPSOID", ends.flatten().tolist()
    return group


# --- on frames of a multi-frame image ---


def _on_frames(series: SeriesVolume, frames: list[int] | None) -> Dataset:
    """A presentation state that is drawn on some frames of the enhanced image that `series` is; None names none."""
    state = _state(PHANTOM)
    source = series.datasets[0]
    for referenced in (
        *state.ReferencedSeriesSequence[0].ReferencedImageSequence,
        *state.GraphicAnnotationSequence[0].ReferencedImageSequence,
    ):
        referenced.ReferencedSOPClassUID = source.SOPClassUID
        referenced.ReferencedSOPInstanceUID = source.SOPInstanceUID
        if frames is not None:
            referenced.ReferencedFrameNumber = frames
    return state


@pytest.mark.parametrize("frames", [[4], [2, 5], None])
def test_what_is_drawn_on_frames_is_on_their_slices(frames: list[int] | None, tmp_path: Path) -> None:
    series = read_series(write_enhanced(PHANTOM, tmp_path, shuffled=True))
    prompt = _one(_on_frames(series, frames), series)
    expected = sorted(series.frame_numbers.index(number) for number in frames or (1, 2, 3, 4, 5))
    assert [one.slice_index for one in prompt.slices] == expected
    assert all(_near(one.prompt.box, BOX) for one in prompt.slices)


def test_what_is_drawn_on_a_frame_that_is_not_there_lies_outside(tmp_path: Path) -> None:
    series = read_series(write_enhanced(PHANTOM, tmp_path))
    with pytest.raises(PromptRefused) as caught:
        place_object(read_prompts(stored(_on_frames(series, [6]))).objects[0], series)
    assert caught.value.code == "prompt-outside"
