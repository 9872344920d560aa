"""The probabilities that are kept are those of nnU-Net's way: interpolated logits, then softmax or sigmoid."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray

from operators.label_scheme import LabelScheme
from operators.nnunet.postprocess import paint_labels
from operators.nnunet.probabilities import Member, StoredPlanes, paint_mean
from operators.nnunet.probability_maps import STEPS, ProbabilityMaps, kept_probabilities
from tests.unit.operators.nnunet.test_postprocess import (
    PLAIN,
    REGIONS,
    all_voxels,
    configured,
    planes_of,
    whole_grid,
)
from tests.unit.operators.nnunet.test_probabilities import SPACING, probabilities

SHAPE, NETWORK_SHAPE = (7, 12, 9), (5, 8, 11)
ROUNDING = 0.5 / STEPS + 1e-5


def _of_label(heads: NDArray[np.float64], labels: LabelScheme, value: int) -> NDArray[np.float64]:
    """Of the regions that are painted as one label, the most probable one's."""
    found: NDArray[np.float64] = heads[np.array(labels.values) == value].max(axis=0)
    return found


@pytest.mark.parametrize("labels", [PLAIN, REGIONS])
@pytest.mark.parametrize("shape", [SHAPE, NETWORK_SHAPE])
def test_one_network(labels: LabelScheme, shape: tuple[int, int, int], tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(labels.heads, *NETWORK_SHAPE)).astype(np.float32) * 3
    placement, configuration = whole_grid(shape, NETWORK_SHAPE, SPACING, SPACING), configured(labels)
    maps = ProbabilityMaps(tmp_path / "kept.npy")
    painted = paint_labels(planes_of(logits, labels), placement, configuration, maps)
    expected = probabilities(all_voxels(logits, placement, configuration)[0], labels)
    for value, found in zip(sorted(labels.painted), kept_probabilities(maps.path), strict=True):
        assert found.shape == shape
        assert np.abs(found - _of_label(expected, labels, value)).max() < ROUNDING
    assert np.array_equal(painted, paint_labels(planes_of(logits, labels), placement, configuration))


@pytest.mark.parametrize("labels", [PLAIN, REGIONS])
def test_an_ensemble(labels: LabelScheme, tmp_path: Path) -> None:
    generator, configuration = np.random.default_rng(1), configured(labels)
    mean = np.zeros((labels.heads, *SHAPE))
    maps = ProbabilityMaps(tmp_path / "kept.npy")
    with ExitStack() as stack:
        members = []
        for network_shape in (NETWORK_SHAPE, SHAPE):
            logits = generator.normal(size=(labels.heads, *network_shape)).astype(np.float32)
            placement = whole_grid(SHAPE, network_shape, SPACING, SPACING)
            stored = stack.enter_context(StoredPlanes(planes_of(logits, labels), None))
            members.append(Member(stored, placement, configuration))
            mean += probabilities(all_voxels(logits, placement, configuration)[0], labels) / 2
        paint_mean(members, maps)
    for value, found in zip(sorted(labels.painted), kept_probabilities(maps.path), strict=True):
        assert np.abs(found - _of_label(mean, labels, value)).max() < ROUNDING


def test_what_was_cropped_away_is_none_of_it(tmp_path: Path) -> None:
    logits = np.full((PLAIN.heads, *SHAPE), 2.0, np.float32)
    larger = (SHAPE[0] + 2, SHAPE[1] + 1, SHAPE[2])
    box = (slice(1, 1 + SHAPE[0]), slice(0, SHAPE[1]), slice(0, SHAPE[2]))
    placement = replace(whole_grid(SHAPE, SHAPE, SPACING, SPACING), shape=larger, box=box)
    maps = ProbabilityMaps(tmp_path / "kept.npy")
    paint_labels(planes_of(logits, PLAIN), placement, configured(PLAIN), maps)
    for found in kept_probabilities(maps.path):
        assert found.shape == larger
        assert np.all(found[box] > 0)
        assert not found[0].any()
        assert not found[-1].any()


def test_they_are_turned_as_the_labels_are(tmp_path: Path) -> None:
    labels = PLAIN
    logits = np.random.default_rng(2).normal(size=(labels.heads, *SHAPE)).astype(np.float32)
    placement, configuration = whole_grid(SHAPE, SHAPE, SPACING, SPACING), configured(labels)
    turned = highdicom.Volume(np.zeros(SHAPE, np.uint8), np.diag([2.0, 1.0, 1.5, 1.0]), "PATIENT")
    maps = ProbabilityMaps(tmp_path / "kept.npy")
    paint_labels(planes_of(logits, labels), placement, configuration, maps)
    before = np.array(list(kept_probabilities(maps.path)))
    maps.turn(turned, turned.flip_spatial(0).permute_spatial_axes([0, 2, 1]))
    after = np.array(list(kept_probabilities(maps.path)))
    assert np.array_equal(after, before[:, ::-1].transpose(0, 1, 3, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["kept.npy"]
