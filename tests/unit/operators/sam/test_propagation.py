from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from operators.errors import PromptRefused
from operators.sam.prompts import Box, Point, SlicePrompt
from operators.sam.propagation import middle_slice, next_box, propagate
from tests.sam_fixture import SIDE, BrightInBox, bright_predictor, contract

START, FIRST, LAST, COUNT = 9, 4, 15, 20


def leaning_rod(gaps: tuple[int, ...] = ()) -> NDArray[np.uint8]:
    """A bright square of 12 that moves by a pixel from slice to slice, on slices `FIRST` to `LAST`; noise beside it."""
    images = np.zeros((COUNT, SIDE, SIDE), np.uint8)
    images[:, 50:55, 50:55] = 220
    for index in range(FIRST, LAST + 1):
        if index not in gaps:
            images[index, 10 + index : 22 + index, 8 + index : 20 + index] = 220
    return images


ROD = leaning_rod()
BOX = SlicePrompt(Box(15, 17, 31, 33))  # around it on slice 9
PIXELS = 12 * 12


def followed(tmp_path: Path, images: NDArray[np.uint8], prompt: SlicePrompt = BOX, **arguments: Any) -> dict[int, int]:
    """The pixels found, by slice, in the order in which slices came."""
    predictor = bright_predictor(BrightInBox(), tmp_path, prompts={"rounding": "floor"})
    return {index: int(found.mask.sum()) for index, found in propagate(predictor, images, START, prompt, **arguments)}


def test_a_structure_is_followed_up_then_down_until_it_ends(tmp_path: Path) -> None:
    found = followed(tmp_path, ROD)
    assert list(found) == [*range(START, LAST + 2), *range(START - 1, FIRST - 2, -1)]
    assert {index for index, pixels in found.items() if pixels == PIXELS} == set(range(FIRST, LAST + 1))
    assert (found[LAST + 1], found[FIRST - 1]) == (0, 0)


def test_a_range_is_gone_through_to_its_end(tmp_path: Path) -> None:
    found = followed(tmp_path, ROD, slices=(7, 99))
    assert list(found) == [*range(START, COUNT), 8, 7]


def test_within_a_range_the_first_box_is_shown_again_after_a_gap(tmp_path: Path) -> None:
    images = leaning_rod(gaps=(10,))
    assert list(followed(tmp_path, images)) == [9, 10, *range(8, FIRST - 2, -1)]
    found = followed(tmp_path, images, slices=(9, 13))
    assert found[10] == 0
    # slice 11's rod lies within the box of slice 9, slice 13's box comes from slice 12's mask
    assert (found[11], found[12], found[13]) == (PIXELS, PIXELS, PIXELS)


def test_points_begin_and_boxes_follow(tmp_path: Path) -> None:
    found = followed(tmp_path, ROD, SlicePrompt(points=(Point(23, 25),)))
    assert {index for index, pixels in found.items() if pixels == PIXELS} == set(range(FIRST, LAST + 1))


def test_nothing_found_and_no_box_ends_a_range_too(tmp_path: Path) -> None:
    assert list(followed(tmp_path, ROD, SlicePrompt(points=(Point(5, 55),)), slices=(5, 12))) == [START]


def test_progress_and_what_is_not_asked_for_is_not_computed(tmp_path: Path) -> None:
    networks = BrightInBox()
    predictor = bright_predictor(networks, tmp_path)
    reports: list[tuple[int, int]] = []
    with closing(
        propagate(predictor, ROD, START, BOX, slices=(5, 12), progress=lambda *report: reports.append(report))
    ) as steps:
        assert [next(steps)[0] for _ in range(3)] == [9, 10, 11]
    assert reports == [(1, 8), (2, 8), (3, 8)]
    assert networks.encoded == 3


def test_the_next_box_is_three_of_256_larger_and_within_the_frame() -> None:
    frame = contract(image={"size": 256}, prompts={"size": 256})
    mask = np.zeros((512, 512), bool)
    mask[100:120, 40:80] = True
    found = next_box(mask, frame)
    assert found is not None
    assert found.tolist() == [17, 47, 42, 62]
    mask[:2, 500:] = True
    found = next_box(mask, frame)
    assert found is not None
    assert found.tolist() == [17, 0, 256, 62]
    assert next_box(np.zeros((512, 512), bool), frame) is None


def test_what_vanishes_in_the_frame_is_nothing() -> None:
    mask = np.zeros((512, 512), bool)
    mask[100, 100] = True  # one of four pixels: OpenCV's mean of it is 0
    assert next_box(mask, contract(image={"size": 256}, prompts={"size": 256})) is None


@pytest.mark.parametrize(("first", "last", "middle"), [(4, 13, 8), (0, 1, 0), (3, 5, 4)])
def test_the_middle_is_the_scripts(first: int, last: int, middle: int) -> None:
    assert middle_slice(first, last) == middle


@pytest.mark.parametrize(
    ("start", "slices", "kinds", "code"),
    [
        (COUNT, None, ["box"], "prompt-outside"),
        (-1, None, ["box"], "prompt-outside"),
        (5, (6, 9), ["box"], "prompt-outside"),
        (5, None, ["points"], "prompt-kind-unsupported"),
    ],
)
def test_what_can_not_be_followed_is_refused(
    start: int, slices: tuple[int, int] | None, kinds: list[str], code: str, tmp_path: Path
) -> None:
    predictor = bright_predictor(BrightInBox(), tmp_path, prompts={"kinds": kinds})
    with pytest.raises(PromptRefused) as refusal:
        next(propagate(predictor, ROD, start, BOX, slices=slices))
    assert refusal.value.code == code
