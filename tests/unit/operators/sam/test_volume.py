from pathlib import Path

import highdicom
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.errors import PromptRefused
from operators.sam.laying import Overlap
from operators.sam.prompts import Box, SlicePrompt
from operators.sam.volume import Shown, VolumePrompt, place_in_volume, segment_volume
from operators.sam.windowing import Window
from tests.sam_fixture import (
    MEMORY,
    SIDE,
    BrightBesideRemembered,
    BrightInBox,
    bright_predictor,
    remembering_predictor,
)

FRAME = "1.2.3"
WINDOW = Window(50, 100)
ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": (0.8, 0.6, 0, 0, 0, -1),
}


def volume_of(array: NDArray[np.float32], orientation: str = "axial") -> highdicom.Volume:
    return highdicom.Volume.from_attributes(
        array=array,
        image_position=(-30.0, 12.5, 100.0),
        image_orientation=ORIENTATIONS[orientation],
        pixel_spacing=(0.7, 0.9),
        spacing_between_slices=2.5,
        coordinate_system="PATIENT",
        frame_of_reference_uid=FRAME,
    )


def rods() -> NDArray[np.float32]:
    """Two bright squares, the first on slices 2 to 5, the second on all of eight."""
    array = np.zeros((8, SIDE, SIDE), np.float32)
    array[2:6, 10:20, 10:20] = 90
    array[:, 40:50, 30:45] = 90
    return array


FIRST, SECOND = SlicePrompt(Box(8, 8, 22, 22)), SlicePrompt(Box(28, 38, 47, 52))


@given(
    orientation=st.sampled_from(sorted(ORIENTATIONS)),
    index=st.tuples(st.floats(-0.49, 7.49), st.floats(-0.5, 63.5), st.floats(-0.5, 63.5)),
)
def test_a_position_comes_back_to_its_voxel(orientation: str, index: tuple[float, float, float]) -> None:
    volume = volume_of(rods(), orientation)
    position = (volume.affine @ np.array([*index, 1.0]))[:3]
    place = place_in_volume(position, volume, frame_of_reference_uid=FRAME)
    assert abs(place.slice_index - index[0]) <= 0.5 + 1e-6
    assert (place.y - 0.5, place.x - 0.5) == pytest.approx(index[1:], abs=1e-6)


def test_the_middle_of_the_first_pixel_is_at_half() -> None:
    place = place_in_volume((-30.0, 12.5, 100.0), volume_of(rods()), frame_of_reference_uid=FRAME)
    assert (place.slice_index, place.x, place.y) == (0, 0.5, 0.5)


@pytest.mark.parametrize(
    ("index", "frame", "code"),
    [
        ((7.6, 3, 3), FRAME, "prompt-outside"),
        ((-0.6, 3, 3), FRAME, "prompt-outside"),
        ((3, -0.6, 3), FRAME, "prompt-outside"),
        ((3, 3, 63.6), FRAME, "prompt-outside"),
        ((3, 3, 3), "1.2.4", "frame-of-reference-differs"),
        ((3, float("nan"), 3), FRAME, "prompt-not-finite"),
    ],
)
def test_a_place_that_is_not_in_the_series_is_refused(index: tuple[float, ...], frame: str, code: str) -> None:
    volume = volume_of(rods(), "oblique")
    with pytest.raises(PromptRefused) as refusal:
        place_in_volume((volume.affine @ [*index, 1.0])[:3], volume, frame_of_reference_uid=frame)
    assert refusal.value.code == code


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_label_map_has_the_volumes_geometry(orientation: str, tmp_path: Path) -> None:
    networks, volume, reports = BrightInBox(), volume_of(rods(), orientation), list[tuple[int, int]]()
    prompts = [
        VolumePrompt(3, FIRST, 1),
        VolumePrompt(3, SECOND, 300, reach=(2, 4)),
        VolumePrompt(4, FIRST, 1, reach="structure"),
        VolumePrompt(3, SECOND, 2),
    ]
    found = segment_volume(
        volume,
        prompts,
        bright_predictor(networks, tmp_path),
        Shown(volume, WINDOW),
        lambda done, total: reports.append((done, total)),
    )
    labels = found.labels
    assert labels.geometry_equal(volume)
    expected = np.zeros((8, SIDE, SIDE), np.uint16)
    expected[2:6, 10:20, 10:20] = 1
    expected[2:5, 40:50, 30:45] = 300
    expected[3, 40:50, 30:45] = 2  # on one slice, it is the smaller one
    assert labels.array.dtype == np.uint16
    np.testing.assert_array_equal(labels.array, expected)
    assert found.overlaps == (Overlap(300, 450, {2: 150}),)
    assert reports == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert len(networks.requests[0]["point_labels"]) == 2, "two prompts on one slice go together"
    assert networks.encoded == 2, "slices with equal pixels are one image: there are two kinds"


@pytest.mark.parametrize(("components", "leak"), [("all", 8), ("largest", 0)])
def test_what_leaks_beside_a_followed_structure_goes_where_the_variant_keeps_the_largest_component(
    components: str, leak: int, tmp_path: Path
) -> None:
    array = rods()
    array[4, 10:14, 21:23] = 90  # a pixel beside the first rod, within reach of what is remembered
    volume = volume_of(array)
    predictor = remembering_predictor(BrightBesideRemembered(), tmp_path, memory={**MEMORY, "components": components})
    prompts = [VolumePrompt(3, FIRST, 1, reach="structure"), VolumePrompt(6, SECOND, 1)]
    found = segment_volume(volume, prompts, predictor, Shown(volume, WINDOW)).labels.array
    assert np.count_nonzero(found[4, :, 21:23]) == leak
    assert np.count_nonzero(found[2:6, 10:20, 10:20]) == 4 * 100
    assert np.count_nonzero(found[6]) == 150, "another slice that was drawn on is asked by itself, and keeps its mask"


def test_slices_are_shown_when_they_are_asked_for() -> None:
    shown = Shown(volume_of(rods()), WINDOW)
    assert len(shown) == 8
    assert sorted(set(shown[3].flat)) == [0, 229]


@pytest.mark.parametrize(
    ("placed", "code"),
    [
        ([], "prompt-empty"),
        ([VolumePrompt(8, FIRST, 1)], "prompt-outside"),
        ([VolumePrompt(-1, FIRST, 1)], "prompt-outside"),
        ([VolumePrompt(1, FIRST, 0)], "prompt-label"),
        ([VolumePrompt(1, FIRST, 65536)], "prompt-label"),
        ([VolumePrompt(1, FIRST, 1), VolumePrompt(1, SlicePrompt(), 1)], "prompt-empty"),
    ],
)
def test_what_can_not_be_asked_is_refused_before_anything_is_computed(
    placed: list[VolumePrompt], code: str, tmp_path: Path
) -> None:
    networks, volume = BrightInBox(), volume_of(rods())
    with pytest.raises(PromptRefused) as refusal:
        segment_volume(volume, placed, bright_predictor(networks, tmp_path), Shown(volume, WINDOW))
    assert refusal.value.code == code
    assert networks.encoded == 0
