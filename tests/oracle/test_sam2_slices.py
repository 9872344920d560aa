"""Our predictor gives what SAM 2's own predictor of single images gives, on the exported graphs of the same network.

Everything between a slice and its masks is compared: how the image comes into the square, which tokens a prompt becomes
and in which order, which mask is taken where one is asked for, and within what bound its logits are handed on.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from operators.sam.embeddings import EmbeddingCache
from operators.sam.package import DECODER
from operators.sam.predictor import SlicePrediction, SlicePredictor
from operators.sam.prompts import Box, Point, SlicePrompt
from tests.oracle.sam2_reference import TINY_ENCODER, Ours, image_predictor, untrained, variant
from tests.oracle.sam_reference import asked_of_sam, coloured, drawn_slice

Shape = tuple[int, int]

BOX = Box(30, 20, 90, 70.5)
POINT = (Point(60, 42.25),)
POINTS = (Point(60, 42.25), Point(35, 30), Point(10, 70, is_foreground=False))
PROMPTS = {
    "box": SlicePrompt(box=BOX),
    "point": SlicePrompt(points=POINT),
    "points": SlicePrompt(points=POINTS),
    "points and box": SlicePrompt(box=BOX, points=POINTS),
}
ASPECTS = [(90, 120), (160, 100), (110, 110)]
NEAR = 1e-4
BOUND = 32
"""Within which the reference hands logits on."""
SHARPENED = {"wavering": 1.0, "sharp": 4.0}
"""By what an untrained network's logits are multiplied, so that some leave `BOUND` and the first mask is taken."""


class Pair(NamedTuple):
    """One network behind both predictors."""

    reference: Any
    ours: SlicePredictor
    is_sharp: bool

    def see(self, shape: Shape) -> NDArray[np.uint8]:
        """Show the reference a slice, and return it."""
        image = drawn_slice(*shape)
        self.reference.set_image(coloured(image))
        return image

    def check(self, image: NDArray[np.uint8], prompt: SlicePrompt, *, several: bool = False) -> SlicePrediction:
        """Compare what both find on the slice that the reference has seen; return it."""
        (found,) = self.ours.predict(image, [prompt], several=several)
        on_image, iou, logits = asked_of_sam(self.reference, prompt, several=several)
        np.testing.assert_allclose(found.logits, logits, rtol=0, atol=NEAR)
        np.testing.assert_allclose(found.iou, iou, rtol=0, atol=NEAR)
        # a logit that is zero but for rounding may fall on either side
        np.testing.assert_array_equal(found.masks | (abs(on_image) <= NEAR), (on_image > 0) | (abs(on_image) <= NEAR))
        assert 0 < found.masks.mean() < 1, "a mask that shows nothing proves nothing"
        return found


@pytest.fixture(scope="module", params=SHARPENED)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    content = variant("sam2.1_hiera_t", TINY_ENCODER)
    network = untrained(content["architecture"], 4)
    with torch.no_grad():
        for weights in network.sam_mask_decoder.output_hypernetworks_mlps:
            weights.layers[-1].weight.mul_(SHARPENED[request.param])
            weights.layers[-1].bias.mul_(SHARPENED[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    graphs = Ours.of(network, content, folder / "graphs")
    ours = SlicePredictor(
        graphs.contract,
        lambda image: graphs.encode(image[0]),
        partial(graphs.infer, DECODER),
        EmbeddingCache(folder / "embeddings", most_bytes=1 << 28),
        encoder_digest="0" * 64,
    )
    return Pair(image_predictor(network), ours, request.param == "sharp")


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("shape", ASPECTS)
def test_sam2(pair: Pair, shape: Shape, kind: str, several: bool) -> None:
    pair.check(pair.see(shape), PROMPTS[kind], several=several)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("kind", [*PROMPTS, "nothing else"])
@pytest.mark.parametrize("shape", ASPECTS)
def test_sam2_refines_its_former_answer(pair: Pair, shape: Shape, kind: str, several: bool) -> None:
    image, prompt = pair.see(shape), PROMPTS.get(kind, SlicePrompt())
    first = pair.check(image, PROMPTS["box"])
    found = pair.check(image, SlicePrompt(prompt.box, prompt.points, first.logits[0]), several=several)
    if kind in PROMPTS:
        without = pair.check(image, prompt, several=several)
        assert np.abs(found.logits - without.logits).max() > 100 * NEAR, "the former answer was not looked at"


def test_the_networks_show_both_choices_and_the_bound(pair: Pair) -> None:
    image, from_three, largest = pair.see(ASPECTS[0]), [], []
    for prompt in PROMPTS.values():
        one, three = pair.check(image, prompt), pair.check(image, prompt, several=True)
        from_three.append(any(np.array_equal(one.logits[0], logits) for logits in three.logits))
        largest.append(np.abs(three.logits).max())
    assert all(from_three) != pair.is_sharp, from_three
    assert (max(largest) == BOUND) == pair.is_sharp, largest


def test_many_prompts_on_one_slice_are_each_what_they_are_alone(pair: Pair) -> None:
    image = pair.see(ASPECTS[1])
    prompts = [*PROMPTS.values(), SlicePrompt(box=Box(5, 5, 50, 60)), SlicePrompt(points=(Point(9, 9),))]
    for prompt, found in zip(prompts, pair.ours.predict(image, prompts), strict=True):
        np.testing.assert_allclose(found.logits, pair.check(image, prompt).logits, rtol=0, atol=NEAR)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("image", {"resampling": "pillow-bicubic"}),
        ("prompts", {"padding": "without-box"}),
        ("prompts", {"rounding": "floor"}),
        ("logits", {"single": "first"}),
    ],
)
def test_the_comparison_sees_what_is_done_otherwise(pair: Pair, part: str, change: dict[str, Any]) -> None:
    contract = pair.ours.contract
    other = copy.copy(pair.ours)
    other.contract = replace(contract, **{part: replace(getattr(contract, part), **change)})
    image, seen = pair.see(ASPECTS[0]), 0
    for prompt in PROMPTS.values():
        try:
            pair._replace(ours=other).check(image, prompt)
        except AssertionError:
            seen += 1
    # a sharp network's first mask is the one that is taken anyway
    assert bool(seen) != (part == "logits" and pair.is_sharp)
