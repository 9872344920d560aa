"""Our stages are nnU-Net v2's: random shapes, spacings, axes, schemes and labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape, resample_data_or_seg_to_shape
from numpy.typing import NDArray

from operators.nnunet.kernels import NOTHING
from operators.nnunet.postprocess import paint_labels
from operators.nnunet.preprocess import Placement, place, preprocess
from operators.nnunet.probabilities import Member, StoredPlanes, paint_mean
from operators.nnunet.resampling import resampled_shape
from operators.nnunet.sliding_window import Plane, gaussian_weights, tile_starts
from tests.oracle.nnunet_stages import PLAIN_LABELS, REGIONS, Planned, drawn_images, drawn_plans

numbers = st.data()


def preprocessed_by_us(
    planned: Planned, image: NDArray[np.float32], spacing: tuple[float, float, float], labels: NDArray[Any] | None
) -> tuple[Placement, NDArray[np.float32], NDArray[np.int32] | None]:
    placement = place(list(image), spacing, planned.configuration)
    made = preprocess(list(image), placement, planned.configuration, labels)
    return placement, made.channels, made.previous_labels


def count_differing(found: NDArray[Any], expected: NDArray[Any]) -> int:
    return int((found != expected).sum())


def most_ties(share: float, size: int) -> float:
    """Voxels that rounding may decide: in a small image two are more than any share of it."""
    return max(2, share * size)


def fits(planned: Planned, image: NDArray[Any], spacing: tuple[float, ...]) -> bool:
    """Whether anything is left of the image on the network's grid."""
    forward = planned.plans["transpose_forward"]
    spacing = tuple(spacing[axis] for axis in forward)
    target = [*spacing[: 3 - len(planned.planned.spacing)], *planned.planned.spacing]
    smallest = [image.shape[1 + axis] - 1 for axis in forward]
    return 0 not in compute_new_shape(smallest, spacing, target)


@settings(max_examples=150)
@given(planned=drawn_plans(), drawn=numbers)
def test_preprocessing(planned: Planned, drawn: st.DataObject) -> None:
    image, spacing = drawn.draw(drawn_images(len(planned.planned.normalization_schemes)))
    assume(fits(planned, image, spacing))
    expected, _, properties = planned.preprocessed(image, spacing)
    placement, found, _ = preprocessed_by_us(planned, image, spacing, None)
    assert [[side.start, side.stop] for side in placement.box] == [
        list(side) for side in properties["bbox_used_for_cropping"]
    ]
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


def margin_of_labels(
    planned: Planned, image: NDArray[np.float32], spacing: tuple[float, ...], labels: NDArray[np.int16]
) -> NDArray[np.float64]:
    """By how much nnU-Net's own resampling of the labels' indicators decides on each voxel of the network's grid."""
    forward = planned.plans["transpose_forward"]
    turned = [0, *(1 + axis for axis in forward)]
    _, cut, _ = crop_to_nonzero(image.transpose(turned), labels[None].transpose(turned))
    current = [spacing[axis] for axis in forward]
    target = [*current[: 3 - len(planned.planned.spacing)], *planned.planned.spacing]
    resampled = resample_data_or_seg_to_shape(
        np.stack([(cut[0] == label).astype(np.float64) for label in (-1, 0, 1, 2, 3)]),
        compute_new_shape(cut.shape[1:], current, target),
        current,
        target,
        **planned.planned.configuration["resampling_fn_seg_kwargs"] | {"is_seg": False},
    )
    ordered = np.sort(resampled, axis=0)
    return np.asarray(ordered[-1] - ordered[-2])


@settings(max_examples=150)
@given(planned=drawn_plans(labels=PLAIN_LABELS, cascade=True), drawn=numbers)
def test_the_previous_stages_labels(planned: Planned, drawn: st.DataObject) -> None:
    image, spacing = drawn.draw(drawn_images(len(planned.planned.normalization_schemes)))
    assume(fits(planned, image, spacing))
    generator = np.random.default_rng(drawn.draw(st.integers(0, 1 << 16)))
    labels = generator.integers(0, 4, image.shape[1:]).astype(np.uint8)
    _, expected, _ = planned.preprocessed(image, spacing, labels[None].astype(np.int16))
    _, _, found = preprocessed_by_us(planned, image, spacing, labels)
    assert found is not None
    # two labels whose indicators are equal may be told apart by rounding alone
    differing = np.maximum(found, 0) != np.maximum(expected[0], 0)
    assert margin_of_labels(planned, image, spacing, labels.astype(np.int16))[differing].max(initial=0) < 1e-6


def planes_of(logits: NDArray[np.float32], *, has_regions: bool) -> Iterator[Plane]:
    for index in range(logits.shape[1]):
        plane = np.ascontiguousarray(logits[:, index])
        if has_regions:
            found = plane > 0
            last = len(found) - 1 - found[::-1].argmax(axis=0)
            winners = np.where(found.any(axis=0), last, NOTHING)
        else:
            winners = plane.argmax(axis=0)
        weights = np.ones((1, *winners.shape), np.float32)
        yield Plane(index, plane[:, None], 0, weights, np.zeros(1, np.int64), winners.astype(np.int16))


def smooth_logits(generator: np.random.Generator, heads: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Logits of whole numbers and no ties among them: what is exact in half precision too."""
    return generator.permuted(np.arange(-512, 512), axis=0)[generator.integers(0, 1024, (heads, *shape))].astype(
        np.float32
    )


def margin(planned: Planned, logits: NDArray[np.float32], properties: dict[str, Any]) -> NDArray[np.float64]:
    """By how much nnU-Net's own resampled logits decide on each voxel of the image; infinite where it was cut off."""
    forward = planned.plans["transpose_forward"]
    spacing = [properties["spacing"][axis] for axis in forward]
    shape = properties["shape_after_cropping_and_before_resampling"]
    of_network = [*spacing[: 3 - len(planned.planned.spacing)], *planned.planned.spacing]
    resampled = np.asarray(
        planned.planned.resampling_fn_probabilities(
            torch.from_numpy(logits.astype(np.float64)), shape, of_network, spacing
        )
    )
    if planned.labels.has_regions:
        decided = np.abs(resampled).min(axis=0)
    else:
        ordered = np.sort(resampled, axis=0)
        decided = ordered[-1] - ordered[-2]
    whole = np.full(properties["shape_before_cropping"], np.inf)
    whole[tuple(slice(*side) for side in properties["bbox_used_for_cropping"])] = decided
    return whole.transpose(planned.plans["transpose_backward"])


@settings(max_examples=200)
@given(planned=drawn_plans(), drawn=numbers)
def test_logits_to_labels(planned: Planned, drawn: st.DataObject) -> None:
    image, spacing = drawn.draw(drawn_images(len(planned.planned.normalization_schemes)))
    assume(fits(planned, image, spacing))
    _, _, properties = planned.preprocessed(image, spacing)
    configuration = planned.configuration
    placement = place(list(image), spacing, configuration)
    generator = np.random.default_rng(drawn.draw(st.integers(0, 1 << 16)))
    logits = smooth_logits(generator, configuration.labels.heads, placement.network_shape)
    expected = convert_predicted_logits_to_segmentation_with_correct_shape(
        torch.from_numpy(logits.astype(np.float64)),
        planned.manager,
        planned.planned,
        planned.labels,
        properties,
        num_threads_torch=1,
    )
    found = paint_labels(planes_of(logits, has_regions=configuration.labels.has_regions), placement, configuration)
    assert found.dtype == expected.dtype
    # two heads of which a weighted mean is equal, or a region's that is 0, may be told apart by rounding alone
    assert margin(planned, logits, properties)[found != expected].max(initial=0) < 1e-3


@settings(max_examples=60)
@given(first=drawn_plans(labels=PLAIN_LABELS), drawn=numbers, regions=st.booleans())
def test_the_mean_of_probabilities(first: Planned, drawn: st.DataObject, regions: bool) -> None:
    second = drawn.draw(drawn_plans())
    # one data set: axes, channels and labels are common, the rest is each configuration's own
    for key in ("transpose_forward", "transpose_backward", "foreground_intensity_properties_per_channel"):
        second.plans[key] = first.plans[key]
    for planned in (first, second):
        planned.plans["configurations"]["3d_fullres"].update(
            normalization_schemes=["NoNormalization"], use_mask_for_norm=[False]
        )
        planned.dataset.update(channel_names={"0": "CT"}, labels=REGIONS if regions else PLAIN_LABELS)
    members = [Planned(planned.plans, planned.dataset) for planned in (first, second)]
    image, spacing = drawn.draw(drawn_images(1))
    assume(all(fits(planned, image, spacing) for planned in members))
    generator = np.random.default_rng(drawn.draw(st.integers(0, 1 << 16)))
    probabilities, ours = [], []
    for planned in members:
        _, _, properties = planned.preprocessed(image, spacing)
        placement = place(list(image), spacing, planned.configuration)
        logits = smooth_logits(generator, planned.configuration.labels.heads, placement.network_shape) / np.float32(64)
        _, probability = convert_predicted_logits_to_segmentation_with_correct_shape(
            torch.from_numpy(logits.astype(np.float64)),
            planned.manager,
            planned.planned,
            planned.labels,
            properties,
            return_probabilities=True,
            num_threads_torch=1,
        )
        probabilities.append(probability)
        stored = StoredPlanes(planes_of(logits, has_regions=regions), None)
        ours.append(Member(stored, placement, planned.configuration))
    expected = members[0].labels.convert_probabilities_to_segmentation(sum(probabilities) / 2)
    found = paint_mean(ours)
    for member in ours:
        member.planes.close()
    assert count_differing(found, expected) <= most_ties(2e-3, found.size)


@settings(max_examples=200)
@given(
    sizes=st.lists(st.tuples(st.integers(4, 300), st.integers(4, 128)), min_size=2, max_size=3),
    step=st.sampled_from([0.5, 0.8, 0.3, 1.0]),
)
def test_where_tiles_begin(sizes: list[tuple[int, int]], step: float) -> None:
    image, tile = [max(one) for one in sizes], [min(one) for one in sizes]
    assert tile_starts(image, tile, step) == compute_steps_for_sliding_window(image, tile, step)


@settings(max_examples=30)
@given(tile=st.lists(st.integers(4, 40), min_size=2, max_size=3))
def test_the_weights_of_a_tile(tile: list[int]) -> None:
    expected = compute_gaussian(tuple(tile), sigma_scale=1 / 8, value_scaling_factor=10, device=torch.device("cpu"))
    np.testing.assert_array_equal(gaussian_weights(tuple(tile)), expected.float().numpy())


@settings(max_examples=200)
@given(
    shape=st.lists(st.integers(1, 400), min_size=3, max_size=3),
    spacings=st.lists(st.tuples(st.floats(0.3, 8), st.floats(0.3, 8)), min_size=3, max_size=3),
)
def test_the_size_of_the_networks_grid(shape: list[int], spacings: list[tuple[float, float]]) -> None:
    current, target = [pair[0] for pair in spacings], [pair[1] for pair in spacings]
    assert list(resampled_shape(shape, current, target)) == compute_new_shape(shape, current, target).tolist()
