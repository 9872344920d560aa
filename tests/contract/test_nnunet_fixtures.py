"""Every branch of nnU-Net v2's inference over a real Triton, against what nnU-Net's own predictor answered."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray

from app.serving.triton import EmbeddedTriton
from operators.label_maps import LabelMap
from operators.model_package import ModelPackage
from operators.nnunet.network import ServedNetwork, open_network
from operators.nnunet.orientation import segment_series_volume
from operators.nnunet.plans import read_configuration
from operators.triton import PROBE_MODEL
from tests.nnunet_fixtures import NAMES, Case, read_fixture
from tests.triton_fixture import MODEL_REPOSITORY, running_triton

MOST_DIFFERING = 1e-4
"""Share of voxels: nnU-Net sums in half precision, and two labels may then be equal that are not."""
MOST_DIFFERING_SINGLE = 1e-5
"""The same with its sums in single precision: what remains is rounding."""
ALL_CASES = [(name, case.name) for name in NAMES for case in read_fixture(name).cases]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """One Triton with the networks of all fixtures."""
    repository = tmp_path_factory.mktemp("repository")
    for folder in (
        MODEL_REPOSITORY / PROBE_MODEL,
        *(one for name in NAMES for one in read_fixture(name).repository.iterdir()),
    ):
        shutil.copytree(folder, repository / folder.name)
    with running_triton(repository) as triton:
        yield triton


def volume_of(image: NDArray[np.generic], spacing: tuple[float, float, float]) -> highdicom.Volume:
    """An axial image: slices towards the head, rows towards the back, columns towards the left."""
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]], affine[3, 3] = spacing, 1
    return highdicom.Volume(image.astype(np.float32), affine, "PATIENT")


def labels_of(package: ModelPackage, case: Case, server: EmbeddedTriton, scratch: Path) -> LabelMap:
    reports: list[tuple[int, int]] = []
    with ExitStack() as stack:
        networks = {}
        for network in package.all_networks:
            model = open_network(network, server.target, deadline_seconds=60.0, shared_memory=True)
            networks[network.name] = ServedNetwork(stack.enter_context(model), read_configuration(network))
        volumes = [volume_of(channel, case.spacing) for channel in case.image]
        labels = segment_series_volume(
            volumes, package, networks, lambda done, total: reports.append((done, total)), scratch
        )
    assert labels.geometry_equal(volumes[0])
    assert [done for done, _ in reports] == list(range(reports[-1][1] + 1))
    array: LabelMap = labels.array
    return array


def differing(found: LabelMap, expected: LabelMap) -> float:
    assert found.shape == expected.shape
    assert len(np.unique(expected)) > 1, "an empty answer proves nothing"
    return float((found != expected).mean())


@pytest.mark.parametrize(("name", "case_name"), ALL_CASES)
def test_labels_are_nnunets(name: str, case_name: str, server: EmbeddedTriton, tmp_path: Path) -> None:
    fixture = read_fixture(name)
    case = fixture.case(case_name)
    found = labels_of(ModelPackage.load(fixture.package), case, server, tmp_path)
    expected = case.more.get("labels_postprocessed", case.labels)
    assert found.dtype == expected.dtype
    assert differing(found, expected) <= MOST_DIFFERING
    assert differing(found, case.more.get("labels_postprocessed_single", case.labels_single)) <= MOST_DIFFERING_SINGLE


@pytest.mark.parametrize(
    ("name", "case_name"),
    [(name, case) for name, case in ALL_CASES if "labels_postprocessed" in read_fixture(name).case(case).more],
)
def test_without_postprocessing(name: str, case_name: str, server: EmbeddedTriton, tmp_path: Path) -> None:
    fixture = read_fixture(name)
    case = fixture.case(case_name)
    package = replace(ModelPackage.load(fixture.package), postprocessing=())
    found = labels_of(package, case, server, tmp_path)
    assert differing(found, case.labels) <= MOST_DIFFERING
    assert not np.array_equal(found, case.more["labels_postprocessed"]), "it would have changed nothing"


@pytest.mark.parametrize(
    ("name", "case_name"),
    [(name, case) for name, case in ALL_CASES if "labels_previous" in read_fixture(name).case(case).more],
)
def test_the_previous_stage_alone(name: str, case_name: str, server: EmbeddedTriton, tmp_path: Path) -> None:
    fixture = read_fixture(name)
    case = fixture.case(case_name)
    package = ModelPackage.load(fixture.package)
    previous = package.networks[0].previous_stage
    assert previous is not None
    found = labels_of(replace(package, networks=(previous,)), case, server, tmp_path)
    assert differing(found, case.more["labels_previous"]) <= MOST_DIFFERING
