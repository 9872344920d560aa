"""Peak memory grows with the image and with labels times a tile's depth, never with image times labels."""

import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from operators.label_scheme import LabelScheme
from operators.nnunet.normalisation import NoNormalisation
from operators.nnunet.plans import Configuration
from operators.nnunet.postprocess import paint_labels
from operators.nnunet.prediction import Rows, predict_planes
from operators.nnunet.preprocess import place, preprocess
from tests.unit.operators.nnunet.oracle import demo_configuration

TILE = (8, 32, 32)
FINER = (1.5, 2.0, 2.0)  # than the network's grid of 3 mm
PLANE_VOXELS = 64 * 64  # of the scanner's grid


class Stripes:
    """A network with any number of heads whose answer is made once."""

    rows = 1

    def __init__(self, heads: int) -> None:
        self._answer = np.random.default_rng(0).normal(size=(1, heads, *TILE)).astype(np.float32)

    def __call__(self, requests: Iterable[Rows]) -> Iterator[NDArray[np.float32]]:
        return (self._answer for _ in requests)


def configured(heads: int) -> Configuration:
    labels = LabelScheme(values=tuple(range(heads)), has_regions=False, foreground=tuple(range(1, heads)))
    return replace(
        demo_configuration(),
        patch_size=TILE,
        spacing=(3.0, 3.0, 3.0),
        normalisations=(NoNormalisation(),),
        labels=labels,
    )


@cache
def peak_bytes(planes: int, heads: int) -> int:
    """What one segmentation holds at most beyond the image that comes in."""
    configuration, network = configured(heads), Stripes(heads)
    image = np.random.default_rng(1).normal(size=(planes, 64, 64)).astype(np.float32)
    tracemalloc.start()
    placement = place([image], FINER, configuration)
    seen = preprocess([image], placement, configuration)
    paint_labels(predict_planes(seen, configuration, network, lambda _: None), placement, configuration)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_a_longer_image_costs_the_same_for_many_labels_as_for_few() -> None:
    peak_bytes(16, 2)  # what is made once, such as weights and compiled loops, is made now
    few, many = (peak_bytes(400, heads) - peak_bytes(80, heads) for heads in (2, 60))
    assert many <= few * 1.1
    assert few <= 320 * PLANE_VOXELS * 4 * 4  # a few arrays of the image's size


def test_labels_cost_a_slab_of_a_tiles_depth() -> None:
    peak_bytes(16, 2)
    slab = 48 * 48 * 4 * (TILE[0] + 2)  # one head, on the network's grid, with the planes handed on
    assert peak_bytes(80, 60) - peak_bytes(80, 2) <= 58 * slab * 1.2
