"""LiteMedSAM with its real weights, put together without torch and served by the embedded Triton."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.errors import ImportRefused
from app.exporters.checking import list_models
from app.exporters.sam.cases import BOX, BOXES, fixed_images, questions, tokens
from app.exporters.sam.served import asker
from app.exporters.sam.variants import read_variant
from app.settings import Settings
from lite_medsam import CACHE, FOLDER, MODEL, fetch, is_there, put
from operators.errors import ModelPackageError
from operators.sam.embeddings import EmbeddingCache
from operators.sam.network import open_networks
from operators.sam.package import DECODER, ENCODER, GeneralistPackage
from operators.sam.predictor import SlicePredictor
from operators.sam.prompts import Box, SlicePrompt
from tests.triton_fixture import MODEL_REPOSITORY, running_triton

PROBE = "limner_probe"
SAMPLE = (slice(None), slice(None), slice(7, None, 37), slice(11, None, 41))
"""Of the masks, as `skeleton.py` keeps them."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lite") / "models"
    shutil.copytree(MODEL_REPOSITORY / PROBE, folder / PROBE)
    put(fetch(CACHE), folder)
    return folder


@pytest.fixture(scope="module")
def target(repository: Path) -> Iterator[str]:
    with running_triton(repository) as triton:
        yield triton.target


def test_the_weights_are_those_that_the_manifest_names(repository: Path) -> None:
    package = GeneralistPackage.load(repository / MODEL)
    assert is_there(repository)
    assert package.contract == read_variant("lite_medsam").contract
    assert [(one.name, one.problem) for one in list_models(repository)] == [(MODEL, "")]


def test_both_networks_answer_as_torch_did(target: str, repository: Path) -> None:
    package, settings = GeneralistPackage.load(repository / MODEL), Settings()
    encoder, decoder = (asker(settings, target, package.parts[part].model) for part in (ENCODER, DECODER))
    images = fixed_images(package.contract)
    embeddings = {name: encoder({"image": image[None]}) for name, image in images.items()}
    expected = json.loads((FOLDER / "expected.json").read_text())
    side, together = package.contract.logits.size, {}
    for question in questions(package.contract):
        if question.kind not in (BOX, BOXES):
            continue
        coordinates, labels = tokens(question, package.contract.prompts)
        count = len(labels)
        answer = decoder(
            {
                **embeddings[question.image],
                "point_coords": coordinates,
                "point_labels": labels,
                "mask_input": np.zeros((count, 1, side, side), np.float32),
                "has_mask_input": np.zeros(count, np.float32),
            }
        )
        assert answer["masks"].shape == (count, 4, side, side)
        if question.kind == BOX:
            alone = answer["masks"]
            torch_said = expected[question.image]
            assert np.abs(alone[SAMPLE] - np.array(torch_said["masks"])).max() < 2e-3  # of a range of 30
            assert np.abs(answer["iou_predictions"] - np.array(torch_said["iou_predictions"])).max() < 1e-4
            together[question.image] = alone
        else:  # the first of three boxes is the one that was asked for alone
            assert np.abs(answer["masks"][:1] - together[question.image]).max() < 2e-3
    assert set(together) == set(expected) == set(images)


def test_a_box_around_a_bright_disc_finds_the_disc(target: str, repository: Path) -> None:
    """Real weights say something: what lies in the box, and not the box."""
    package, settings = GeneralistPackage.load(repository / MODEL), Settings()
    encoder, decoder = (asker(settings, target, package.parts[part].model) for part in (ENCODER, DECODER))
    rows, columns = np.ogrid[:256, :256]
    disc = (rows - 120) ** 2 + (columns - 140) ** 2 < 35**2
    image = np.where(disc, 0.75, 0.25) + 0.03 * np.random.default_rng(3).standard_normal((3, 256, 256))
    answer = decoder(
        {
            **encoder({"image": image[None].astype(np.float32)}),
            "point_coords": np.array([[[100, 80], [180, 160]]], np.float32),
            "point_labels": np.array([[2, 3]], np.float32),
            "mask_input": np.zeros((1, 1, 256, 256), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
        }
    )
    mask = answer["masks"][0, 0] > 0
    assert 2 * np.count_nonzero(mask & disc) / (mask.sum() + disc.sum()) > 0.95


def test_the_predictor_asks_it_as_it_is_served(target: str, repository: Path, tmp_path: Path) -> None:
    """The whole way of a slice: another size and aspect, a box in its pixels, a mask in its pixels."""
    package = GeneralistPackage.load(repository / MODEL)
    rows, columns = np.ogrid[:300, :400]
    disc = (rows - 180) ** 2 + (columns - 250) ** 2 < 60**2
    noise = 6 * np.random.default_rng(3).standard_normal((300, 400))
    image = (np.where(disc, 190, 64) + noise).clip(0, 255).astype(np.uint8)
    with open_networks(package, target, deadline_seconds=60, shared_memory=True) as networks:
        predictor = SlicePredictor(
            package.contract,
            networks.encode,
            networks.decode,
            EmbeddingCache(tmp_path / "embeddings", most_bytes=1 << 28),
            encoder_digest=package.parts[ENCODER].weights_digest,
        )
        (found,) = predictor.predict(image, [SlicePrompt(box=Box(185, 115, 315, 245))])
    assert found.mask.shape == disc.shape
    assert 2 * np.count_nonzero(found.mask & disc) / (found.mask.sum() + disc.sum()) > 0.95


def test_it_takes_the_place_of_a_broken_one_and_of_no_other(tmp_path: Path, repository: Path) -> None:
    folder = tmp_path / "models"
    shutil.copytree(repository, folder)
    (folder / MODEL / "1" / "model.onnx.data").unlink()
    with pytest.raises(ModelPackageError) as caught:
        GeneralistPackage.load(folder / MODEL)
    assert caught.value.code == "file-differs"
    assert not is_there(folder)
    put(fetch(CACHE), folder)
    assert is_there(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([PROBE, MODEL, f"{MODEL}_decoder"])
    assert [path.name for path in tmp_path.iterdir()] == ["models"]

    manifest = folder / MODEL / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "checkpoints": {"own.pth": "0" * 64}}))
    with pytest.raises(ImportRefused) as refused:
        put(fetch(CACHE), folder)
    assert refused.value.code == "model-exists"
