"""SAM 2 imported by the command and followed over a real Triton, against what the reference implementation found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.serving.triton import EmbeddedTriton
from operators.errors import InferenceFailed, ModelPackageError
from operators.sam.embeddings import EmbeddingCache
from operators.sam.following import follow_structure
from operators.sam.frames import on_image
from operators.sam.memory import Features, ShownPoints, follow
from operators.sam.network import open_networks, served_predictor
from operators.sam.package import ENCODER, GeneralistPackage
from operators.sam.prompts import Box, SlicePrompt
from operators.triton import PROBE_MODEL
from tests.exporter_fixture import REPOSITORY_ROOT, exporter_python
from tests.triton_fixture import MODEL_REPOSITORY, running_triton, triton_python


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint, imported; a series, and the reference's answer."""
    folder = tmp_path_factory.mktemp("sam2")
    subprocess.run(
        [exporter_python(), "-W", "ignore", REPOSITORY_ROOT / "tests/fixtures/sam2/untrained.py", folder],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    triton_python()
    (folder / "limner.toml").write_text('model_repository = "repository"\n')
    wanted: list[str | Path] = ["import", "sam", folder / "tiny.pt", "--variant", folder / "tiny.json"]
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "models", *wanted, "--settings", folder / "limner.toml", "--threads", "1"],
        cwd=REPOSITORY_ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shutil.copytree(MODEL_REPOSITORY / PROBE_MODEL, folder / "repository" / PROBE_MODEL)
    return folder


@pytest.fixture(scope="module")
def server(made: Path) -> Iterator[EmbeddedTriton]:
    """A Triton that serves it."""
    with running_triton(made / "repository") as triton:
        yield triton


def test_every_part_is_judged_as_exported_and_as_served(made: Path) -> None:
    package = GeneralistPackage.load(made / "repository/tiny")
    assert {part: one.model for part, one in package.parts.items()} == {
        "encoder": "tiny",
        "decoder": "tiny_decoder",
        "memory_encoder": "tiny_memory_encoder",
        "memory_attention": "tiny_memory_attention",
    }
    parity = json.loads((package.folder / "manifest.json").read_text(encoding="utf-8"))["parity"]["networks"]
    assert {model: len(figures["served"]) for model, figures in parity.items()} == {
        "tiny": 1, "tiny_decoder": 4, "tiny_memory_encoder": 4, "tiny_memory_attention": 3,
    }  # fmt: skip
    for figures in parity.values():
        assert all(one["relative_error"] < 1e-4 for how in ("onnxruntime", "served") for one in figures[how])


def test_an_object_is_followed_as_by_the_reference(made: Path, server: EmbeddedTriton) -> None:
    package = GeneralistPackage.load(made / "repository/tiny")
    with (
        np.load(made / "series.npz") as series,
        open_networks(package, server.target, deadline_seconds=60.0, shared_memory=True) as networks,
    ):
        images, expected = series["images"], series["logits"]
        infer = networks.infer

        def features_of(index: int) -> Features:
            return infer(ENCODER, {"image": images[index : index + 1]})

        shown = {4: ShownPoints(series["coordinates"], series["labels"])}
        found = dict(follow(infer, package.contract, len(images), features_of, [shown]))
        assert sorted(found) == list(range(len(images)))
        for index, answers in found.items():
            assert np.abs(answers[0].logits - expected[index]).max() <= 1e-4 * np.abs(expected[index]).max()
            assert answers[0].presence == pytest.approx(float(series["presence"][index]), abs=1e-3)


def test_slices_and_masks_of_a_series_are_the_references(made: Path, server: EmbeddedTriton, tmp_path: Path) -> None:
    """The whole way of a structure: from slices of 8 bits and a box in their pixels to masks on them."""
    package = GeneralistPackage.load(made / "repository/tiny")
    with (
        np.load(made / "series.npz") as series,
        open_networks(package, server.target, deadline_seconds=60.0, shared_memory=True) as networks,
    ):
        slices, expected = series["slices"], series["logits"]
        predictor = served_predictor(package, networks, EmbeddingCache(tmp_path, most_bytes=1 << 30))
        prompt = SlicePrompt(box=Box(40, 20, 80, 60))
        steps = follow_structure(predictor, slices, 4, prompt, slices=(0, len(slices) - 1))
        found = dict(steps)
    assert sorted(found) == list(range(len(slices)))
    for index, prediction in found.items():
        assert np.abs(prediction.logits[0] - expected[index]).max() <= 1e-4 * np.abs(expected[index]).max()
        rows, columns = slices[index].shape
        mask = on_image(expected[index][None], rows, columns, package.contract)[0] > 0
        assert np.count_nonzero(prediction.mask != mask) <= mask.size / 10_000


def test_parts_of_two_networks_are_refused(made: Path, server: EmbeddedTriton) -> None:
    package = GeneralistPackage.load(made / "repository/tiny")
    wrong = {**package.parts, "memory_encoder": package.parts[ENCODER]}
    mixed = GeneralistPackage(**{**vars(package), "parts": wrong})
    with (
        pytest.raises(InferenceFailed, match="expected input image_embeddings to be") as caught,
        open_networks(mixed, server.target, deadline_seconds=60.0, shared_memory=True),
    ):
        pass
    assert caught.value.code == "model-mismatch"


def test_a_package_whose_memory_has_no_networks_is_refused(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "repository", tmp_path / "repository")
    path = tmp_path / "repository/tiny/manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["networks"]["memory_attention"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ModelPackageError, match="lack those that remember") as caught:
        GeneralistPackage.load(path.parent)
    assert caught.value.code == "file-unreadable"
