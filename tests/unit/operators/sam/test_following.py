"""A structure followed by what is remembered of it, with networks that a reader can follow by hand."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.errors import InferenceFailed, PromptRefused
from operators.sam.following import follow_structure, kept_parts
from operators.sam.predictor import Tensors
from operators.sam.prompts import Box, Point, SlicePrompt
from tests.sam_fixture import (
    MEMORY,
    SIDE,
    BrightBesideRemembered,
    BrightInBox,
    bright_predictor,
    contract,
    remembering_predictor,
)
from tests.unit.operators.sam.test_propagation import BOX, COUNT, FIRST, LAST, PIXELS, ROD, START, leaning_rod


def followed(folder: Path, prompt: SlicePrompt = BOX, images: Any = ROD, **arguments: Any) -> dict[int, int]:
    """The pixels found, by slice, in the order in which slices came."""
    predictor = remembering_predictor(BrightBesideRemembered(), folder)
    steps = follow_structure(predictor, images, START, prompt, **arguments)
    return {index: int(found.mask.sum()) for index, found in steps}


@pytest.mark.parametrize("prompt", [BOX, SlicePrompt(points=(Point(23, 25),))], ids=["box", "point"])
def test_a_structure_is_followed_up_then_down_until_it_ends(prompt: SlicePrompt, tmp_path: Path) -> None:
    found = followed(tmp_path, prompt)
    assert list(found) == [*range(START, LAST + 2), *range(START - 1, FIRST - 2, -1)]
    assert {index for index, pixels in found.items() if pixels == PIXELS} == set(range(FIRST, LAST + 1))
    assert (found[LAST + 1], found[FIRST - 1]) == (0, 0)


def test_a_variant_that_takes_no_boxes_follows_by_its_memory(tmp_path: Path) -> None:
    predictor = remembering_predictor(BrightBesideRemembered(), tmp_path, prompts={"kinds": ["points"]})
    with closing(follow_structure(predictor, ROD, START, SlicePrompt(points=(Point(23, 25),)))) as steps:
        assert {index for index, found in steps if found.mask.any()} == set(range(FIRST, LAST + 1))


def test_without_a_memory_boxes_lead(tmp_path: Path) -> None:
    networks = BrightInBox()
    with closing(follow_structure(bright_predictor(networks, tmp_path), ROD, START, BOX)) as steps:
        assert {index for index, found in steps if found.mask.any()} == set(range(FIRST, LAST + 1))
    assert all((request["point_labels"] == 2).any() for request in networks.requests)


def test_a_range_is_gone_through_to_its_end(tmp_path: Path) -> None:
    assert list(followed(tmp_path, slices=(7, 99))) == [*range(START, COUNT), 8, 7]


def test_within_a_range_a_gap_is_gone_through(tmp_path: Path) -> None:
    found = followed(tmp_path, images=leaning_rod(gaps=(10,)), slices=(9, 12))
    assert (found[9], found[10]) == (PIXELS, 0)
    assert found[11] > 0  # what was found before the gap is still remembered
    assert list(followed(tmp_path, images=leaning_rod(gaps=(10,)))) == [9, 10, *range(8, FIRST - 2, -1)]


def test_nothing_found_ends_the_way_at_once(tmp_path: Path) -> None:
    assert followed(tmp_path, SlicePrompt(points=(Point(5, 55),))) == {START: 0}


def test_a_refined_answer_is_followed_as_the_mask_that_it_is(tmp_path: Path) -> None:
    networks = BrightBesideRemembered()
    predictor = remembering_predictor(networks, tmp_path)
    (former,) = predictor.predict(ROD[START], [BOX])
    prompt = SlicePrompt(box=Box(15, 17, 31, 25), logits=former.logits[0])  # the rod's upper part
    with closing(follow_structure(predictor, ROD, START, prompt)) as steps:
        found = dict(steps)
    (expected,) = predictor.predict(ROD[START], [prompt])
    assert 0 < expected.mask.sum() < PIXELS
    np.testing.assert_array_equal(found[START].mask, expected.mask)
    assert networks.requests[2]["has_mask_input"].tolist() == [1]
    assert found[START + 1].mask.any()


def test_a_refined_answer_with_nothing_in_it_ends_the_way_at_once(tmp_path: Path) -> None:
    logits = np.full((SIDE, SIDE), -5, np.float32)
    assert followed(tmp_path, SlicePrompt(points=(Point(5, 55),), logits=logits)) == {START: 0}


def test_progress_and_what_is_not_asked_for_is_not_computed(tmp_path: Path) -> None:
    networks = BrightBesideRemembered()
    predictor = remembering_predictor(networks, tmp_path)
    reports: list[tuple[int, int]] = []
    with closing(
        follow_structure(predictor, ROD, START, BOX, slices=(5, 12), progress=lambda *said: reports.append(said))
    ) as steps:
        assert [next(steps)[0] for _ in range(3)] == [9, 10, 11]
    assert reports == [(1, 8), (2, 8), (3, 8)]
    assert networks.encoded == 3


def test_slices_are_encoded_once(tmp_path: Path) -> None:
    networks = BrightBesideRemembered()
    predictor = remembering_predictor(networks, tmp_path)
    encoded = []
    for _ in range(2):
        with closing(follow_structure(predictor, ROD, START, BOX)) as steps:
            assert sum(1 for _ in steps) == LAST - FIRST + 3
        encoded.append(networks.encoded)
    assert encoded == [LAST - FIRST + 2] * 2  # both ends of the rod are the same empty slice


LARGEST = {**MEMORY, "components": "largest"}


def test_a_variant_keeps_all_of_a_structure_or_its_largest_component() -> None:
    masks = {index: np.zeros((4, 6), bool) for index in (5, 6, 4, 3)}  # as they come: up, then down
    masks[5][1:3, 1:3] = masks[4][2, 2] = True
    masks[6][:, 5] = True  # four voxels, apart from five
    everything = {index: mask.copy() for index, mask in masks.items()}
    for variant in (contract(), contract(memory=MEMORY)):
        assert kept_parts(masks, variant) is masks
    kept = kept_parts(masks, contract(memory=LARGEST))
    expected = {**everything, 6: np.zeros((4, 6), bool)}
    assert sorted(kept) == [3, 4, 5, 6]
    for index, mask in kept.items():
        np.testing.assert_array_equal(mask, expected[index])
        np.testing.assert_array_equal(masks[index], everything[index])


def test_of_a_structure_that_was_not_found_nothing_is_kept() -> None:
    nothing = {3: np.zeros((4, 6), bool)}
    assert not kept_parts(nothing, contract(memory=LARGEST))[3].any()


def test_on_a_slice_alone_the_way_ends_where_it_began(tmp_path: Path) -> None:
    predictors = {
        "memory": remembering_predictor(BrightBesideRemembered(), tmp_path / "memory"),
        "boxes": bright_predictor(BrightInBox(), tmp_path / "boxes"),
    }
    for predictor in predictors.values():
        with closing(follow_structure(predictor, ROD[START : START + 1], 0, BOX)) as steps:
            assert [(index, int(found.mask.sum())) for index, found in steps] == [(0, PIXELS)]


@pytest.mark.parametrize(("start", "slices"), [(COUNT, None), (-1, None), (5, (6, 9))])
def test_a_slice_outside_is_refused(start: int, slices: tuple[int, int] | None, tmp_path: Path) -> None:
    predictor = remembering_predictor(BrightBesideRemembered(), tmp_path)
    with pytest.raises(PromptRefused) as refusal:
        next(follow_structure(predictor, ROD, start, BOX, slices=slices))
    assert refusal.value.code == "prompt-outside"


def test_an_answer_without_numbers_fails(tmp_path: Path) -> None:
    class Broken(BrightBesideRemembered):
        def decoder(self, inputs: Tensors) -> Tensors:
            answer = super().decoder(inputs)
            return {**answer, "masks": np.full_like(answer["masks"], np.nan)}

    with pytest.raises(InferenceFailed) as failure:
        next(follow_structure(remembering_predictor(Broken(), tmp_path), ROD, START, BOX))
    assert failure.value.code == "logits-not-finite"
