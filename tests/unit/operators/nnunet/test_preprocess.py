from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from operators.errors import SeriesRefused
from operators.nnunet.plans import CTNormalisation, read_configuration
from operators.nnunet.preprocess import nonzero_box, normalise, preprocess
from tests.unit.operators.nnunet.oracle import demo_package, fixture, spacing_of


def test_equals_nnunet() -> None:
    phantom = fixture("phantom_small")
    image, placement = preprocess(
        phantom["image"].astype(np.float32), spacing_of(phantom["spacing"]), read_configuration(demo_package())
    )
    assert [[side.start, side.stop] for side in placement.box] == phantom["bounding_box"].tolist()
    assert placement.shape == phantom["image"].shape
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, phantom["preprocessed"][0], rtol=0, atol=1e-5)


def test_the_callers_array_is_left_alone() -> None:
    array = np.random.default_rng(0).normal(0, 500, (9, 8, 7)).astype(np.float32)
    before = array.copy()
    preprocess(array, (3.0, 3.0, 3.0), read_configuration(demo_package()))
    np.testing.assert_array_equal(array, before)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 16), share=st.sampled_from([0.0, 0.002, 0.02, 0.2, 1.0]))
def test_the_box_needs_no_hole_filling(seed: int, share: float) -> None:
    array = (np.random.default_rng(seed).random((7, 9, 8)) < share).astype(np.float32)
    filled = ndimage.binary_fill_holes(array != 0)
    box = nonzero_box(array)
    if not filled.any():
        assert array[box].shape == array.shape
        return
    assert filled[box].sum() == filled.sum()
    for axis in range(3):
        assert np.take(filled[box], [0, -1], axis=axis).any(axis=tuple({0, 1, 2} - {axis})).all()


def test_normalisation() -> None:
    scheme = CTNormalisation(lower=-50, upper=200, mean=90, deviation=40)
    image = np.array([[[-1000, -50, 90, 130, 3000]]], np.float32)
    np.testing.assert_allclose(normalise(image, scheme), [[[-3.5, -3.5, 0, 1, 2.75]]])
    assert np.isfinite(normalise(image, replace(scheme, deviation=0.0))).all()


def test_axes_are_transposed_with_their_spacing() -> None:
    configuration = replace(read_configuration(demo_package()), transpose_forward=(2, 0, 1), spacing=(1.0, 2.0, 3.0))
    array = np.arange(1, 25, dtype=np.float32).reshape(2, 3, 4)
    image, placement = preprocess(array, (2.0, 3.0, 1.0), configuration)
    assert placement.spacing == (1.0, 2.0, 3.0)
    np.testing.assert_array_equal(image, normalise(array.transpose(2, 0, 1), configuration.normalisation))


def test_an_image_that_vanishes_on_the_networks_grid_is_refused() -> None:
    with pytest.raises(SeriesRefused) as caught:
        preprocess(np.ones((1, 64, 64), np.float32), (1.0, 1.0, 1.0), read_configuration(demo_package()))
    assert caught.value.code == "volume-too-small"
