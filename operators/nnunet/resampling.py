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

_CHUNK_BYTES = 1 << 20
"""Planes that are resized together: they stay in the cache from one step to the next."""
_BLOCK = 24
"""New positions along an axis that are computed together, from those old ones that have a weight for any of them."""
_LEAST_WEIGHT = 2.0**-30
"""A spline's weights fall by a factor of 3.7 from one position to the next: what is left out of a sum, less than
three times this share of the image's range, is far below what single precision rounds away."""


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


@dataclass(frozen=True)
class WeightBlock:
    """A part of the matrix that resizes an axis: these new positions have no weights that count for other old ones."""

    new: slice
    old: slice
    weights: NDArray[np.float32]


@lru_cache(maxsize=32)
def spline_blocks(size: int, new_size: int, order: int) -> tuple[WeightBlock, ...]:
    """Return the matrix, `new_size` x `size`, that resizes an axis by a spline of `order`, as blocks along its band."""
    exact = _exact_weights(size, new_size, order)
    blocks = []
    for start in range(0, new_size, _BLOCK):
        rows = exact[start : start + _BLOCK]
        used = np.flatnonzero((np.abs(rows) > _LEAST_WEIGHT).any(axis=0))
        new, old = slice(start, start + len(rows)), slice(int(used[0]), int(used[-1]) + 1)
        blocks.append(WeightBlock(new, old, np.ascontiguousarray(rows[:, old], dtype=np.float32)))
    return tuple(blocks)


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


def resample(
    array: NDArray[np.float32],
    new_shape: Shape,
    order: int,
    separate: int | None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Return `array` (three axes) on a grid of `new_shape` voxels over the same extent: in `out`, if it is given.

    Splines overshoot, so values are clipped to the range of the input: of the whole array, or of each plane across
    the `separate` axis. Beside the result, only its part that is resized along the last two axes is held.
    """
    shape: Shape = (array.shape[0], array.shape[1], array.shape[2])
    if shape == new_shape and out is None:
        return array
    result = np.empty(new_shape, np.float32) if out is None else out
    if shape == new_shape:
        result[...] = array
    elif separate is not None:
        _resample_planes(array, result, order, separate)
    else:
        _resample_whole(array, result, order)
    return result


def _resample_whole(array: NDArray[np.float32], result: NDArray[np.float32], order: int) -> None:
    """All three axes alike: planes first, a few at a time, then across them."""
    depth, new_depth = len(array), len(result)
    lowest, highest = array.min(), array.max()
    resized = result if depth == new_depth else np.empty((depth, *result.shape[1:]), np.float32)
    for planes in _chunks(array.shape, result.shape):
        # without their common floor, empty parts of the image stay exactly equal whatever the weights round to
        _resize_planes(array[planes] - lowest, resized[planes], order)
    if depth == new_depth:
        _restore(result, lowest, highest)
        return
    for block in spline_blocks(depth, new_depth, order):
        part = result[block.new]
        np.matmul(block.weights, _flat(resized[block.old]), out=_flat(part))
        _restore(part, lowest, highest)


def _flat(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each plane as one line: a view, of an array whose planes lie beside each other."""
    return planes.reshape(len(planes), -1, copy=False)


def _restore(resized: NDArray[np.float32], lowest: np.float32, highest: np.float32) -> None:
    """Put the floor back, and clip to the range there was."""
    resized += lowest
    np.clip(resized, lowest, highest, out=resized)


def _resample_planes(array: NDArray[np.float32], result: NDArray[np.float32], order: int, separate: int) -> None:
    """Each plane across `separate` by itself; only those that the new grid takes."""
    planes, taken = np.moveaxis(array, separate, 0), np.moveaxis(result, separate, 0)
    resized = np.empty(taken.shape[1:], np.float32)
    done = -1
    for target, source in zip(taken, nearest_indices(len(planes), len(taken)), strict=True):
        if done != source:
            plane = planes[source]
            lowest, highest = plane.min(), plane.max()
            _resize_planes((plane - lowest)[None], resized[None], order)
            _restore(resized, lowest, highest)
            done = int(source)
        target[...] = resized


def _resize_planes(planes: NDArray[np.float32], resized: NDArray[np.float32], order: int) -> None:
    """Put planes (z, y, x), each resized to the planes of `resized`, there."""
    count, height, width = resized.shape
    rows = planes
    if planes.shape[1] != height:
        rows = resized if planes.shape[2] == width else np.empty((count, height, planes.shape[2]), np.float32)
        for block in spline_blocks(planes.shape[1], height, order):
            np.matmul(block.weights, planes[:, block.old], out=rows[:, block.new])
    if planes.shape[2] != width:
        for block in spline_blocks(planes.shape[2], width, order):
            np.matmul(rows[:, :, block.old], block.weights.T, out=resized[:, :, block.new])
    elif rows is planes:
        resized[...] = planes


def _chunks(shape: Sequence[int], new_shape: Sequence[int]) -> list[slice]:
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
