from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.errors import InferenceFailed
from operators.nnunet.plans import Configuration
from operators.nnunet.prediction import Rows, predict_planes
from operators.nnunet.preprocess import NetworkImage
from operators.nnunet.resampling import Shape
from operators.nnunet.sliding_window import TilePlan
from tests.unit.operators.nnunet.oracle import Pointwise, demo_configuration

MIXTURE, OFFSETS = [[1.0], [-1.0], [0.5]], [0.0, 1.0, 0.25]


def tiled(*patch: int, mirroring: tuple[int, ...] = ()) -> Configuration:
    return replace(demo_configuration(), patch_size=patch, mirroring_axes=mirroring)


def logits_of(image: NetworkImage, configuration: Configuration, network: Pointwise) -> NDArray[np.float32]:
    planes = predict_planes(image, configuration, network, lambda _: None)
    return np.stack([plane.logits.copy() for plane in planes], axis=1)


@settings(max_examples=40)
@given(
    shape=st.tuples(*[st.integers(1, 20)] * 3),
    configuration=st.sampled_from(
        [tiled(4, 6, 8), tiled(6, 8), tiled(4, 6, 8, mirroring=(0, 1, 2)), tiled(5, 5, mirroring=(0, 1))]
    ),
    rows=st.integers(1, 4),
    seed=st.integers(0, 1 << 16),
)
def test_a_network_that_sees_one_voxel_is_not_changed_by_tiles(
    shape: Shape, configuration: Configuration, rows: int, seed: int
) -> None:
    image = np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)
    reports: list[int] = []
    network = Pointwise(MIXTURE, OFFSETS, rows)
    planes = predict_planes(NetworkImage(image, None), configuration, network, reports.append)
    logits = np.stack([plane.logits.copy() for plane in planes], axis=1)
    np.testing.assert_allclose(logits, np.stack([image[0], 1 - image[0], image[0] / 2 + 0.25]), rtol=1e-5, atol=1e-5)
    assert sum(reports) == TilePlan(shape, configuration).count


@settings(max_examples=40)
@given(
    shape=st.tuples(*[st.integers(4, 24)] * 3),
    body=st.tuples(*[st.integers(0, 20)] * 3),
    rows=st.integers(1, 3),
    mirroring=st.sampled_from([(), (0, 2)]),
)
def test_equal_constant_tiles_are_asked_for_once(
    shape: Shape, body: Shape, rows: int, mirroring: tuple[int, ...]
) -> None:
    """The network here tells where in its tile a voxel lies: an answer put into a wrong place would show."""
    image = np.full((1, *shape), -3, np.float32)
    lit = image[0][body[0] : body[0] + 3, body[1] : body[1] + 3, body[2] : body[2] + 3]
    lit[...] = np.random.default_rng(0).normal(size=lit.shape)
    configuration = tiled(4, 4, 4, mirroring=mirroring)
    network = Placed(rows)
    found = logits_of(NetworkImage(image, None), configuration, network)
    assert sum(float(np.ptp(tile)) == 0 for tile in network.asked) <= 1
    # no tile is constant any more, and what is added is too little to see
    image += np.random.default_rng(1).uniform(0, 1e-6, image.shape).astype(np.float32)
    expected = logits_of(NetworkImage(image, None), configuration, Placed(rows))
    np.testing.assert_allclose(found, expected, atol=1e-4)


class Placed(Pointwise):
    """Answers with the voxel's value and its place in the tile."""

    def __init__(self, rows: int) -> None:
        super().__init__(MIXTURE, OFFSETS, rows)
        self._place = np.arange(64, dtype=np.float32).reshape(4, 4, 4)

    def __call__(self, requests: Iterable[Rows]) -> Iterator[NDArray[np.float32]]:
        return (answer + self._place for answer in super().__call__(requests))


def test_the_previous_stages_labels_are_channels_of_their_own() -> None:
    configuration = replace(tiled(2, 2, 2), sees_labels=True)
    labels = np.array([[[0, 1], [2, -1]], [[2, 2], [0, 1]]], np.int32)
    network = Pointwise(np.eye(3).tolist(), [0.0, 0.0, 0.0])
    image = np.random.default_rng(0).normal(size=(1, 2, 2, 2)).astype(np.float32)
    logits = logits_of(NetworkImage(image, labels), configuration, network)
    np.testing.assert_allclose(logits, np.concatenate([image, [labels == 1, labels == 2]]), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (1, 2, 4, 4, 4), (1, 3, 4, 4, 5)])
def test_a_wrong_answer_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(InferenceFailed) as caught:
        list(predict_planes(noise(), tiled(4, 4, 4), Fixed(np.zeros(shape, np.float32)), lambda _: None))
    assert caught.value.code == "model-mismatch"


def test_an_answer_that_never_comes_is_an_error() -> None:
    with pytest.raises(InferenceFailed, match="without an answer"):
        list(predict_planes(noise(), tiled(4, 4, 4), Fixed(), lambda _: None))


def noise() -> NetworkImage:
    return NetworkImage(np.random.default_rng(0).normal(size=(1, 4, 4, 4)).astype(np.float32), None)


class Fixed:
    """A network with given answers."""

    rows = 1

    def __init__(self, *answers: NDArray[np.float32]) -> None:
        self._answers = answers

    def __call__(self, requests: Iterable[Rows]) -> Iterator[NDArray[np.float32]]:
        list(requests)
        yield from self._answers
