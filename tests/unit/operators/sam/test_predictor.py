from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.errors import InferenceFailed, PromptRefused
from operators.sam.predictor import MOST_AT_ONCE, SlicePredictor, Tensors
from operators.sam.prompts import Box, Point, SlicePrompt
from tests.sam_fixture import SIDE, BrightInBox, bright_predictor

IMAGE = np.zeros((SIDE, SIDE), np.uint8)
IMAGE[10:30, 20:50] = 200
BOX, POINT = SlicePrompt(Box(5, 5, 60, 40)), SlicePrompt(points=(Point(30, 20),))
TWO_POINTS = SlicePrompt(points=(Point(30, 20), Point(5, 5, is_foreground=False)))


def test_prompts_are_answered_in_their_order_with_one_pass_of_the_encoder(tmp_path: Path) -> None:
    networks = BrightInBox()
    predictor = bright_predictor(networks, tmp_path)
    found = predictor.predict(IMAGE, [POINT, BOX, TWO_POINTS])
    assert (found[1].mask == (IMAGE > 127)).all()
    assert [one.mask.sum() for one in found] == [13 * 13, 600, 13 * 13]
    assert networks.encoded == 1
    predictor.predict(IMAGE, [BOX])
    assert networks.encoded == 1, "a second prompt must not pay for the encoder"
    predictor.predict(IMAGE + np.uint8(1), [BOX])
    assert networks.encoded == 2


def test_only_prompts_of_one_length_share_a_request_and_none_is_filled_up(tmp_path: Path) -> None:
    networks = BrightInBox()
    bright_predictor(networks, tmp_path).predict(IMAGE, [BOX, POINT, TWO_POINTS, BOX])
    shapes = [request["point_labels"].tolist() for request in networks.requests]
    assert shapes == [[[2, 3], [1, -1], [2, 3]], [[1, 0, -1]]]


def test_many_prompts_go_in_several_requests(tmp_path: Path) -> None:
    networks = BrightInBox()
    found = bright_predictor(networks, tmp_path).predict(IMAGE, [BOX] * (MOST_AT_ONCE + 3))
    assert [len(request["point_labels"]) for request in networks.requests] == [MOST_AT_ONCE, 3]
    assert len(found) == MOST_AT_ONCE + 3


def test_one_mask_or_three(tmp_path: Path) -> None:
    predictor = bright_predictor(BrightInBox(), tmp_path)
    (one,), (three,) = predictor.predict(IMAGE, [BOX]), predictor.predict(IMAGE, [BOX], several=True)
    assert (one.masks.shape, one.iou.tolist()) == ((1, SIDE, SIDE), [0])
    assert (three.masks.shape, three.logits.shape) == ((3, SIDE, SIDE), (3, SIDE, SIDE))
    assert three.iou.tolist() == [0.25, 0.5, 0.75]
    assert (three.mask == three.masks[2]).all()


def test_three_masks_of_a_model_that_has_one_are_refused(tmp_path: Path) -> None:
    networks = BrightInBox()
    predictor = bright_predictor(networks, tmp_path, logits={"several": False})
    with pytest.raises(PromptRefused) as refusal:
        predictor.predict(IMAGE, [BOX], several=True)
    assert refusal.value.code == "several-unsupported"
    assert networks.encoded == 0


def test_a_former_answer_is_shown_beside_prompts_without_one(tmp_path: Path) -> None:
    networks = BrightInBox()
    predictor = bright_predictor(networks, tmp_path)
    (first,) = predictor.predict(IMAGE, [BOX])
    predictor.predict(IMAGE, [BOX, SlicePrompt(BOX.box, (), first.logits[0])])
    request = networks.requests[-1]
    assert request["has_mask_input"].tolist() == [0, 1]
    assert (request["mask_input"][0] == 0).all()
    assert (request["mask_input"][1, 0] == first.logits[0]).all()


def fixed(logits: list[float], quality: list[float]) -> Any:
    """A decoder whose four masks each have one value in the upper half, and its negative below."""
    half = np.where(np.arange(SIDE) < SIDE // 2, 1, -1)[None, :, None].repeat(SIDE, axis=2)
    masks = np.array(logits)[:, None, None] * half
    return lambda _: {"masks": masks[None].astype(np.float32), "iou_predictions": np.array([quality], np.float32)}


@pytest.mark.parametrize(
    ("single", "first", "expected"),
    [("first", 0.01, 0), ("stable", 0.01, 3), ("stable", 5.0, 0), ("stable", -5.0, 0)],
)
def test_sam_2_takes_the_best_of_three_where_the_first_wavers(
    single: str, first: float, expected: int, tmp_path: Path
) -> None:
    predictor = bright_predictor(BrightInBox(), tmp_path, logits={"single": single})
    predictor._decode = fixed([first, 2.0, 3.0, 4.0], [0.9, 0.1, 0.2, 0.3])
    (found,) = predictor.predict(IMAGE, [BOX])
    assert found.logits[0, 0, 0] == pytest.approx([first, 2.0, 3.0, 4.0][expected])
    assert found.iou[0] == pytest.approx([0.9, 0.1, 0.2, 0.3][expected])


def test_sam_2s_decoder_gets_the_finer_features_and_its_logits_are_bound(tmp_path: Path) -> None:
    networks = BrightInBox()
    finer = {"high_res_0": np.ones((1, 2, 64, 64), np.float32), "high_res_1": np.ones((1, 4, 32, 32), np.float32)}
    asked: list[Tensors] = []
    answer = fixed([80.0, 1, 1, 1], [1, 0, 0, 0])
    predictor = bright_predictor(networks, tmp_path, family="sam2")
    predictor._encode = lambda image: {**networks.encode(image), **finer}

    def decode(request: Tensors) -> Tensors:
        asked.append(request)
        return answer(request)  # type: ignore[no-any-return]

    predictor._decode = decode
    for _ in range(2):  # the second time from the cache
        (found,) = predictor.predict(IMAGE, [BOX])
        assert (found.logits.min(), found.logits.max()) == (-32, 32)
        for name, values in finer.items():
            assert (asked[-1][name] == values).all()
    assert networks.encoded == 1


def test_an_answer_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    predictor: SlicePredictor = bright_predictor(BrightInBox(), tmp_path)
    predictor._decode = fixed([np.nan, 1, 1, 1], [1, 0, 0, 0])
    with pytest.raises(InferenceFailed) as failure:
        predictor.predict(IMAGE, [BOX])
    assert failure.value.code == "logits-not-finite"


def test_no_prompts_ask_nothing(tmp_path: Path) -> None:
    networks = BrightInBox()
    assert bright_predictor(networks, tmp_path).predict(IMAGE, []) == []
    assert networks.encoded == 0
