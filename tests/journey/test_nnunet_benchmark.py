"""The small form of `make bench-nnunet`: nnU-Net's own predictor beside Limner, with networks made on the spot.

Speed is printed, never judged: the machine may be busy. Labels and memory are.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.nnunet.figures import MOST_DIFFERING, MOST_DIFFERING_SINGLE
from tests.triton_fixture import REPOSITORY_ROOT

EXPORTER_PYTHON = REPOSITORY_ROOT / ".exporter" / "bin" / "python"
SYSTEMS = {"Limner, ONNX Runtime in the process", "Limner, Triton with ONNX Runtime"}
CLASSES = {"quick-3": 3, "quick-25": 25}
NETWORK_VOXELS = 160 * 85 * 85
"""Of the volume on the network's grid."""
FLOAT_BYTES = 4
MOST_SERVER_BYTES = 512 << 20
"""What the network's own layers may need."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    assert EXPORTER_PYTHON.exists(), "the exporter's environment is missing: `make exporter` makes it"
    output: Path = tmp_path_factory.mktemp("bench") / "figures.json"
    subprocess.run(
        [sys.executable, "-m", "benchmarks.nnunet", "--quick", "--output", output], cwd=REPOSITORY_ROOT, check=True
    )
    return dict(json.loads(output.read_text()))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CLASSES)
def test_labels_are_nnunets_and_memory_does_not_hold_the_logits(measured: dict[str, Any], name: str) -> None:
    case = next(one for one in measured["cases"] if one["name"] == name)
    assert case["labels_found"] >= 3, "a network that finds nothing proves nothing"
    assert set(case["differing"]) == SYSTEMS
    assert max(case["differing"].values()) <= MOST_DIFFERING * case["voxels"]
    case["differing_single"].pop("nnU-Net")
    assert max(case["differing_single"].values()) <= MOST_DIFFERING_SINGLE * case["voxels"]
    for system in SYSTEMS:
        (run,) = case["one_core"][system]
        array = NETWORK_VOXELS * FLOAT_BYTES
        assert run["growth"] - run["server_growth"] < 16 * array + CLASSES[name] * array / 2
        assert run["server_growth"] < MOST_SERVER_BYTES


def test_the_figures_that_count_are_there(measured: dict[str, Any]) -> None:
    names = {figure["name"] for figure in measured["figures"] if figure["case"] == "quick-25"}
    for beginning in ("CPU outside the forward pass", "CPU of logits to labels", "memory growth", "wall clock"):
        assert any(name.startswith(beginning) for name in names), beginning
