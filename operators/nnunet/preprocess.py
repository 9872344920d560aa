"""From an image on the scanner's grid to what the network was trained on, in nnU-Net v2's order.

Transpose, crop to the nonzero box, normalise, resample. Normalisation comes before resampling: the spline of
clipped values is not the clipped spline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from operators.errors import SeriesRefused
from operators.nnunet.plans import Configuration
from operators.nnunet.resampling import (
    Shape,
    Spacing,
    resample,
    resample_labels,
    resampled_shape,
    separate_axis,
)

Box = tuple[slice, slice, slice]

OUTSIDE = -1
"""The label of what lies outside the nonzero mask, where a previous stage found nothing."""


@dataclass(frozen=True)
class Placement:
    """Where a network's image comes from: what the way back needs. Axes are transposed z, y, x."""

    spacing: Spacing
    """The scanner's spacing in mm."""
    network_spacing: Spacing
    """The network's; a 2d network takes slices as they are spaced."""
    shape: Shape
    """Voxels before the crop."""
    box: Box
    """The part that was kept."""
    network_shape: Shape
    """Voxels of the network's image."""

    @property
    def cropped_shape(self) -> Shape:
        """Voxels after the crop, before resampling."""
        first, second, third = (part.stop - part.start for part in self.box)
        return first, second, third


@dataclass(frozen=True)
class NetworkImage:
    """What a network sees. Axes are transposed z, y, x."""

    channels: NDArray[np.float32]
    """(channel, z, y, x), normalised and resampled."""
    previous_labels: NDArray[np.int32] | None
    """(z, y, x), what the previous stage found, resampled; None without one."""


def place(channels: Sequence[NDArray[np.float32]], spacing: Spacing, configuration: Configuration) -> Placement:
    """Return where the network's image will come from.

    Parameters
    ----------
    channels
        The images, axes z, y, x, all on one grid.
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
    transposed = [channel.transpose(forward) for channel in channels]
    box = nonzero_box(transposed)
    scanner: Spacing = (spacing[forward[0]], spacing[forward[1]], spacing[forward[2]])
    first, second, third = (*scanner[: 3 - len(configuration.spacing)], *configuration.spacing)
    cropped = [part.stop - part.start for part in box]
    network_shape = resampled_shape(cropped, scanner, (first, second, third))
    if 0 in network_shape:
        raise SeriesRefused(
            "the image is thinner than half a voxel of the network's grid; a series of more slices is needed",
            code="volume-too-small",
        )
    size = transposed[0].shape
    return Placement(scanner, (first, second, third), (size[0], size[1], size[2]), box, network_shape)


def preprocess(
    channels: Sequence[NDArray[np.float32]],
    placement: Placement,
    configuration: Configuration,
    previous_labels: NDArray[Any] | None = None,
) -> NetworkImage:
    """Return what the network sees. The arrays that come in are left alone.

    Parameters
    ----------
    channels
        The images, axes z, y, x, all on one grid.
    placement
        From `place`.
    configuration
        What was planned.
    previous_labels
        Of the previous stage, axes z, y, x, on the same grid.
    """
    forward, box = configuration.transpose_forward, placement.box
    cropped = [channel.transpose(forward)[box] for channel in channels]
    needs_mask = previous_labels is not None or any(one.needs_mask for one in configuration.normalisations)
    mask = nonzero_mask(cropped) if needs_mask else None
    plan = configuration.image_resampling
    apart = separate_axis(placement.spacing, placement.network_spacing, plan)
    result = np.empty((len(channels), *placement.network_shape), np.float32)
    for target, channel, normalisation in zip(result, cropped, configuration.normalisations, strict=True):
        image = channel.astype(np.float32, order="C", copy=True)
        normalisation.apply(image, mask if normalisation.needs_mask else None)
        resample(image, placement.network_shape, plan.order, apart, out=target)
    if previous_labels is None:
        return NetworkImage(result, None)
    return NetworkImage(
        result, _previous_labels(previous_labels.transpose(forward)[box], mask, placement, configuration)
    )


def _previous_labels(
    labels: NDArray[Any], mask: NDArray[np.bool_] | None, placement: Placement, configuration: Configuration
) -> NDArray[np.int32]:
    marked = labels.astype(np.int32)
    if mask is not None:
        marked[(marked == 0) & ~mask] = OUTSIDE
    plan = configuration.labels_resampling
    apart = separate_axis(placement.spacing, placement.network_spacing, plan)
    return resample_labels(marked, placement.network_shape, plan.order, apart)


def nonzero_box(channels: Sequence[NDArray[np.float32]]) -> Box:
    """Return the smallest box that holds every voxel that is not zero in some channel; the whole if there is none.

    nnU-Net fills the holes of the nonzero mask first, which can't change the box. Planes are looked at from the faces
    inwards, so that an image without an empty border costs next to nothing.
    """
    sides: list[slice] = []
    for axis in range(3):
        size = channels[0].shape[axis]
        planes = [np.moveaxis(channel[tuple(sides)], axis, 0) for channel in channels]
        first = next((index for index in range(size) if _any_nonzero(planes, index)), None)
        if first is None:
            return _whole(channels[0])
        last = next(index for index in range(size - 1, -1, -1) if _any_nonzero(planes, index))
        sides.append(slice(first, last + 1))
    return sides[0], sides[1], sides[2]


def _whole(array: NDArray[np.float32]) -> Box:
    first, second, third = array.shape
    return slice(0, first), slice(0, second), slice(0, third)


def _any_nonzero(planes: Sequence[NDArray[np.float32]], index: int) -> bool:
    return any(bool(channel[index].any()) for channel in planes)


def nonzero_mask(channels: Sequence[NDArray[np.float32]]) -> NDArray[np.bool_]:
    """Return where some channel is not zero, with holes filled."""
    mask = channels[0] != 0
    for channel in channels[1:]:
        mask |= channel != 0
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(mask)
    return filled
