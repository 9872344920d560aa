"""Whether the values of a volume are of the kind that its model was trained on.

Only CT has a scale of its own, so only channels that the training normalised as CT are held against it. The statistic
is a share of voxels, taken on a regular grid of them, so that it is cheap, the same each time, and says what it says:

- at least 1 % of the voxels must lie between the two percentiles (0.5 and 99.5) of what the model was trained to find:
  a volume without them shows nothing of it, or is on another scale;
- at least 1 % must be as dark as fat or air, from -1300 to -50 Hounsfield units: a body has fat, and around it is air.
  Stored values without their intercept, grey values of a screen and MR have none. Padding is below that.

Both are far from what real series have: 26 % and 73 % in an abdominal CT with contrast agent, 37 % and 64 % in a torso.
They tell a wrong scale, not a wrong organ. For MR no share could be stated that every scanner keeps, and its
normalisation takes the scale away; there, as anywhere, only a volume of one single value is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.gate.appearance import Finding

LEAST_SHARE = 0.01
_DARKEST_HU, _LEAST_DENSE_HU = -1300.0, -50.0
_ENOUGH_VOXELS = 1_000_000


@dataclass(frozen=True)
class IntensityRange:
    """What the voxels of a training's foreground lay between, but for 0.5 % on each side; Hounsfield units."""

    lowest: float
    highest: float


def far_values(array: NDArray[np.float32], trained: IntensityRange | None) -> Iterator[Finding]:
    """Yield what is found of the values of a volume, rescaled, of any shape.

    Parameters
    ----------
    trained
        Of a channel that was normalised as CT; None of others.
    """
    sample = _sample(array)
    if sample.size and sample.min() == sample.max() and array.min() == array.max():
        yield "intensity-far", "all voxels of the volume have one value"
        return
    if trained is None:
        return
    like_trained = _share(sample, trained.lowest, trained.highest)
    dark = _share(sample, _DARKEST_HU, _LEAST_DENSE_HU)
    if like_trained < LEAST_SHARE:
        yield (
            "intensity-far",
            f"{like_trained:.2%} of the voxels lie between {trained.lowest:g} and {trained.highest:g}, as what the "
            f"model was trained to find did; at least {LEAST_SHARE:.0%} is expected",
        )
    elif dark < LEAST_SHARE:
        yield (
            "intensity-far",
            f"{dark:.2%} of the voxels are as dark as fat or air; at least {LEAST_SHARE:.0%} is expected of Hounsfield "
            "units",
        )


def _sample(array: NDArray[np.float32]) -> NDArray[np.float32]:
    step = max(1, round((array.size / _ENOUGH_VOXELS) ** (1 / max(1, array.ndim))))
    return array[tuple(slice(None, None, step) for _ in range(array.ndim))]


def _share(sample: NDArray[np.float32], lowest: float, highest: float) -> float:
    return float(np.count_nonzero((sample >= lowest) & (sample <= highest)) / max(1, sample.size))
