"""What nnU-Net v2 itself answered (tests/fixtures/nnunet/make_oracles.py), and the demonstration model's package."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.model_package import ModelPackage
from operators.nnunet.resampling import Spacing

ROOT = Path(__file__).resolve().parents[4]
FIXTURES = ROOT / "tests" / "fixtures" / "nnunet"
DEMO_MODEL = ROOT / "triton_models" / "nnunet_liver_spleen_demo"


@cache
def fixture(name: str) -> dict[str, NDArray[Any]]:
    with np.load(FIXTURES / f"{name}.npz") as file:
        return dict(file)


def spacing_of(values: NDArray[Any]) -> Spacing:
    first, second, third = (float(value) for value in values)
    return first, second, third


@cache
def demo_package() -> ModelPackage:
    return ModelPackage.load(DEMO_MODEL)


def demo_package_with(
    *, plans: dict[str, Any] | None = None, configuration: dict[str, Any] | None = None, **changes: Any
) -> ModelPackage:
    """The demonstration model with keys of its plans, or of its planned configuration, replaced."""
    package = demo_package()
    configurations = dict(package.plans["configurations"])
    configurations["3d_fullres"] = {**configurations["3d_fullres"], **(configuration or {})}
    changed = {**package.plans, "configurations": configurations, **(plans or {})}
    return replace(package, plans=changed, **changes)
