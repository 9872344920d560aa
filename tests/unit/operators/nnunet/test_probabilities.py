from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.label_scheme import LabelScheme
from operators.nnunet.probabilities import Member, StoredPlanes, paint_mean
from operators.nnunet.resampling import Shape
from tests.unit.operators.nnunet.test_postprocess import (
    PLAIN,
    REGIONS,
    all_voxels,
    configured,
    planes_of,
    shapes,
    whole_grid,
    winners_of,
)

SPACING = (1.0, 1.0, 1.0)


def probabilities(logits: NDArray[np.float32], labels: LabelScheme) -> NDArray[np.float64]:
    exact = logits.astype(float)
    if labels.has_regions:
        return np.asarray(1 / (1 + np.exp(-exact)))
    exponentials = np.exp(exact - exact.max(axis=0))
    return np.asarray(exponentials / exponentials.sum(axis=0))


@settings(max_examples=80)
@given(
    network_shapes=st.lists(shapes, min_size=2, max_size=3),
    shape=shapes,
    labels=st.sampled_from([PLAIN, REGIONS]),
    smooth=st.booleans(),
    seed=st.integers(0, 1 << 16),
)
def test_the_mean_is_that_of_all_voxels(
    network_shapes: Sequence[Shape], shape: Shape, labels: LabelScheme, smooth: bool, seed: int
) -> None:
    generator, configuration = np.random.default_rng(seed), configured(labels)
    members, mean = [], np.zeros((labels.heads, *shape))
    with ExitStack() as stack:
        for network_shape in network_shapes:
            logits = generator.normal(size=(labels.heads, *network_shape)).astype(np.float32)
            if smooth:
                logits += 5 * np.sign(np.arange(labels.heads) - 1.5).astype(np.float32)[:, None, None, None]
            placement = whole_grid(shape, network_shape, SPACING, SPACING)
            stored = stack.enter_context(StoredPlanes(planes_of(logits, labels), None))
            members.append(Member(stored, placement, configuration))
            mean += probabilities(all_voxels(logits, placement, configuration)[0], labels) / len(network_shapes)
        found = paint_mean(members)
    # a region is there from a half on; what is above 0 in this difference is above a half in the mean
    winners = winners_of((mean - 0.5 if labels.has_regions else mean).astype(np.float32), labels)
    expected = np.array((0, *labels.values))[winners + 1]
    ordered = np.sort(mean, axis=0)
    near = np.abs(mean - 0.5).min(axis=0) < 1e-5 if labels.has_regions else ordered[-1] - ordered[-2] < 1e-5
    np.testing.assert_array_equal(np.where(near, expected, found), expected)


def test_the_mean_is_of_probabilities_and_not_of_logits() -> None:
    """One network is sure of head 1; two doubt it a little. The mean of their logits would be head 1's."""
    labels = LabelScheme(values=(0, 1), has_regions=False, foreground=(1,))
    placement = whole_grid((1, 1, 1), (1, 1, 1), SPACING, SPACING)
    with ExitStack() as stack:
        members = []
        for difference in (20.0, -2.0, -2.0):
            logits = np.array([0, difference], np.float32).reshape(2, 1, 1, 1)
            stored = stack.enter_context(StoredPlanes(planes_of(logits, labels), None))
            members.append(Member(stored, placement, configured(labels)))
        assert paint_mean(members).tolist() == [[[0]]]


def test_logits_are_kept_in_the_folder_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    planes = planes_of(np.zeros((4, 2, 3, 3), np.float32), PLAIN)
    with StoredPlanes(planes, tmp_path / "scratch") as stored:
        assert stored.plane(1).logits.shape == (4, 3, 3)
        assert list((tmp_path / "scratch").iterdir()) == []  # it has no name: nothing stays if the process is killed
    with pytest.raises(FileNotFoundError):
        StoredPlanes(planes, tmp_path / "absent")
