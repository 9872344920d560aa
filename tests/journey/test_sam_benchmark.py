"""The small form of `make bench-sam`: LiteMedSAM in torch beside Limner.

Speed is printed, never judged: the machine may be busy. Masks and memory are.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.sam.cases import QUICK
from benchmarks.sam.figures import MOST_DIFFERING
from benchmarks.sam.measure import LIMNER, TORCH
from tests.triton_fixture import REPOSITORY_ROOT

EXPORTER_PYTHON = REPOSITORY_ROOT / ".exporter" / "bin" / "python"
MOST_GROWTH_BYTES = 640 << 20
"""Half as much again as the layers of both networks were seen to take, however many slices and prompts there are."""
EMBEDDING_BYTES = 256 * 64 * 64 * 4
LOGITS_BYTES = 256 * 256 * 4


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    assert EXPORTER_PYTHON.exists(), "the exporter's environment is missing: `make exporter` makes it"
    output: Path = tmp_path_factory.mktemp("bench") / "figures.json"
    subprocess.run(
        [sys.executable, "-m", "benchmarks.sam", "--quick", "--output", output], cwd=REPOSITORY_ROOT, check=True
    )
    return dict(json.loads(output.read_text()))


@pytest.mark.timeout(600)
def test_masks_are_torchs_and_memory_is_bounded(found: dict[str, Any]) -> None:
    measured = found["measured"]
    assert measured["prompts"] == QUICK.slices * QUICK.prompts
    assert measured["shown"] > 0.01 * measured["pixels"], "masks that show nothing prove nothing"
    assert measured["differing"][LIMNER] <= MOST_DIFFERING * measured["pixels"]
    assert measured["one_core"]["first"][LIMNER]["growth"] < MOST_GROWTH_BYTES


def test_a_warm_prompt_asks_the_decoder_alone(found: dict[str, Any]) -> None:
    (run,) = found["measured"]["one_core"]["runs"][LIMNER]
    details = run["details"]
    assert details["calls"] == {"encoder": QUICK.slices, "decoder": QUICK.slices * QUICK.prompts}
    assert len(details["seconds"]["warm"]) == QUICK.slices * (QUICK.prompts - 1)
    assert details["bytes"]["encoder"] == QUICK.slices * (3 * LOGITS_BYTES + EMBEDDING_BYTES)
    a_prompt = details["bytes"]["decoder"] / details["calls"]["decoder"]
    assert EMBEDDING_BYTES + 5 * LOGITS_BYTES < a_prompt < EMBEDDING_BYTES + 6 * LOGITS_BYTES


def test_the_figures_that_count_are_there(found: dict[str, Any]) -> None:
    names = {figure["name"] for figure in found["figures"]}
    for beginning in (
        "encoder, CPU of a slice",
        "decoder, CPU of a prompt",
        "warm prompt",
        "memory growth",
        "pixels of",
    ):
        for system in (TORCH, LIMNER) if "prompt" in beginning else ("",):
            assert any(name.startswith(beginning) and name.endswith(system) for name in names), beginning
