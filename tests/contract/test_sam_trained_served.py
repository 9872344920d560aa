"""A trained checkpoint of the SAM family, imported by the command: what Triton then serves finds structures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from operators.sam.embeddings import EmbeddingCache
from operators.sam.network import open_networks, served_predictor
from operators.sam.package import GeneralistPackage
from operators.sam.predictor import SlicePredictor
from operators.triton import PROBE_MODEL
from tests.exporter_fixture import REPOSITORY_ROOT, exporter_python
from tests.fixtures.sam.phantoms import BOUND, HELD_OUT, KINDS, draw_phantom, overlap, shown
from tests.triton_fixture import MODEL_REPOSITORY, running_triton, triton_python

FIXTURES = REPOSITORY_ROOT / "tests/fixtures/sam"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> GeneralistPackage:
    exporter_python()
    triton_python()
    folder = tmp_path_factory.mktemp("trained")
    (folder / "limner.toml").write_text('model_repository = "repository"\n')
    wanted = ("import", "sam", FIXTURES / "trained.pth", "--variant", FIXTURES / "trained.json", "--threads", "1")
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "models", *wanted, "--settings", folder / "limner.toml"],
        cwd=REPOSITORY_ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shutil.copytree(MODEL_REPOSITORY / PROBE_MODEL, folder / "repository" / PROBE_MODEL)
    return GeneralistPackage.load(folder / "repository/trained")


@pytest.fixture(scope="module")
def predictor(package: GeneralistPackage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlicePredictor]:
    cache = EmbeddingCache(tmp_path_factory.mktemp("embeddings"), most_bytes=1 << 28)
    with (
        running_triton(package.folder.parent) as triton,
        open_networks(package, triton.target, deadline_seconds=60.0, shared_memory=True) as networks,
    ):
        yield served_predictor(package, networks, cache)


def test_the_gate_compared_masks_that_agree(package: GeneralistPackage) -> None:
    parity = json.loads((package.folder / "manifest.json").read_text(encoding="utf-8"))["parity"]["networks"]
    for model in ("trained", "trained_decoder"):
        assert all(one["relative_error"] < 1e-4 for how in ("onnxruntime", "served") for one in parity[model][how])
    assert all(one["agreement"] > 0.9999 for one in parity["trained_decoder"]["served"])


@pytest.mark.parametrize("kind", KINDS)
def test_structures_of_phantoms_are_found(kind: str, predictor: SlicePredictor) -> None:
    overlaps = []
    for number in range(10):
        phantom = draw_phantom(HELD_OUT + number)
        prompts = [shown(structure, kind) for structure in phantom.structures]
        found = predictor.predict(phantom.image, prompts)
        overlaps += [overlap(one.mask, structure) for one, structure in zip(found, phantom.structures, strict=True)]
    assert np.mean(overlaps) > BOUND
