"""A generalist led by a specialist's labels: what it is shown, and who gets a voxel that two masks hold."""

from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray

from operators.errors import ModelPackageError
from operators.sam.guided import check_prompts, guided_labels
from operators.sam.package import GeneralistPackage
from operators.sam.prompts import SegmentPrompts
from operators.sam.volume import Shown
from operators.sam.windowing import Window
from tests.sam_fixture import SIDE, BrightInBox, bright_predictor, put_generalist

SHAPE = (4, SIDE, SIDE)


def volume(array: NDArray[np.generic]) -> highdicom.Volume:
    return highdicom.Volume(array, np.diag([2.0, 1.0, 1.0, 1.0]), "PATIENT", frame_of_reference_uid="1.2.3")


def bright(*boxes: tuple[slice, slice, slice], value: float = 100) -> highdicom.Volume:
    array = np.zeros(SHAPE, np.float32)
    for box in boxes:
        array[box] = value
    return volume(array)


def guided(
    labels: highdicom.Volume,
    image: highdicom.Volume,
    folder: Path,
    networks: BrightInBox,
    margin: float = 0.0,
    prompts: SegmentPrompts = "boxes",
) -> highdicom.Volume:
    seen: list[tuple[int, int]] = []
    found = guided_labels(
        labels,
        dict.fromkeys((1, 7), Shown(image, Window(50, 100))),
        bright_predictor(networks, folder),
        prompts=prompts,
        margin=margin,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    return found


def test_each_segment_on_each_slice_has_a_box_and_empty_slices_are_not_shown(tmp_path: Path) -> None:
    array = np.zeros(SHAPE, np.uint16)
    array[1, 10:20, 30:40] = 1
    array[1, 40:50, 5:15] = 7
    array[2, 12:18, 30:36] = 1
    array[3, 0:4, 0:4] = 3  # nothing that is looked for
    networks = BrightInBox()
    image = bright((slice(0, 2), slice(12, 19), slice(32, 64)), (slice(None), slice(44, 60), slice(0, 12)))
    image.array[2, 14, 32] = 100
    found = guided(volume(array), image, tmp_path, networks)
    assert networks.encoded == 2
    assert [len(request["point_labels"]) for request in networks.requests] == [2, 1]
    assert found.dtype == array.dtype
    assert found.geometry_equal(volume(array))
    inside = np.argwhere(found.array[1] == 1)  # what is bright within the box around the specialist's
    assert inside.min(axis=0).tolist() == [12, 32]
    assert inside[:, 0].max() == 18
    assert set(np.unique(found.array[1])) == {0, 1, 7}
    assert np.argwhere(found.array[2]).tolist() == [[14, 32]]
    assert not found.array[[0, 3]].any()


def test_a_margin_lets_the_generalist_find_more_than_the_specialist(tmp_path: Path) -> None:
    array = np.zeros(SHAPE, np.uint8)
    array[1, 20:30, 20:30] = 1
    image = bright((slice(None), slice(16, 40), slice(16, 40)))
    found = [
        np.argwhere(guided(volume(array), image, tmp_path / str(margin), BrightInBox(), margin).array[1])
        for margin in (0.0, 4.0)
    ]
    assert found[0].min(axis=0).tolist() == [20, 20]
    assert found[1].min(axis=0).tolist() == [16, 16]


@pytest.mark.parametrize(
    ("prompts", "labels"),
    [("boxes", [2, 3]), ("points", [1, 1, -1]), ("boxes-and-points", [1, 1, 2, 3])],
)
def test_a_segment_of_two_parts_is_one_prompt_with_a_point_on_each(
    prompts: SegmentPrompts, labels: list[int], tmp_path: Path
) -> None:
    array = np.zeros(SHAPE, np.uint8)
    array[1, 10:15, 10:15] = 1
    array[1, 40:51, 40:51] = 1
    networks = BrightInBox()
    found = guided(volume(array), bright((slice(None),) * 3), tmp_path, networks, prompts=prompts).array[1]
    (request,) = networks.requests
    assert request["point_labels"].tolist() == [labels]
    if prompts != "boxes":
        assert request["point_coords"][0, :2].tolist() == [[45.5, 45.5], [12.5, 12.5]]
    assert (found[array[1] == 1] == 1).all()
    assert bool(found[30, 30]) == (prompts != "points")  # between them: in the box around both, and at no point


def test_points_are_farthest_from_the_edge_in_millimetres_of_the_series(tmp_path: Path) -> None:
    array = np.zeros(SHAPE, np.uint8)
    array[1, 10:13, 10:21] = 1
    array[1, 13:24, 10:13] = 1  # an L, whose arms are of one width in pixels
    points = []
    for down, across in ((1.0, 3.0), (3.0, 1.0)):
        networks = BrightInBox()
        labels = highdicom.Volume(array, np.diag([2.0, down, across, 1.0]), "PATIENT", frame_of_reference_uid="1.2.3")
        guided(labels, bright((slice(None),) * 3), tmp_path / str(down), networks, prompts="points")
        points.append(networks.requests[0]["point_coords"][0, 0].tolist())
    upright, lying = points
    assert upright[1] > 12.5  # three columns are wider than three rows
    assert lying[0] > 12.5


@pytest.mark.parametrize(
    ("kinds", "prompts", "code", "advice"),
    [
        (["points"], "boxes", "box-unsupported", 'set prompts = "points", or'),
        (["box"], "points", "prompt-kind-unsupported", 'set prompts = "boxes", or'),
        (["box", "mask"], "boxes-and-points", "prompt-kind-unsupported", 'set prompts = "boxes", or'),
        (["mask"], "boxes", "box-unsupported", "shown by boxes; choose a model"),
    ],
)
def test_a_generalist_that_takes_no_such_prompts_is_refused_with_what_to_set(
    kinds: list[str], prompts: SegmentPrompts, code: str, advice: str, tmp_path: Path
) -> None:
    put_generalist(tmp_path, "sam", prompts={"kinds": kinds})
    with pytest.raises(ModelPackageError, match=advice) as raised:
        check_prompts(GeneralistPackage.load(tmp_path / "sam"), prompts)
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("kinds", "prompts"),
    [
        (["box"], "boxes"),
        (["points"], "points"),
        (["points", "box"], "boxes-and-points"),
        (["points", "box"], "points"),
    ],
)
def test_a_generalist_that_takes_them_is_not(kinds: list[str], prompts: SegmentPrompts, tmp_path: Path) -> None:
    put_generalist(tmp_path, "sam", prompts={"kinds": kinds})
    check_prompts(GeneralistPackage.load(tmp_path / "sam"), prompts)


class _SureOfTheSecond(BrightInBox):
    """Finds all within a box, and is the surer the smaller the box is."""

    def decode(self, request: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:  # type: ignore[override]
        answer = super().decode(request)
        masks = np.array(answer["masks"])
        for mask, coords in zip(masks, request["point_coords"], strict=True):
            mask[mask > 0] = 1000.0 / np.prod(coords[1] - coords[0])
        return {**answer, "masks": masks}


def test_where_masks_overlap_the_surer_one_has_the_voxel(tmp_path: Path) -> None:
    array = np.zeros(SHAPE, np.uint8)
    array[1, 10:50, 10:50] = 1
    array[1, 20:30, 20:30] = 7  # its box lies within the other's
    found = guided(volume(array), bright((slice(None),) * 3), tmp_path, _SureOfTheSecond())
    assert (found.array[1, 21:29, 21:29] == 7).all()
    assert (found.array[1, 12:18, 12:48] == 1).all()


def test_a_segment_is_shown_in_its_own_window_and_windows_alike_share_the_encoder(tmp_path: Path) -> None:
    array = np.zeros(SHAPE, np.uint8)
    array[1, 5:15, 5:15], array[1, 5:15, 40:50], array[1, 40:50, 5:15] = 1, 7, 9
    image = bright((slice(None), slice(0, SIDE), slice(0, 30)), value=40)
    image.array[:, :30, 30:] = 90
    dark, common = Shown(image, Window(20, 30)), Shown(image, Window(60, 110))
    networks = BrightInBox()
    found = guided_labels(
        volume(array),
        {1: dark, 7: common, 9: common},
        bright_predictor(networks, tmp_path),
        prompts="boxes",
        margin=0.0,
        progress=lambda done, total: None,
    ).array
    assert networks.encoded == 2
    assert [len(request["point_labels"]) for request in networks.requests] == [1, 2]
    assert (found[1, 6:14, 6:14] == 1).all()  # 40 is white in its window
    assert (found[1, 6:14, 41:49] == 7).all()
    assert not (found == 9).any()  # and dark in the common one


def test_nothing_found_by_the_specialist_asks_nothing_of_the_generalist(tmp_path: Path) -> None:
    networks = BrightInBox()
    found = guided(volume(np.zeros(SHAPE, np.uint8)), bright((slice(None),) * 3), tmp_path, networks)
    assert not found.array.any()
    assert networks.encoded == 0
