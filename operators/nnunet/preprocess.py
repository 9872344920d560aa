"""From Hounsfield units on the scanner's grid to what the network was trained on, in nnU-Net v2's order.

Transpose, crop to the nonzero box, normalise, resample. Normalisation comes before resampling: the spline of
clipped values is not the clipped spline.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.errors import SeriesRefused
from operators.nnunet.plans import Configuration, CTNormalisation
from operators.nnunet.resampling import Shape, Spacing, resample, resampled_shape, separate_axis

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Placement:
    """Where a preprocessed image came from: what the way back needs. Axes are transposed z, y, x."""

    spacing: Spacing
    """The scanner's spacing in mm."""
    shape: Shape
    """Voxels before the crop."""
    box: Box
    """The part that was kept."""

    @property
    def cropped_shape(self) -> Shape:
        """Voxels after the crop, before resampling."""
        first, second, third = (part.stop - part.start for part in self.box)
        return first, second, third


def preprocess(
    array: NDArray[np.float32], spacing: Spacing, configuration: Configuration
) -> tuple[NDArray[np.float32], Placement]:
    """Return the network's image and where it came from.

    Parameters
    ----------
    array
        Hounsfield units, axes z, y, x.
    spacing
        In mm, z, y, x.
    configuration
        What was planned.

    Raises
    ------
    SeriesRefused
        ``volume-too-small`` if nothing is left of the image on the network's grid.
    """
    forward = configuration.transpose_forward
    transposed = array.transpose(forward)
    shape: Shape = (transposed.shape[0], transposed.shape[1], transposed.shape[2])
    placement = Placement(
        spacing=(spacing[forward[0]], spacing[forward[1]], spacing[forward[2]]),
        shape=shape,
        box=nonzero_box(transposed),
    )
    image = normalise(transposed[placement.box], configuration.normalisation)
    new_shape = resampled_shape(image.shape, placement.spacing, configuration.spacing)
    if 0 in new_shape:
        raise SeriesRefused(
            "the image is thinner than half a voxel of the network's grid; a series of more slices is needed",
            code="volume-too-small",
        )
    plan = configuration.image_resampling
    apart = separate_axis(placement.spacing, configuration.spacing, plan.separate_z)
    return resample(image, new_shape, plan.order, apart), placement


def nonzero_box(array: NDArray[np.float32]) -> Box:
    """Return the smallest box that holds all nonzero voxels; the whole array if there is none.

    nnU-Net fills the holes of the nonzero mask first. That can't change the box, and nothing else of the mask is
    used by a normalisation without mask.
    """
    nonzero = array != 0
    sides = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(nonzero.any(axis=others))
        sides.append(slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, array.shape[axis]))
    first, second, third = sides
    return first, second, third


def normalise(image: NDArray[np.float32], scheme: CTNormalisation) -> NDArray[np.float32]:
    """Return a clipped, shifted and scaled copy of `image`."""
    result = np.clip(image, np.float32(scheme.lower), np.float32(scheme.upper))
    result -= np.float32(scheme.mean)
    result /= np.float32(max(scheme.deviation, 1e-8))
    return result
