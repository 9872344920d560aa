from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.label_scheme import LabelScheme
from operators.nnunet.kernels import NOTHING
from operators.nnunet.plans import Configuration, Resampling
from operators.nnunet.postprocess import paint_labels
from operators.nnunet.preprocess import Placement
from operators.nnunet.resampling import Shape, Spacing, resample, separate_axis
from operators.nnunet.sliding_window import Plane
from tests.unit.operators.nnunet.oracle import demo_configuration

sizes = st.integers(1, 12)
shapes = st.tuples(sizes, sizes, sizes)
spacings = st.tuples(*[st.sampled_from([1.0, 1.5, 5.0])] * 3)
REGIONS = LabelScheme(values=(4, 2, 2, 7), has_regions=True, foreground=(2, 4, 7))
PLAIN = LabelScheme(values=(0, 1, 2, 3), has_regions=False, foreground=(1, 2, 3))


def planes_of(logits: NDArray[np.float32], labels: LabelScheme) -> Iterator[Plane]:
    """The planes as `Blending` gives them: sums of any weights, in a ring that is used over and over."""
    shape = logits.shape[2:]
    ring = np.empty((len(logits), 2, *shape), np.float32)
    weights = np.random.default_rng(0).choice(np.array([0.25, 0.5, 2], np.float32), (4, *shape))
    held = [np.empty(shape, np.int16) for _ in range(2)]
    for index in range(logits.shape[1]):
        slot = index % 2
        places = np.arange(index % 4 + 1)[::-1]
        ring[:, slot] = logits[:, index] * weights[places].sum(axis=0)
        held[slot][...] = winners_of(logits[:, index], labels)
        yield Plane(index, ring, slot, weights, places, held[slot])


def winners_of(logits: NDArray[np.float32], labels: LabelScheme) -> NDArray[np.int16]:
    if not labels.has_regions:
        return np.asarray(logits.argmax(axis=0), np.int16)
    winners = np.full(logits.shape[1:], NOTHING, np.int16)
    for head, values in enumerate(logits):
        winners[values > 0] = head
    return winners


def whole_grid(shape: Shape, network_shape: Shape, spacing: Spacing, network_spacing: Spacing) -> Placement:
    box = (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
    return Placement(spacing, network_spacing, shape, box, network_shape)


def configured(labels: LabelScheme, order: int = 1) -> Configuration:
    return replace(demo_configuration(), labels=labels, logits_resampling=Resampling(order=order, separate_z=None))


def all_voxels(
    logits: NDArray[np.float32], placement: Placement, configuration: Configuration
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """The way without shortcuts: every head's logits on the scanner's grid, then the winners."""
    plan = configuration.logits_resampling
    apart = separate_axis(placement.network_spacing, placement.spacing, plan)
    whole = np.stack([resample(head, placement.cropped_shape, plan.order, apart) for head in logits])
    return whole, winners_of(whole, configuration.labels)


@settings(max_examples=150)
@given(
    network_shape=shapes,
    shape=shapes,
    spacing=spacings,
    network_spacing=spacings,
    labels=st.sampled_from([PLAIN, REGIONS]),
    order=st.sampled_from([0, 1]),
    smooth=st.booleans(),
    seed=st.integers(0, 1 << 16),
)
def test_only_edges_are_computed_and_labels_are_those_of_all_voxels(
    network_shape: Shape,
    shape: Shape,
    spacing: Spacing,
    network_spacing: Spacing,
    labels: LabelScheme,
    order: int,
    smooth: bool,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(labels.heads, *network_shape)).astype(np.float32)
    if smooth:  # heads that win whole parts of the image
        logits += 9 * np.sign(generator.normal(size=(labels.heads, 1, network_shape[1], 1))).astype(np.float32)
    placement, configuration = whole_grid(shape, network_shape, spacing, network_spacing), configured(labels, order)
    found = paint_labels(planes_of(logits, labels), placement, configuration)
    whole, winners = all_voxels(logits, placement, configuration)
    expected = np.array((0, *labels.values))[winners + 1]
    # where two heads differ by rounding alone either may win
    ordered = np.sort(whole, axis=0)
    near = np.abs(whole).min(axis=0) < 1e-5 if labels.has_regions else ordered[-1] - ordered[-2] < 1e-5
    np.testing.assert_array_equal(np.where(near, expected, found), expected)
    assert found.dtype == np.uint8


def test_the_crop_and_the_axes_are_put_back() -> None:
    configuration = replace(
        demo_configuration(),
        transpose_forward=(2, 0, 1),
        transpose_backward=(1, 2, 0),
        spacing=(1.0, 1.0, 1.0),
    )
    truth = np.zeros((4, 5, 6), np.uint8)  # z, y, x
    truth[1, 2, 3] = 2
    truth[2, 3, 4] = 1
    box = (slice(2, 6), slice(1, 4), slice(1, 5))  # x, z, y
    cropped = truth.transpose(2, 0, 1)[box]
    logits = np.stack([cropped == label for label in range(3)]).astype(np.float32)
    placement = Placement((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (6, 4, 5), box, (4, 3, 4))
    labels = paint_labels(planes_of(logits, configuration.labels), placement, configuration)
    assert labels.flags.c_contiguous
    np.testing.assert_array_equal(labels, truth)


def test_many_labels_take_two_bytes() -> None:
    labels = LabelScheme(values=tuple(range(300)), has_regions=False, foreground=tuple(range(1, 300)))
    logits = np.zeros((300, 1, 1, 2), np.float32)
    logits[299, 0, 0, 0] = logits[7, 0, 0, 1] = 1
    placement = whole_grid((1, 1, 2), (1, 1, 2), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    found = paint_labels(planes_of(logits, labels), placement, configured(labels))
    assert found.dtype == np.uint16
    assert found.tolist() == [[[299, 7]]]
