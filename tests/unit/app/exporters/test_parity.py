"""The figures of the parity gate, on arrays whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ImportRefused
from app.exporters.parity import (
    DERIVED,
    EXACT,
    Array,
    Comparison,
    Scale,
    class_names,
    describe,
    fixed_volumes,
    scale_of,
)

CT = {"mean": 60.0, "std": 40.0, "percentile_00_5": -100.0, "percentile_99_5": 220.0, "min": -1024.0, "max": 3000.0}


def logits(seed: int = 0) -> Array:
    """Two classes, 4000 voxels, each clearly of one of them."""
    sign = np.random.default_rng(seed).choice([-1.0, 1.0], (10, 20, 20))
    return np.stack([sign, -sign]).astype(np.float32)


def compared(found: Array, expected: Array | None = None, *, has_regions: bool = False) -> Comparison:
    comparison = Comparison(["background", "liver"], has_regions=has_regions)
    comparison.add("noise", logits() if expected is None else expected, found)
    return comparison


def test_the_same_is_the_same() -> None:
    comparison = compared(logits())
    assert comparison.worst(EXACT) is None
    assert comparison.worst(DERIVED) is None
    assert all(one.agreement == one.dice == 1 and one.largest_error == 0 for one in comparison.figures())


def test_a_logit_that_is_off_names_its_class_and_volume() -> None:
    found = logits()
    found[1, 3, 4, 5] += 0.02
    worst = compared(found).worst(EXACT)
    assert worst is not None
    assert (worst.name, worst.worst_volume) == ("liver", "noise")
    assert worst.relative_error == pytest.approx(0.01, rel=1e-3)  # of a range of 2
    assert "class liver: a logit is off by 0.02" in describe(worst, EXACT)
    assert compared(found).worst(DERIVED) is None  # what is derived is judged by its labels


def test_voxels_that_change_their_label_are_counted_for_each_class() -> None:
    found = logits()
    found[:, 0, 0, :8] *= -1
    figures = compared(found).figures()
    assert all(one.agreement == pytest.approx(1 - 8 / 4000) for one in figures)
    assert all(0.99 < one.dice < 1 for one in figures)
    worst = compared(found).worst(DERIVED)
    assert worst is not None
    assert "0.99800 of the voxels agree where 0.999 must" in describe(worst, DERIVED)


def test_regions_are_judged_by_their_own_sign() -> None:
    expected = np.full((2, 10, 20, 20), 1.0, np.float32)
    found = expected.copy()
    found[1, 0, 0, :8] = -1e-4
    figures = compared(found, expected, has_regions=True).figures()
    assert [one.agreement for one in figures] == [1, pytest.approx(1 - 8 / 4000)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_beyond_every_limit(value: float) -> None:
    found = logits()
    found[0, 0, 0, 0] = value
    for limits in (EXACT, DERIVED):
        worst = compared(found).worst(limits)
        assert worst is not None
        assert worst.name == "background"
        assert "not a finite number" in describe(worst, limits)


def test_another_shape_is_refused() -> None:
    with pytest.raises(ImportRefused) as caught:
        compared(logits()[:1])
    assert caught.value.code == "parity-shape"


def test_a_class_that_is_nowhere_agrees() -> None:
    expected = np.stack([np.ones((4, 4, 4)), np.zeros((4, 4, 4))]).astype(np.float32)
    assert compared(expected, expected).figures()[1].dice == 1


@given(st.integers(1, 3), st.sampled_from([(16, 32), (4, 8, 8)]))
def test_volumes_are_seeded_finite_and_of_the_patch(channels: int, patch: tuple[int, ...]) -> None:
    scales = [Scale(-3, 3, -1000, 1000)] * channels
    volumes, again = fixed_volumes(scales, patch), fixed_volumes(scales, patch)
    assert list(volumes) == ["noise", "blobs", "ramp", "faint", "extreme"]
    for name, volume in volumes.items():
        assert volume.shape == (channels, *patch)
        assert volume.dtype == np.float32
        assert np.isfinite(volume).all()
        assert np.array_equal(volume, again[name])
        assert volume.std() > 0
    assert set(np.unique(volumes["extreme"])) == {-1000, 1000}


def test_volumes_lie_at_the_scale_of_the_normalisation() -> None:
    volumes = fixed_volumes([scale_of("CTNormalization", CT)], (8, 16, 16))
    assert volumes["extreme"].min() == pytest.approx(-4)
    assert volumes["extreme"].max() == pytest.approx(4)
    assert scale_of("ZScoreNormalization", {}).highest == 1000
    assert scale_of("RescaleTo01Normalization", {}) == Scale(0, 1, 0, 1)
    assert scale_of("NoNormalization", CT) == Scale(-100, 220, -1024, 3000)


def test_channels_differ_so_that_a_swap_can_be_seen() -> None:
    for volume in fixed_volumes([Scale(-3, 3, -1000, 1000)] * 2, (8, 16, 16)).values():
        assert not np.array_equal(volume[0], volume[1])


@pytest.mark.parametrize(
    ("labels", "names", "has_regions"),
    [
        ({"background": 0, "liver": 1, "spleen": 2}, ("background", "liver", "spleen"), False),
        ({"spleen": 2, "background": 0, "liver": 1, "ignore": 3}, ("background", "liver", "spleen"), False),
        ({"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, ("whole", "core"), True),
        ({"background": 0, "liver": [1]}, ("background", "liver"), False),
    ],
)
def test_classes_are_called_as_in_the_data_set(
    labels: dict[str, object], names: tuple[str, ...], has_regions: bool
) -> None:
    assert class_names({"labels": labels}) == (names, has_regions)
