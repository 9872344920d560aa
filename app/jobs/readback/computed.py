"""The label map as the graph computed it, and what of an object is held against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from app.errors import VerificationFailed
from operators.label_maps import LabelMap

TOLERANCE_VOXELS = 0.02
"""Of a voxel: positions are stored as decimal strings of 16 characters."""
_SOURCE_ALONG_SLICES, _SOURCE_ASIDE_PIXELS = 0.21, 0.26
"""Of a source slice from its place on an even grid; the series was accepted with less (`operators.series_geometry`)."""

Floats = NDArray[np.float64]


def require(holds: bool | np.bool_, what: str) -> None:
    """Raise ``VerificationFailed`` unless it `holds`; `what` is not so is said without patient data."""
    if not holds:
        raise VerificationFailed(f"a result, read back, is not what was computed: {what}")


@dataclass(frozen=True)
class ComputedLabels:
    """The label map as the graph computed it."""

    array: LabelMap
    affine: Floats
    frame_of_reference_uid: str

    def indices(self, positions: Floats) -> Floats:
        """Slice, row and column, not rounded, of positions (n, 3) in patient coordinates."""
        homogeneous = np.concatenate([positions, np.ones((len(positions), 1))], axis=1)
        found: Floats = (homogeneous @ np.linalg.inv(self.affine).T)[:, :3]
        return found


def corner_positions(position: Any, orientation: Any, spacing: Any, matrix: pydicom.Dataset) -> Floats:
    """Patient coordinates of the centres of three corner pixels: first, last of the first column, last of the row."""
    first = np.array(position, dtype=np.float64)
    cosines = np.array(orientation, dtype=np.float64)
    right = cosines[:3] * float(spacing[1]) * (matrix.Columns - 1)
    down = cosines[3:] * float(spacing[0]) * (matrix.Rows - 1)
    return np.array([first, first + down, first + right])


def functional_group(groups: pydicom.Dataset, shared: pydicom.Dataset, keyword: str) -> pydicom.Dataset:
    """The item of a functional group macro: the frame's own, or else the one that all frames share."""
    item: pydicom.Dataset = (groups if keyword in groups else shared)[keyword].value[0]
    return item


def slice_of(
    labels: ComputedLabels,
    corners: Floats,
    what: str,
    *,
    along: float = TOLERANCE_VOXELS,
    aside: float = TOLERANCE_VOXELS,
) -> int:
    """The slice of the label map on which these corners lie, as its own corners do.

    Along the normal they may be off by a part of a slice spacing, `along`, and within the plane by a part of a pixel,
    `aside`; but the first slice's are where the grid begins.

    Raises ``VerificationFailed`` with `what` if there is none.
    """
    found = labels.indices(corners)
    plane = int(np.rint(found[0, 0]))
    _, rows, columns = labels.array.shape
    expected = np.array([[plane, 0, 0], [plane, rows - 1, 0], [plane, 0, columns - 1]], dtype=np.float64)
    off = np.abs(found - expected)
    within = TOLERANCE_VOXELS if plane == 0 else aside
    require(bool(np.all(off[:, 1:] <= within) and np.all(off[:, 0] <= along)), what)
    require(0 <= plane < labels.array.shape[0], what)
    return plane


def source_slice_of(labels: ComputedLabels, corners: Floats) -> int:
    """The slice of the label map that a slice of the source with these corners is.

    Raises ``VerificationFailed`` if there is none.
    """
    what = "the label map does not lie on the source"
    return slice_of(labels, corners, what, along=_SOURCE_ALONG_SLICES, aside=_SOURCE_ASIDE_PIXELS)
