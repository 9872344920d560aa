"""What nnU-Net v2's own predictor answered for the same arrays, against Limner's way over a real Triton."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from app.serving.triton import EmbeddedTriton
from operators.nnunet import segment_volume
from operators.nnunet.network import ServedNetwork, open_network
from operators.nnunet.operator import NnUNetOperator
from operators.nnunet.orientation import segment_series_volume, simpleitk_order
from operators.nnunet.plans import read_configuration
from operators.nnunet.prediction import Infer
from operators.sdk import Application, CountCondition, Fragment, Operator, OperatorSpec
from operators.series_volume_operator import SeriesVolumeOperator
from tests.unit.operators.nnunet.oracle import demo_package, fixture, spacing_of

MOST_DIFFERING = 1e-4
LEAST_DICE = {1: 0.80, 2: 0.70}


@pytest.fixture
def served(triton: EmbeddedTriton) -> Iterator[dict[str, Infer]]:
    (network,) = demo_package().networks
    with open_network(network, triton.target, deadline_seconds=120.0, shared_memory=True) as model:
        yield {network.name: ServedNetwork(model, read_configuration(network))}


@pytest.fixture
def abdomen(abdominal_ct: list[Path]) -> highdicom.Volume:
    """The real CT in Hounsfield units, its place read by highdicom: slices by falling patient z."""
    return highdicom.get_volume_from_series([pydicom.dcmread(path) for path in abdominal_ct])


def differing_share(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    assert found.shape == expected.shape
    return float((found != expected).mean())


def dice(found: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    return 2 * float((found & reference).sum()) / float(found.sum() + reference.sum())


def test_a_cropped_anisotropic_phantom(served: dict[str, Infer]) -> None:
    phantom = fixture("phantom_small")
    reports: list[tuple[int, int]] = []
    labels = segment_volume(
        [phantom["image"].astype(np.float32)],
        spacing_of(phantom["spacing"]),
        demo_package(),
        served,
        lambda done, of: reports.append((done, of)),
    )
    assert differing_share(labels, phantom["labels"]) <= MOST_DIFFERING
    assert set(np.unique(labels)) == {0, 1, 2}
    assert reports[-1][0] == reports[-1][1] > 0


@pytest.mark.parametrize("is_reversed", [False, True])
def test_the_real_ct(served: dict[str, Infer], abdomen: highdicom.Volume, is_reversed: bool) -> None:
    expected = fixture("abdomen_ct_expected")
    volume = abdomen.flip_spatial(0) if is_reversed else abdomen
    read = np.rint(simpleitk_order(volume).array).astype("<i2")
    assert hashlib.sha256(read.tobytes()).hexdigest() == str(expected["input_sha256"]), (
        "not the array nnU-Net was given"
    )
    labels = segment_series_volume([volume], demo_package(), served, lambda *_: None)
    assert labels.geometry_equal(volume)
    found = simpleitk_order(labels).array
    assert differing_share(found, expected["labels"]) <= MOST_DIFFERING
    for label, least in LEAST_DICE.items():
        assert dice(found == label, expected["reference"] == label) >= least


class Keeper(Operator):
    """Keeps what it receives."""

    def __init__(self, fragment: Fragment, kept: list[Any], **kwargs: Any) -> None:
        self._kept = kept
        super().__init__(fragment, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("labels")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        self._kept.append(op_input.receive("labels"))


class Graph(Application):
    """Reads a series, segments it, keeps the labels."""

    def __init__(self, files: list[Path], target: str, kept: list[Any], reports: list[tuple[int, int]]) -> None:
        self._files, self._target, self._kept, self._reports = files, target, kept, reports
        super().__init__()

    def compose(self) -> None:
        source = SeriesVolumeOperator(self, CountCondition(self, 1), inputs={"": self._files}, name="series")
        network = NnUNetOperator(
            self,
            package=demo_package(),
            triton_target=self._target,
            request_seconds=120.0,
            shared_memory=True,
            progress=lambda done, of: self._reports.append((done, of)),
            name="nnunet",
        )
        self.add_flow(source, network, {("series", "series")})
        self.add_flow(network, Keeper(self, self._kept, name="keeper"), {("labels", "labels")})


def test_in_a_graph(triton: EmbeddedTriton, abdominal_ct: list[Path]) -> None:
    kept: list[highdicom.Volume] = []
    reports: list[tuple[int, int]] = []
    Graph(abdominal_ct, triton.target, kept, reports).run()
    (labels,) = kept
    assert labels.dtype == np.uint8
    assert differing_share(simpleitk_order(labels).array, fixture("abdomen_ct_expected")["labels"]) <= MOST_DIFFERING
    assert reports[-1][0] == reports[-1][1] > 0
