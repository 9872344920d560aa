"""Label maps: volumes of label values as nnU-Net gives them, uint8 or, where a model has many labels, uint16.

What is asked of a whole map is asked of one slice after the other: NumPy's counting makes eight bytes of each voxel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from operators.errors import OperatorError

if TYPE_CHECKING:  # the exporter environment works with label maps too, and has no highdicom
    import highdicom

LabelMap = NDArray[np.uint8 | np.uint16]
"""Axes slice, row, column; 0 is background."""
MOST_LABELS = 65535
"""The highest label value, and the highest Segment Number, whose VR is US."""
_GEOMETRY_TOLERANCE_MM = 1e-4
_CUBIC_MM_PER_ML = 1000.0


def is_label_type(dtype: np.dtype[np.generic]) -> bool:
    """Whether arrays of this type can be label maps: uint8 or uint16, in the machine's byte order."""
    return dtype in (np.dtype(np.uint8), np.dtype(np.uint16))


def smallest_label_type(highest: int) -> type[np.uint8] | type[np.uint16]:
    """Return the type of a label map whose highest value is `highest`, 0 to `MOST_LABELS`."""
    return np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16


def label_counts(labels: LabelMap) -> NDArray[np.int64]:
    """Return how many voxels hold each value: an array of `MOST_LABELS` + 1 counts."""
    counts = np.zeros(MOST_LABELS + 1, np.int64)
    for plane in labels:
        found = np.bincount(plane.reshape(-1))
        counts[: len(found)] += found
    return counts


def labels_on(plane: LabelMap) -> NDArray[np.int64]:
    """Return the label values that one slice holds, rising, without background."""
    found: NDArray[np.int64] = np.flatnonzero(np.bincount(plane.reshape(-1))[1:]) + 1
    return found


def voxel_millilitres(volume: highdicom.Volume) -> float:
    """Return the volume of one voxel in ml."""
    return float(volume.voxel_volume) / _CUBIC_MM_PER_ML


def check_place(labels: highdicom.Volume, grid: highdicom.Volume) -> None:
    """Check that `labels` are a label map on exactly the grid of `grid`.

    Raises
    ------
    OperatorError
        ``labels-elsewhere``.
    """
    check_grid(labels, grid, "labels")
    if not is_label_type(labels.dtype):
        raise OperatorError(f"expected labels of type uint8 or uint16, got {labels.dtype}", code="labels-elsewhere")


def check_grid(volume: highdicom.Volume, grid: highdicom.Volume, what: str) -> None:
    """Check that `volume`, which holds `what`, lies on exactly the grid of `grid`.

    Raises
    ------
    OperatorError
        ``labels-elsewhere``.
    """
    same = volume.geometry_equal(grid, tol=_GEOMETRY_TOLERANCE_MM)
    # highdicom compares a volume's frame of reference with itself
    if not same or volume.frame_of_reference_uid != grid.frame_of_reference_uid:
        raise OperatorError(f"the {what} do not lie where the series lies", code="labels-elsewhere")
