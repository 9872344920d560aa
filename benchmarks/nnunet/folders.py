"""What the benchmark of nnU-Net makes, and what each of it is called."""

from __future__ import annotations

from pathlib import Path

from benchmarks.folders import REPOSITORY_ROOT
from benchmarks.nnunet.cases import CASES, DEMO_MODEL, QUICK_CASES

DEMO_FOLDER = REPOSITORY_ROOT / "triton_models" / DEMO_MODEL
MODELS = {case.model.name: case.model for case in (*CASES, *QUICK_CASES) if case.model}
"""The networks that are made, by name."""


def results_of(model_folder: Path) -> Path:
    """The folder of the training, as nnU-Net leaves it."""
    return model_folder / "results"


def repository_of(model_folder: Path) -> Path:
    """The model repository that holds the package."""
    return model_folder / "repository"
