"""What nnU-Net v2 itself answered (tests/fixtures/nnunet/make_oracles.py), the demonstration model, and drawn plans."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.label_scheme import read_label_scheme
from operators.model_package import ModelPackage, Network
from operators.nnunet.plans import Configuration, read_configuration
from operators.nnunet.prediction import Rows
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


def demo_network(
    *,
    plans: dict[str, Any] | None = None,
    configuration: dict[str, Any] | None = None,
    dataset: dict[str, Any] | None = None,
    **changes: Any,
) -> Network:
    """The demonstration's network with keys of its plans, planned configuration or data set replaced."""
    network = demo_package().networks[0]
    configurations = dict(network.plans["configurations"])
    configurations["3d_fullres"] = {**configurations["3d_fullres"], **(configuration or {})}
    changed = {**network.plans, "configurations": configurations, **(plans or {})}
    described = {**network.dataset, **(dataset or {})}
    labels = read_label_scheme(described) if dataset else network.labels
    return replace(network, plans=changed, dataset=described, labels=labels, **changes)


@cache
def demo_configuration() -> Configuration:
    return read_configuration(demo_package().networks[0])


class Pointwise:
    """A network that sees one voxel at a time: it answers with fixed sums of the channels, one a head."""

    def __init__(self, mixture: Sequence[Sequence[float]], offsets: Sequence[float], rows: int = 1) -> None:
        self._mixture = np.array(mixture, np.float32)
        self._offsets = np.array(offsets, np.float32)
        self.rows = rows
        self.asked: list[NDArray[np.float32]] = []

    def __call__(self, requests: Iterable[Rows]) -> Iterator[NDArray[np.float32]]:
        for rows in requests:
            tiles = np.stack(rows)
            self.asked.extend(tiles)
            answer = np.tensordot(self._mixture, tiles, axes=(1, 1)).swapaxes(0, 1)
            yield answer + self._offsets.reshape(-1, *[1] * (tiles.ndim - 2))
