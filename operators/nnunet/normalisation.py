"""Intensities as the network was trained on them, in single precision and in place.

As nnU-Net v2 computes them (``nnunetv2.preprocessing.normalization``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from operators.errors import SeriesRefused

NORMALISATIONS = (
    "CTNormalization",
    "ZScoreNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
    "NoNormalization",
)
"""Those that `read_normalisation` knows, by nnU-Net's names."""
_LEAST_DEVIATION = 1e-8
_MOST_COLOUR = 255


class Normalisation(Protocol):
    """One channel's scheme."""

    @property
    def needs_mask(self) -> bool:
        """Whether `apply` must be told where the image is not empty."""
        ...

    def apply(self, image: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> None:
        """Normalise `image` in place; `mask`, of its shape, says where it is not empty."""
        ...


@dataclass(frozen=True)
class CTNormalisation:
    """Clip to two percentiles of the training foreground, then subtract its mean and divide by its deviation."""

    lower: float
    upper: float
    mean: float
    deviation: float
    needs_mask: bool = False

    def apply(self, image: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> None:
        """Normalise in place."""
        mean, deviation = np.float32(self.mean), np.float32(max(self.deviation, _LEAST_DEVIATION))
        for plane in image:  # which stays in the cache from one step to the next
            np.clip(plane, np.float32(self.lower), np.float32(self.upper), out=plane)
            plane -= mean
            plane /= deviation


@dataclass(frozen=True)
class ZScoreNormalisation:
    """Subtract the image's mean and divide by its deviation; inside the mask alone, if there is one."""

    needs_mask: bool

    def apply(self, image: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> None:
        """Normalise in place; what lies outside the mask stays as it is."""
        if mask is None:
            image -= image.mean()
            image /= max(image.std(), np.float32(_LEAST_DEVIATION))
            return
        inside = image[mask]
        if inside.size:
            mean, deviation = inside.mean(), inside.std()
            inside -= mean
            inside /= max(deviation, np.float32(_LEAST_DEVIATION))
            image[mask] = inside


@dataclass(frozen=True)
class RescaleTo01Normalisation:
    """Shift and scale so that values run from 0 to 1."""

    needs_mask: bool = False

    def apply(self, image: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> None:
        """Normalise in place."""
        image -= image.min()
        image /= max(image.max(), np.float32(_LEAST_DEVIATION))


@dataclass(frozen=True)
class RGBTo01Normalisation:
    """Divide a colour sample of 8 bits by 255."""

    needs_mask: bool = False

    def apply(self, image: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> None:
        """Normalise in place.

        Raises
        ------
        SeriesRefused
            ``intensity-range`` if values are not those of 8 bits.
        """
        lowest, highest = float(image.min()), float(image.max())
        if lowest < 0 or highest > _MOST_COLOUR:
            raise SeriesRefused(
                f"the model expects colours from 0 to {_MOST_COLOUR}, and the image has {lowest:g} to {highest:g}",
                code="intensity-range",
            )
        image /= np.float32(_MOST_COLOUR)


@dataclass(frozen=True)
class NoNormalisation:
    """Leave values as they are."""

    needs_mask: bool = False

    def apply(self, image: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> None:
        """Do nothing."""


def read_normalisation(name: str, use_mask: bool, intensity: Mapping[str, Any]) -> Normalisation | None:
    """Return the scheme that nnU-Net calls `name`; None if it is not known.

    Parameters
    ----------
    use_mask
        Whether the plans want the nonzero mask used; only one scheme heeds it.
    intensity
        The training foreground's properties of this channel.
    """
    match name:
        case "CTNormalization":
            return CTNormalisation(
                lower=float(intensity["percentile_00_5"]),
                upper=float(intensity["percentile_99_5"]),
                mean=float(intensity["mean"]),
                deviation=float(intensity["std"]),
            )
        case "ZScoreNormalization":
            return ZScoreNormalisation(needs_mask=use_mask)
        case "RescaleTo01Normalization":
            return RescaleTo01Normalisation()
        case "RGBTo01Normalization":
            return RGBTo01Normalisation()
        case "NoNormalization":
            return NoNormalisation()
        case _:
            return None
