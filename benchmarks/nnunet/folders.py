"""Where the benchmark keeps what it makes; everything lies in one folder that git ignores."""

from __future__ import annotations

from pathlib import Path

from benchmarks.nnunet.cases import CASES, DEFAULT_5, DEMO_MODEL, QUICK_CASES

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY_ROOT / ".cache" / "bench"
DEMO_FOLDER = REPOSITORY_ROOT / "triton_models" / DEMO_MODEL
MODELS = {case.model.name: case.model for case in (*CASES, *QUICK_CASES) if case.model} | {DEFAULT_5.name: DEFAULT_5}
"""The networks that are made, by name."""


def results_of(model_folder: Path) -> Path:
    """The folder of the training, as nnU-Net leaves it."""
    return model_folder / "results"


def repository_of(model_folder: Path) -> Path:
    """The model repository that holds the package."""
    return model_folder / "repository"
