"""Changing an array's voxel grid, with the numbers of nnU-Net v2's ``resample_data_or_seg_to_shape``.

nnU-Net resizes by spline interpolation on pixel centres with the edge repeated. That is a linear map, separable in
its axes: one small matrix an axis, got from the very spline routine it uses, gives its result at a fraction of the
time and memory. Where one axis is much coarser than the others, nnU-Net resizes plane by plane and takes the nearest
plane along the coarse axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from operators.nnunet.kernels import resize_labels_plane
from operators.nnunet.plans import Resampling

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]

_CHUNK_BYTES = 32 << 20


def resampled_shape(shape: Sequence[int], current: Sequence[float], target: Sequence[float]) -> Shape:
    """Return the voxels an array of `shape` has after its spacing changes from `current` to `target` mm."""
    first, second, third = (round(old / new * size) for old, new, size in zip(current, target, shape, strict=True))
    return first, second, third


def separate_axis(current: Sequence[float], target: Sequence[float], plan: Resampling) -> int | None:
    """Return the axis that is resampled apart, or None if all three are resampled alike.

    The current spacing is looked at first, then the target. With two equally coarse axes there is none.
    """
    if plan.separate_z is False:
        return None
    if plan.separate_z or _is_anisotropic(current, plan):
        spacing = current
    elif _is_anisotropic(target, plan):
        spacing = target
    else:
        return None
    coarse = [axis for axis in range(len(spacing)) if max(spacing) / spacing[axis] == 1]
    return coarse[0] if len(coarse) == 1 else None


def _is_anisotropic(spacing: Sequence[float], plan: Resampling) -> bool:
    return max(spacing) / min(spacing) > plan.anisotropy


@lru_cache(maxsize=32)
def spline_weights(size: int, new_size: int, order: int) -> NDArray[np.float32]:
    """Return the matrix, `new_size` x `size`, that resizes one axis by a spline of `order`."""
    weights: NDArray[np.float32] = _exact_weights(size, new_size, order).astype(np.float32)
    return weights


def _exact_weights(size: int, new_size: int, order: int) -> NDArray[np.float64]:
    if size == new_size:
        return np.eye(size)
    weights = ndimage.zoom(np.eye(size), (new_size / size, 1), order=order, mode="nearest", grid_mode=True)
    return np.asarray(weights, dtype=np.float64)


@lru_cache(maxsize=32)
def nearest_indices(size: int, new_size: int) -> NDArray[np.intp]:
    """Return, for each of `new_size` positions along an axis resampled apart, the nearest of its `size` old ones."""
    positions = size / new_size * (np.arange(new_size) + 0.5) - 0.5
    nearest = ndimage.map_coordinates(np.arange(size, dtype=float), [positions], order=0, mode="nearest")
    return np.asarray(nearest, dtype=np.intp)


@dataclass(frozen=True)
class Neighbours:
    """For each position along a resized axis: the two old positions it lies between, and where between them."""

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    """Equal to the first where the new position lies on it or beyond the edge."""
    share: NDArray[Any]
    """Distance from the first as a share of theirs: single or double precision."""

    def of(self, dtype: type[np.floating[Any]]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[Any]]:
        """Return the three arrays, the share in the precision `dtype`."""
        return self.first, self.second, self.share.astype(dtype)


@lru_cache(maxsize=64)
def neighbours(size: int, new_size: int, order: int, is_separate: bool) -> Neighbours:
    """Return the neighbours along an axis that is resized by a spline of order 0 or 1, or apart by the nearest."""
    if is_separate:
        index = nearest_indices(size, new_size).astype(np.int32)
        return Neighbours(index, index, np.zeros(new_size))
    # the rows of the spline routine's own matrix have one or two weights, beside each other
    weights = _exact_weights(size, new_size, order)
    used = weights != 0
    first = used.argmax(axis=1)
    second = size - 1 - used[:, ::-1].argmax(axis=1)
    share = np.where(first == second, 0.0, weights[np.arange(new_size), second])
    return Neighbours(first.astype(np.int32), second.astype(np.int32), share)


def grid_neighbours(shape: Shape, new_shape: Shape, order: int, separate: int | None) -> tuple[Neighbours, ...]:
    """Return the `neighbours` of each of three axes."""
    return tuple(
        neighbours(size, new_size, order, axis == separate)
        for axis, (size, new_size) in enumerate(zip(shape, new_shape, strict=True))
    )


def resample(array: NDArray[np.float32], new_shape: Shape, order: int, separate: int | None) -> NDArray[np.float32]:
    """Return `array` (three axes) on a grid of `new_shape` voxels over the same extent.

    Splines overshoot, so values are clipped to the range of the input: of the whole array, or of each plane across
    the `separate` axis. Beside the result, only its part that is resized along the last two axes is held.
    """
    shape: Shape = (array.shape[0], array.shape[1], array.shape[2])
    if shape == new_shape:
        return array
    if separate is not None:
        return _resample_planes(array, new_shape, order, separate)
    lowest, highest = array.min(), array.max()
    resized = np.empty((shape[0], *new_shape[1:]), np.float32)
    for planes in _chunks(shape, new_shape):
        # without their common floor, empty parts of the image stay exactly equal whatever the weights round to
        resized[planes] = _resize_planes(array[planes] - lowest, new_shape[1:], order)
    if shape[0] != new_shape[0]:
        across = spline_weights(shape[0], new_shape[0], order)
        resized = (across @ resized.reshape(shape[0], -1)).reshape(new_shape)
    resized += lowest
    return np.clip(resized, lowest, highest, out=resized)


def _resample_planes(array: NDArray[np.float32], new_shape: Shape, order: int, separate: int) -> NDArray[np.float32]:
    """Each plane across `separate` by itself; only those that the new grid takes."""
    planes = np.moveaxis(array, separate, 0)
    plane_shape = (new_shape[1], new_shape[2]), (new_shape[0], new_shape[2]), (new_shape[0], new_shape[1])
    result = np.empty(new_shape, np.float32)
    taken = np.moveaxis(result, separate, 0)
    done: tuple[int, NDArray[np.float32]] | None = None
    for target, source in enumerate(nearest_indices(array.shape[separate], new_shape[separate])):
        if done is None or done[0] != source:
            plane = planes[source]
            lowest, highest = plane.min(), plane.max()
            resized = _resize_planes((plane - lowest)[None], plane_shape[separate], order)[0]
            resized += lowest
            done = int(source), np.clip(resized, lowest, highest, out=resized)
        taken[target] = done[1]
    return result


def _resize_planes(planes: NDArray[np.float32], new_shape: tuple[int, int], order: int) -> NDArray[np.float32]:
    """Return planes (z, y, x), each resized; a plane of the right size is returned as it is."""
    if planes.shape[2] != new_shape[1]:
        planes = planes @ spline_weights(planes.shape[2], new_shape[1], order).T
    if planes.shape[1] != new_shape[0]:
        planes = np.matmul(spline_weights(planes.shape[1], new_shape[0], order), planes)
    return planes


def _chunks(shape: Shape, new_shape: Shape) -> list[slice]:
    plane_bytes = 4 * max(shape[1] * shape[2], new_shape[1] * new_shape[2])
    thickness = max(1, _CHUNK_BYTES // max(plane_bytes, 1))
    return [slice(start, start + thickness) for start in range(0, shape[0], thickness)]


def resample_labels(labels: NDArray[np.int32], new_shape: Shape, order: int, separate: int | None) -> NDArray[np.int32]:
    """Return a label map (three axes) on a grid of `new_shape` voxels: as ``batchgenerators.resize_segmentation``.

    Each label's indicator is interpolated, and the highest one wins; where two are equal, the nearest voxel's label
    if it is one of them.
    """
    shape: Shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    if shape == new_shape:
        return labels
    across, *inside = grid_neighbours(shape, new_shape, order, separate)
    rows, columns = (axis.of(np.float64) for axis in inside)
    nearest = grid_neighbours(shape, new_shape, 0, separate)
    resized = np.empty(new_shape, np.int32)
    for index, plane in enumerate(resized):
        nearest_plane = labels[nearest[0].first[index]][np.ix_(nearest[1].first, nearest[2].first)]
        resize_labels_plane(
            labels[across.first[index]],
            labels[across.second[index]],
            float(across.share[index]),
            rows,
            columns,
            nearest_plane,
            plane,
        )
    return resized
