"""Changing an array's voxel grid, with the numbers of nnU-Net v2's ``resample_data_or_seg_to_shape``.

nnU-Net resizes by spline interpolation on pixel centres with the edge repeated. That is a linear map, separable in
its axes: one small matrix an axis, got from the very spline routine it uses, gives its result at a fraction of the
time and memory. Where one axis is much coarser than the others, nnU-Net resizes plane by plane and takes the nearest
plane along the coarse axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]

ANISOTROPY_THRESHOLD = 3.0
"""Ratio of the largest to the smallest spacing above which the coarse axis is resampled apart."""


def resampled_shape(shape: Sequence[int], current: Spacing, target: Spacing) -> Shape:
    """Return the voxels an array of `shape` has after its spacing changes from `current` to `target` mm."""
    first, second, third = (round(old / new * size) for old, new, size in zip(current, target, shape, strict=True))
    return first, second, third


def separate_axis(current: Spacing, target: Spacing, force: bool | None = None) -> int | None:
    """Return the axis that is resampled apart, or None if all three are resampled alike.

    The current spacing is looked at first, then the target. With two equally coarse axes there is none.
    """
    if force is False:
        return None
    if force is True or _is_anisotropic(current):
        spacing = current
    elif _is_anisotropic(target):
        spacing = target
    else:
        return None
    coarse = [axis for axis in range(len(spacing)) if max(spacing) / spacing[axis] == 1]
    return coarse[0] if len(coarse) == 1 else None


def _is_anisotropic(spacing: Spacing) -> bool:
    return max(spacing) / min(spacing) > ANISOTROPY_THRESHOLD


@lru_cache(maxsize=32)
def spline_weights(size: int, new_size: int, order: int) -> NDArray[np.float32]:
    """Return the matrix, `new_size` x `size`, that resizes one axis by a spline of `order`."""
    zoom = (new_size / size, 1)
    weights = ndimage.zoom(np.eye(size), zoom, order=order, mode="nearest", grid_mode=True)
    return np.asarray(weights, dtype=np.float32)


@lru_cache(maxsize=32)
def nearest_indices(size: int, new_size: int) -> NDArray[np.intp]:
    """Return, for each of `new_size` positions along an axis, the nearest of its `size` old ones."""
    positions = size / new_size * (np.arange(new_size) + 0.5) - 0.5
    nearest = ndimage.map_coordinates(np.arange(size, dtype=float), [positions], order=0, mode="nearest")
    return np.asarray(nearest, dtype=np.intp)


def axis_weights(shape: Shape, new_shape: Shape, order: int, separate: int | None) -> list[NDArray[np.float32]]:
    """Return one matrix an axis: the spline's, or along the `separate` axis the choice of the nearest plane."""
    matrices = []
    for axis, (size, new_size) in enumerate(zip(shape, new_shape, strict=True)):
        if axis == separate:
            matrices.append(np.eye(size, dtype=np.float32)[nearest_indices(size, new_size)])
        elif size == new_size:
            matrices.append(np.eye(size, dtype=np.float32))
        else:
            matrices.append(spline_weights(size, new_size, order))
    return matrices


def resample(array: NDArray[np.float32], new_shape: Shape, order: int, separate: int | None) -> NDArray[np.float32]:
    """Return `array` (three axes) on a grid of `new_shape` voxels over the same extent.

    Splines overshoot, so values are clipped to the range of the input: of the whole array, or of each plane across
    the `separate` axis.
    """
    shape: Shape = (array.shape[0], array.shape[1], array.shape[2])
    if shape == new_shape:
        return array
    reduced = tuple(axis for axis in range(3) if axis != separate)
    lowest, highest = array.min(axis=reduced, keepdims=True), array.max(axis=reduced, keepdims=True)
    result = array
    for axis in reduced:
        if shape[axis] != new_shape[axis]:
            result = apply_weights(spline_weights(shape[axis], new_shape[axis], order), result, axis)
    result = np.clip(result, lowest, highest, out=result if result is not array else None)
    if separate is not None:
        result = result.take(nearest_indices(shape[separate], new_shape[separate]), axis=separate)
    return result


def apply_weights(weights: NDArray[np.float32], array: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return `array` with `axis` multiplied by the matrix `weights`."""
    return np.moveaxis(np.tensordot(weights, array, axes=(1, axis)), 0, axis)
