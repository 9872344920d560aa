from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from operators.errors import ModelPackageError, SeriesRefused
from operators.label_scheme import read_label_scheme
from operators.model_package import ModelPackage, Network
from operators.nnunet import segment_volume
from tests.unit.operators.nnunet.oracle import Pointwise, demo_network, demo_package

SPACING = (3.0, 3.0, 3.0)  # the network's own: nothing is resampled
TILES = 12
"""Of the image of `levels`."""
PLAIN = {"normalization_schemes": ["NoNormalization"], "patch_size": [4, 4, 4]}


def plain_network(name: str, **changes: Any) -> Network:
    return replace(demo_network(configuration=PLAIN), name=name, **changes)


def package_of(*networks: Network, **changes: Any) -> ModelPackage:
    return replace(demo_package(), networks=networks, **changes)


def levels(shape: tuple[int, int, int] = (5, 6, 7)) -> NDArray[np.float32]:
    """An image of the whole numbers 1 to 3."""
    return np.random.default_rng(0).integers(1, 4, shape).astype(np.float32)


def above(threshold: float) -> Pointwise:
    """Says 1 where the image is above a threshold, never 2."""
    return Pointwise([[0.0], [1.0], [0.0]], [0.0, -threshold, -100.0])


def test_one_network() -> None:
    image = levels()
    reports: list[tuple[int, int]] = []
    labels = segment_volume(
        [image], SPACING, package_of(plain_network("one")), {"one": above(2.5)}, lambda *report: reports.append(report)
    )
    np.testing.assert_array_equal(labels, image > 2.5)
    assert reports == [(done, TILES) for done in range(TILES + 1)]


def test_several_channels() -> None:
    dataset = {"channel_names": {"0": "T1", "1": "T2"}}
    schemes = {**PLAIN, "normalization_schemes": ["NoNormalization"] * 2, "use_mask_for_norm": [False] * 2}
    network = replace(demo_network(configuration=schemes, dataset=dataset), name="two")
    first, second = levels(), levels()[::-1]
    difference = Pointwise([[0.0, 0.0], [1.0, -1.0], [0.0, 0.0]], [0.0, -0.5, -100.0])
    labels = segment_volume([first, second], SPACING, package_of(network), {"two": difference}, lambda *_: None)
    np.testing.assert_array_equal(labels, first > second)
    with pytest.raises(SeriesRefused, match="2 images: T1, T2") as caught:
        segment_volume([first], SPACING, package_of(network), {"two": difference}, lambda *_: None)
    assert caught.value.code == "channel-missing"


def test_a_cascade() -> None:
    first = plain_network("first")
    cascaded = demo_network(configuration={**PLAIN, "previous_stage": "3d_lowres"})
    second = replace(cascaded, name="second", previous_stage=first)
    # 2 where the first stage said 1 and the image is below 3; the image's own channel comes first
    network = Pointwise([[0.0, 0.0, 0.0], [-9.0, -9.0, 0.0], [-1.0, 9.0, 0.0]], [0.0, 0.0, -6.5])
    image, reports = levels(), list[tuple[int, int]]()
    labels = segment_volume(
        [image],
        SPACING,
        package_of(second),
        {"first": above(1.5), "second": network},
        lambda *report: reports.append(report),
    )
    np.testing.assert_array_equal(labels, np.where(image == 2, 2, 0))
    assert reports == [(done, 2 * TILES) for done in range(2 * TILES + 1)]


def test_an_ensemble() -> None:
    networks = tuple(plain_network(name) for name in ("one", "two"))
    package = package_of(*networks, combination="mean-of-probabilities")
    image = levels()
    sure, doubtful = above(2.5), Pointwise([[0.0], [0.1], [0.0]], [0.0, -0.25, -100.0])
    labels = segment_volume([image], SPACING, package, {"one": sure, "two": doubtful}, lambda *_: None)
    np.testing.assert_array_equal(labels, image > 2.5)


def test_an_ensemble_that_transposes_differently_is_refused() -> None:
    turned = demo_network(configuration=PLAIN, plans={"transpose_forward": [1, 0, 2], "transpose_backward": [1, 0, 2]})
    package = package_of(plain_network("one"), replace(turned, name="two"), combination="mean-of-probabilities")
    with pytest.raises(ModelPackageError, match="transpose") as caught:
        segment_volume([levels()], SPACING, package, {"one": above(1), "two": above(1)}, lambda *_: None)
    assert caught.value.code == "configuration-unsupported"


def test_a_merge_paints_later_over_earlier() -> None:
    first = plain_network("first", label_values={1: 300, 2: 5})
    second = plain_network("second", label_values={1: 7})
    image = levels()
    labels = segment_volume(
        [image],
        SPACING,
        package_of(first, second, combination="merge"),
        {"first": above(1.5), "second": above(2.5)},
        lambda *_: None,
    )
    np.testing.assert_array_equal(labels, np.select([image == 3, image == 2], [7, 300]))
    assert labels.dtype == np.uint16


def test_postprocessing_keeps_the_largest_part() -> None:
    image = np.ones((4, 4, 8), np.float32)
    image[1:3, 1:3, :3] = image[1, 1, 6] = 3
    package = package_of(plain_network("one"), postprocessing=((1,),))
    labels = segment_volume([image], SPACING, package, {"one": above(2)}, lambda *_: None)
    expected = image == 3
    expected[1, 1, 6] = False
    np.testing.assert_array_equal(labels, expected)


def test_regions_and_the_ignore_label() -> None:
    dataset = {
        "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
        "regions_class_order": [1, 2],
    }
    network = replace(demo_network(configuration=PLAIN, dataset=dataset), name="one")
    assert network.labels == read_label_scheme(dataset)
    image = levels()
    labels = segment_volume(
        [image], SPACING, package_of(network), {"one": Pointwise([[1.0], [1.0]], [-1.5, -2.5])}, lambda *_: None
    )
    np.testing.assert_array_equal(labels, image - 1)
