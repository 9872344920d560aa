from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.nnunet import postprocess
from operators.nnunet.plans import read_configuration
from operators.nnunet.postprocess import labels_from_logits, resampled_argmax
from operators.nnunet.preprocess import Placement
from operators.nnunet.resampling import Shape, resample
from tests.unit.operators.nnunet.oracle import demo_package

sizes = st.integers(1, 12)
shapes = st.tuples(sizes, sizes, sizes)


@settings(max_examples=50, deadline=None)
@given(
    shape=shapes,
    new_shape=shapes,
    separate=st.sampled_from([None, 0, 1, 2]),
    slab_bytes=st.sampled_from([1, 2000, 1 << 30]),
    seed=st.integers(0, 1 << 16),
)
def test_slabs_choose_what_the_whole_would(
    shape: Shape, new_shape: Shape, separate: int | None, slab_bytes: int, seed: int
) -> None:
    logits = np.random.default_rng(seed).normal(size=(4, *shape)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postprocess, "_SLAB_BYTES", slab_bytes)
        labels = resampled_argmax(logits, new_shape, 1, separate)
    whole = np.stack([resample(channel, new_shape, 1, separate) for channel in logits])
    # the chosen class is within rounding of the highest logit
    chosen = np.take_along_axis(whole, labels[None].astype(int), axis=0)[0]
    np.testing.assert_allclose(chosen, whole.max(axis=0), atol=1e-5)


def test_the_crop_and_the_axes_are_put_back() -> None:
    configuration = replace(
        read_configuration(demo_package()),
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
    placement = Placement(spacing=(1.0, 1.0, 1.0), shape=(6, 4, 5), box=box)
    labels = labels_from_logits(logits, placement, configuration)
    assert labels.dtype == np.uint8
    assert labels.flags.c_contiguous
    np.testing.assert_array_equal(labels, truth)
