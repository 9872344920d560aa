"""From a slice to a mask over exported graphs: what SAM's own predictor gives for the same weights, at every aspect."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from segment_anything import SamPredictor

from app.exporters.onnx_graphs import ask, open_session
from app.exporters.sam.graphs import write_decoder, write_encoder
from app.exporters.sam.networks import load_network
from app.exporters.sam.variants import Variant, read_variant
from operators.sam.embeddings import EmbeddingCache
from operators.sam.predictor import SlicePredictor
from operators.sam.prompts import Box, Point, SlicePrompt
from tests.fixtures.sam import trained, untrained
from tests.fixtures.sam.phantoms import BOUND, HELD_OUT, KINDS, Phantom, draw_phantom, overlap, shown
from tests.oracle.sam_reference import asked_of_sam, drawn_slice, reference_of

Shape = tuple[int, int]
References = Callable[[Shape], SamPredictor]

SHAPES = [(120, 200), (200, 120), (300, 300)]
POINTS = (Point(60, 42.25), Point(35, 30), Point(10, 70, is_foreground=False))
PROMPTS = {
    "box": SlicePrompt(box=Box(30, 20, 90, 70.5)),
    "point": SlicePrompt(points=POINTS[:1]),
    "points": SlicePrompt(points=POINTS),
    "points and box": SlicePrompt(box=Box(30, 20, 90, 70.5), points=POINTS),
}


@pytest.fixture(
    scope="module", params=[str(untrained.TINY), str(trained.VARIANT), "sam_vit_b"], ids=["tiny", "trained", "ViT-B"]
)
def variant(request: pytest.FixtureRequest) -> Variant:
    return read_variant(request.param)


@pytest.fixture(scope="module")
def network(variant: Variant) -> Any:
    if is_trained(variant):
        return load_network(variant, trained.WEIGHTS, None)
    return untrained.make(variant)


@pytest.fixture(scope="module")
def ours(variant: Variant, network: Any, tmp_path_factory: pytest.TempPathFactory) -> SlicePredictor:
    contract, folder = variant.contract, tmp_path_factory.mktemp("graphs")
    graphs = {part: folder / part / "model.onnx" for part in ("encoder", "decoder")}
    write_encoder(network, contract.image.size, graphs["encoder"])
    write_decoder(network, graphs["decoder"])
    encoder, decoder = (open_session(graph) for graph in graphs.values())
    cache = EmbeddingCache(folder / "cache", most_bytes=1 << 28)
    return SlicePredictor(
        contract, lambda image: ask(encoder, {"image": image}), partial(ask, decoder), cache, encoder_digest="0" * 64
    )


@pytest.fixture(scope="module")
def references(variant: Variant, network: Any) -> References:
    """The reference on each image, which is encoded once: ViT-B takes seconds."""
    return functools.cache(lambda shape: reference_of(network, asked_about(variant, shape, "box")[0]))


def is_trained(variant: Variant) -> bool:
    return variant.name == trained.VARIANT.stem


def phantom_of(shape: Shape) -> Phantom:
    return draw_phantom(HELD_OUT, shape)


def asked_about(variant: Variant, shape: Shape, kind: str) -> tuple[NDArray[np.uint8], SlicePrompt]:
    """A slice and a prompt: a structure of a phantom for the network that knows such, any place for drawn weights."""
    if is_trained(variant):
        phantom = phantom_of(shape)
        return phantom.image, shown(phantom.structures[0], kind)
    return drawn_slice(*shape), PROMPTS[kind]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.timeout(900)  # what ViT-B takes on busy cores
def test_a_mask_is_sams_own(
    shape: Shape, kind: str, several: bool, variant: Variant, references: References, ours: SlicePredictor
) -> None:
    image, prompt = asked_about(variant, shape, kind)
    reference = references(shape)
    first, *_ = ours.predict(image, [prompt], several=several)
    again = SlicePrompt(prompt.box, prompt.points, first.logits[0])
    (refined,) = ours.predict(image, [again], several=several)
    for found, asked in ((first, prompt), (refined, again)):
        on_image, iou, logits = asked_of_sam(reference, asked, several=several)
        assert np.abs(found.logits - logits).max() < 1e-4 * np.ptp(logits)
        assert np.abs(found.iou - iou).max() < 1e-3
        assert np.mean(found.masks == (on_image > 0)) > 0.9999
        assert np.ptp(found.logits) > 1, "a flat answer proves nothing"
        if is_trained(variant):  # with drawn weights it is chance whether any logit crosses the threshold
            assert overlap(found.mask, phantom_of(shape).structures[0]) > BOUND
