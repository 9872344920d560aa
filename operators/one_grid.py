"""Bring a volume onto another one's grid: linear interpolation in patient coordinates."""

from __future__ import annotations

import highdicom
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

_GEOMETRY_TOLERANCE_MM = 1e-4
"""Grids that differ by less are one grid; what labels and their series may differ by, too."""
_HALF_A_VOXEL = 0.5
"""A volume ends where its outer voxels end, not at their centres."""
_ROUNDING = 1e-6
"""Of a voxel: edges that fall together are not told apart by the rounding of two affines."""

Floats = NDArray[np.float64]


def on_grid(volume: highdicom.Volume, grid: highdicom.Volume) -> highdicom.Volume | None:
    """Return `volume` on exactly the grid of `grid`; None if it covers no voxel of it.

    Parameters
    ----------
    volume
        float32, any orientation and spacing, in the frame of reference of `grid` (the caller's to check). Where the
        grids are equal already, its values are taken as they are.
    grid
        What lends shape and affine.

    Notes
    -----
    Voxels of `grid` beyond the outer faces of the voxels of `volume` become 0. Between an outer voxel's centre and its
    face its own value goes on. Nothing is smoothed where `grid` is the coarser one.
    """
    if volume.geometry_equal(grid, tol=_GEOMETRY_TOLERANCE_MM):
        return grid.with_array(volume.array)
    to_volume: Floats = np.linalg.inv(volume.affine) @ grid.affine  # from the indices of one to those of the other
    array: NDArray[np.float32] = affine_transform(
        volume.array, to_volume[:3, :3], to_volume[:3, 3], grid.spatial_shape, order=1, mode="nearest"
    )
    covered = _clear_outside(array, to_volume, volume.spatial_shape)
    return grid.with_array(array) if covered else None


def _clear_outside(array: NDArray[np.float32], to_volume: Floats, shape: tuple[int, int, int]) -> bool:
    """Set to 0 what lies outside a volume of this shape; return whether anything lies inside."""
    rows, columns = np.arange(array.shape[1])[:, None], np.arange(array.shape[2])[None, :]
    edge = _HALF_A_VOXEL + _ROUNDING
    covered = False
    for index, plane in enumerate(array):  # slice by slice: coordinates of all voxels at once take gigabytes
        inside = np.ones(plane.shape, dtype=bool)
        for (across, down, right, start), length in zip(to_volume[:3], shape, strict=True):
            place = across * index + down * rows + right * columns + start
            inside &= (place >= -edge) & (place <= length - 1 + edge)
        plane[~inside] = 0
        covered = covered or bool(inside.any())
    return covered
