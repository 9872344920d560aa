"""A generalist's encoder and decoder on the real Triton: several prompts and points in one request, no batch axis."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.serving.triton import EmbeddedTriton
from operators.errors import InferenceFailed
from operators.model_folder import file_digest, weights_files
from operators.sam.contract import Contract
from operators.sam.embeddings import EmbeddingCache
from operators.sam.network import check_served, open_networks
from operators.sam.package import GeneralistPackage
from operators.sam.predictor import SlicePredictor, Tensors
from operators.sam.prompts import Box, Point, SlicePrompt
from operators.shared_memory import REGION_PREFIX, SHARED_MEMORY_FOLDER
from operators.triton import PROBE_MODEL
from tests.sam_fixture import SIDE, contract_content
from tests.triton_fixture import MODEL_REPOSITORY, REPOSITORY_ROOT, running_triton

FIXTURES = REPOSITORY_ROOT / "tests" / "fixtures" / "sam"
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> GeneralistPackage:
    """The fixture's two networks as one generalist."""
    repository = tmp_path_factory.mktemp("repository")
    (repository / PROBE_MODEL).symlink_to(MODEL_REPOSITORY / PROBE_MODEL)
    networks = {}
    for part, model in (("encoder", "limner_sam"), ("decoder", "limner_sam_decoder")):
        folder = repository / model
        folder.mkdir()
        for name in ("config.pbtxt", "1"):
            (folder / name).symlink_to(FIXTURES / model / name)
        networks[part] = {"model": model, "weights_sha256": file_digest(*weights_files(folder / "1"))}
    manifest = {"format": 1, "family": "sam", "variant": "toy", "contract": contract_content(), "networks": networks}
    (repository / "limner_sam" / "manifest.json").write_text(json.dumps(manifest))
    (repository / "limner_sam" / "model_card.md").write_text("---\nversion: 1.0.0\nalgorithm_name: Toy\n---\n")
    return GeneralistPackage.load(repository / "limner_sam")


@pytest.fixture(scope="module")
def server(package: GeneralistPackage) -> Iterator[EmbeddedTriton]:
    with running_triton(package.folder.parent) as triton:
        yield triton


def drawn(count: int, points: int) -> Tensors:
    generator = np.random.default_rng(count * 10 + points)
    return {
        "image_embeddings": generator.random((1, 3, SIDE // 4, SIDE // 4), np.float32),
        "point_coords": generator.random((count, points, 2), np.float32) * SIDE,
        "point_labels": generator.integers(0, 4, (count, points)).astype(np.float32),
        "mask_input": generator.random((count, 1, SIDE, SIDE), np.float32),
        "has_mask_input": (np.arange(count) % 2).astype(np.float32),
    }


def decoded(request: Tensors) -> tuple[np.ndarray, np.ndarray]:
    """What the fixture's decoder does."""
    factors = np.arange(1, 5, dtype=np.float32)
    large = request["image_embeddings"].mean(axis=1, keepdims=True).repeat(4, axis=2).repeat(4, axis=3)
    shift = request["point_coords"].sum(axis=(1, 2))[:, None, None, None]
    former = request["mask_input"] * request["has_mask_input"][:, None, None, None]
    masks = large * factors[None, :, None, None] + shift + former
    return masks, request["point_labels"].sum(axis=1, keepdims=True) * factors


@pytest.mark.parametrize("shared_memory", [True, False])
def test_any_number_of_prompts_and_points(
    server: EmbeddedTriton, package: GeneralistPackage, shared_memory: bool
) -> None:
    with open_networks(
        package, server.target, deadline_seconds=PATIENCE_SECONDS, shared_memory=shared_memory
    ) as networks:
        for count, points in ((1, 1), (3, 2), (2, 7), (16, 2), (1, 64)):
            request = drawn(count, points)
            answer = networks.decode(request)
            masks, quality = decoded(request)
            np.testing.assert_allclose(answer["masks"], masks, rtol=1e-6, atol=1e-5)
            np.testing.assert_allclose(answer["iou_predictions"], quality, rtol=1e-6, atol=1e-5)


def test_a_predictor_over_triton(server: EmbeddedTriton, package: GeneralistPackage, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    box, point = SlicePrompt(box=Box(8, 8, 40, 40)), SlicePrompt(points=(Point(20, 30),))
    with open_networks(package, server.target, deadline_seconds=PATIENCE_SECONDS, shared_memory=True) as networks:
        predictor = SlicePredictor(
            package.contract,
            networks.encode,
            networks.decode,
            EmbeddingCache(tmp_path, most_bytes=1 << 20),
            encoder_digest=package.parts["encoder"].weights_digest,
        )
        boxed, pointed = predictor.predict(image, [box, point])
        again, _ = predictor.predict(image, [SlicePrompt(box.box, (), boxed.logits[0]), point], several=True)
    blocks = (image.astype(np.float32) / 255).reshape(16, 4, 16, 4).mean(axis=(1, 3)).repeat(4, 0).repeat(4, 1)
    np.testing.assert_allclose(boxed.logits[0], blocks + 96, rtol=0, atol=1e-4)
    np.testing.assert_allclose(pointed.logits[0], blocks + 50, rtol=0, atol=1e-4)  # with the padding point
    np.testing.assert_allclose(again.logits[2], 4 * blocks + 96 + boxed.logits[0], rtol=0, atol=1e-4)


def test_a_mask_alone_brings_no_points(server: EmbeddedTriton, package: GeneralistPackage) -> None:
    with open_networks(package, server.target, deadline_seconds=PATIENCE_SECONDS, shared_memory=True) as networks:
        request = drawn(2, 0)
        np.testing.assert_allclose(networks.decode(request)["masks"], decoded(request)[0], rtol=0, atol=1e-4)
        assert list(SHARED_MEMORY_FOLDER.glob(f"{REGION_PREFIX}{os.getpid()}_*")), (
            "an empty tensor is no reason to leave shared memory"
        )


def test_what_is_served_must_be_what_the_contract_says(server: EmbeddedTriton, package: GeneralistPackage) -> None:
    check_served(package, server.target, deadline_seconds=PATIENCE_SECONDS)

    def other(contract: Contract) -> GeneralistPackage:
        return replace(package, contract=contract)

    said = package.contract
    swapped = replace(package, parts={"encoder": package.parts["decoder"], "decoder": package.parts["encoder"]})
    for wrong in (
        other(replace(said, image=replace(said.image, size=128))),
        other(replace(said, logits=replace(said.logits, size=128))),
        other(replace(said, family="sam2")),
        swapped,
    ):
        with pytest.raises(InferenceFailed) as failure:
            check_served(wrong, server.target, deadline_seconds=PATIENCE_SECONDS)
        assert failure.value.code == "model-mismatch"
