from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from operators.errors import SeriesRefused
from operators.nnunet.normalisation import NoNormalisation, ZScoreNormalisation
from operators.nnunet.plans import Configuration
from operators.nnunet.preprocess import Placement, nonzero_box, nonzero_mask, place, preprocess
from operators.nnunet.resampling import Spacing
from tests.unit.operators.nnunet.oracle import demo_configuration, fixture, spacing_of


def prepared(
    array: NDArray[np.float32], spacing: Spacing, configuration: Configuration
) -> tuple[NDArray[np.float32], Placement]:
    placement = place([array], spacing, configuration)
    return preprocess([array], placement, configuration).channels[0], placement


def test_equals_nnunet() -> None:
    phantom = fixture("phantom_small")
    image, placement = prepared(
        phantom["image"].astype(np.float32), spacing_of(phantom["spacing"]), demo_configuration()
    )
    assert [[side.start, side.stop] for side in placement.box] == phantom["bounding_box"].tolist()
    assert placement.shape == phantom["image"].shape
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, phantom["preprocessed"][0], rtol=0, atol=1e-5)


def test_the_callers_array_is_left_alone() -> None:
    array = np.random.default_rng(0).normal(0, 500, (9, 8, 7)).astype(np.float32)
    before = array.copy()
    prepared(array, (3.0, 3.0, 3.0), demo_configuration())
    np.testing.assert_array_equal(array, before)


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 16), share=st.sampled_from([0.0, 0.002, 0.02, 0.2, 1.0]), channels=st.integers(1, 3))
def test_the_box_needs_no_hole_filling(seed: int, share: float, channels: int) -> None:
    arrays = (np.random.default_rng(seed).random((channels, 7, 9, 8)) < share).astype(np.float32)
    box = nonzero_box(list(arrays))
    filled = ndimage.binary_fill_holes(arrays.any(axis=0))
    if not filled.any():
        assert arrays[0][box].shape == arrays[0].shape
        return
    assert filled[box].sum() == filled.sum()
    for axis in range(3):
        assert np.take(filled[box], [0, -1], axis=axis).any(axis=tuple({0, 1, 2} - {axis})).all()
    # filling the holes of the cropped image is filling those of the whole
    np.testing.assert_array_equal(nonzero_mask([array[box] for array in arrays]), filled[box])


def test_axes_are_transposed_with_their_spacing() -> None:
    configuration = replace(
        demo_configuration(), transpose_forward=(2, 0, 1), spacing=(1.0, 2.0, 3.0), normalisations=(NoNormalisation(),)
    )
    array = np.arange(1, 25, dtype=np.float32).reshape(2, 3, 4)
    image, placement = prepared(array, (2.0, 3.0, 1.0), configuration)
    assert placement.spacing == (1.0, 2.0, 3.0)
    np.testing.assert_array_equal(image, array.transpose(2, 0, 1))


def test_a_2d_network_takes_slices_as_they_are_spaced() -> None:
    configuration = replace(demo_configuration(), patch_size=(4, 4), spacing=(1.0, 1.0))
    placement = place([np.ones((5, 6, 8), np.float32)], (7.0, 2.0, 1.0), configuration)
    assert placement.network_spacing == (7.0, 1.0, 1.0)
    assert placement.network_shape == (5, 12, 8)


def test_a_mask_is_made_of_all_channels() -> None:
    scores = ZScoreNormalisation(needs_mask=True)
    configuration = replace(demo_configuration(), spacing=(1.0, 1.0, 1.0), normalisations=(scores, scores))
    first, second = np.zeros((3, 3, 3), np.float32), np.zeros((3, 3, 3), np.float32)
    first[0, 0, 0], second[2, 2, 2] = 5, 7
    placement = place([first, second], (1.0, 1.0, 1.0), configuration)
    image = preprocess([first, second], placement, configuration).channels
    # a voxel in one channel alone is inside the mask of both
    np.testing.assert_allclose(image[0, [0, 2, 1], [0, 2, 1], [0, 2, 1]], [1, -1, 0])
    np.testing.assert_allclose(image[1, [0, 2, 1], [0, 2, 1], [0, 2, 1]], [-1, 1, 0])


def test_the_previous_stage_finds_nothing_where_there_is_no_image() -> None:
    configuration = replace(
        demo_configuration(), spacing=(1.0, 1.0, 1.0), normalisations=(NoNormalisation(),), sees_labels=True
    )
    array = np.zeros((1, 4, 4), np.float32)
    array[0, 1, 1] = array[0, 3, 3] = 9
    labels = np.zeros((1, 4, 4), np.uint8)
    labels[0, 1, 1], labels[0, 2, 2] = 2, 1
    placement = place([array], (1.0, 1.0, 1.0), configuration)
    found = preprocess([array], placement, configuration, labels).previous_labels
    np.testing.assert_array_equal(found, [[[2, -1, -1], [-1, 1, -1], [-1, -1, 0]]])


def test_an_image_that_vanishes_on_the_networks_grid_is_refused() -> None:
    with pytest.raises(SeriesRefused) as caught:
        place([np.ones((1, 64, 64), np.float32)], (1.0, 1.0, 1.0), demo_configuration())
    assert caught.value.code == "volume-too-small"
