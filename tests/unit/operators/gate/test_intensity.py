"""What a CT's values look like when something is wrong with their scale."""

import numpy as np
import pytest
from numpy.typing import NDArray

from operators.gate.intensity import IntensityRange, far_values

LIVER = IntensityRange(-68.0, 204.0)
LUNG = IntensityRange(-950.0, -300.0)


def _body(air: float = -1000.0) -> NDArray[np.float32]:
    """A cylinder of soft tissue in a ring of fat, with a bone beside its middle and a lung, in air."""
    z, y, x = np.meshgrid(np.arange(20), np.arange(64) - 31.5, np.arange(80) - 39.5, indexing="ij")
    radius = np.hypot(y / 26, x / 34)
    values = np.select([radius < 0.85, radius < 1], [50.0, -100.0], air)
    values[(np.hypot(y - 12, x) < 5)] = 900.0
    values[(np.hypot(y, x - 14) < 9) & (z > 12)] = -800.0
    return (values + np.random.default_rng(5).normal(0, 15, values.shape)).astype(np.float32)


def _far(array: NDArray[np.float32], trained: IntensityRange | None = LIVER) -> bool:
    return [code for code, _ in far_values(array, trained)] == ["intensity-far"]


@pytest.mark.parametrize("trained", [LIVER, LUNG, IntensityRange(-1004.0, 1588.0), None])
def test_a_body_is_near_whatever_the_model_finds_in_it(trained: IntensityRange | None) -> None:
    assert not _far(_body(), trained)


def test_padding_around_the_scanned_circle_changes_nothing() -> None:
    assert not _far(_body(air=-3024.0))


@pytest.mark.parametrize(
    "broken",
    [
        _body() + 1024,  # stored values, their intercept lost
        _body(air=-3024.0) + 1024 + np.float32(0),  # the same, with padding
        np.clip(_body() + 160, 0, 400) / 400 * 255,  # grey values of a screen: window 40/400
        np.abs(_body()) / 4,  # as MR: no negative value
        _body() * 0.01,
        _body() * 100,
    ],
)
def test_another_scale_is_far(broken: NDArray[np.float32]) -> None:
    assert _far(broken.astype(np.float32))


def test_without_a_scale_only_a_single_value_is_far() -> None:
    assert _far(np.full((5, 6, 7), -1000.0, np.float32), None)
    assert not _far(_body() * 100, None)
    one = np.zeros((5, 600, 700), np.float32)
    one[2, 301, 401] = 1  # which the sample misses
    assert not _far(one, None)


def test_the_share_is_stated_as_it_is() -> None:
    array = np.full((10, 10, 10), -1000.0, np.float32)
    array.reshape(-1)[:9] = 100.0
    ((_, message),) = far_values(array, LIVER)
    assert message.startswith("0.90% of the voxels lie between -68 and 204")
    array.reshape(-1)[9] = 100.0
    assert not _far(array)


def test_large_volumes_are_sampled() -> None:
    body = np.tile(_body(), (4, 5, 6))
    assert not _far(body)
    assert _far(body + 1024)
