"""The fixtures of nnU-Net are whole: every package loads, and nnU-Net painted what the package says it can."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from operators.model_package import ModelPackage
from operators.segments import load_segments
from tests.nnunet_fixtures import MODELS, NAMES, read_fixture

MOST_BYTES = 700_000


@pytest.mark.parametrize("name", NAMES)
def test_fixture_is_whole(name: str) -> None:
    fixture = read_fixture(name)
    package = ModelPackage.load(fixture.package)
    coded = {segment.label_value for segment in load_segments(package.segments_path)}
    assert len(fixture.results) == len(package.all_networks)
    assert fixture.cases
    for case in fixture.cases:
        assert case.image.ndim == 4
        assert len(case.image) == len(package.channel_names)
        assert case.labels.shape == case.labels_single.shape == case.image.shape[1:]
        assert case.labels.dtype == case.labels_single.dtype
        found = set(np.unique(case.labels).tolist())
        assert len(found) > 2
        assert found - {0} <= coded
        assert np.mean(case.labels != case.labels_single) < 1e-3


def test_no_two_networks_share_a_name() -> None:
    names = Counter(folder.name for name in NAMES for folder in (MODELS / name / "repository").iterdir())
    assert set(names.values()) == {1}
    assert all(name.startswith("fixture_") for name in names)


@pytest.mark.parametrize("name", NAMES)
def test_fixture_is_small(name: str) -> None:
    assert sum(path.stat().st_size for path in (MODELS / name).rglob("*") if path.is_file()) < MOST_BYTES
