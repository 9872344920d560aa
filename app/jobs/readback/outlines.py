"""Outlines filled again, by another library than drew them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from app.jobs.readback.computed import TOLERANCE_VOXELS, ComputedLabels, Floats, require
from operators.label_maps import labels_on

_FINE = 3
"""Pixels of the picture to one of the slice. Pillow draws an outline's own pixels too, and between those of two edges
there is one whose colour is that of the inside."""

Bits = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Inside:
    """What an outline encloses, on a part of a slice."""

    top: int
    left: int
    bits: Bits

    def add_to(self, counts: NDArray[np.uint8]) -> None:
        """Add 1 to the counts (row, column) of the slice where it is."""
        rows, columns = self.bits.shape
        counts[self.top : self.top + rows, self.left : self.left + columns] += self.bits


def inside(points: Floats, shape: tuple[int, ...]) -> Inside:
    """Return the pixels whose middles lie within an outline along the edges of pixels.

    Parameters
    ----------
    points
        (n, 2), x and y; (0, 0) is the outer corner of the first pixel. The last is joined to the first.
    shape
        Rows and columns of the slice.

    Raises
    ------
    VerificationFailed
        If the outline runs elsewhere than along edges, or leaves the slice.
    """
    require(len(points) >= 4, "an outline has too few points")
    corners = np.rint(points).astype(np.int64)
    require(bool(np.all(np.abs(points - corners) <= TOLERANCE_VOXELS)), "an outline lies elsewhere than pixels' edges")
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    within = min(left, top) >= 0 and right <= shape[1] and bottom <= shape[0]
    require(within, "an outline leaves the slice")
    picture = Image.new("1", ((right - left) * _FINE + 1, (bottom - top) * _FINE + 1))
    places = (corners - (left, top)) * _FINE
    ImageDraw.Draw(picture).polygon([(x, y) for x, y in places.tolist()], fill=1)
    middle = slice(_FINE // 2, None, _FINE)
    return Inside(top, left, np.asarray(picture, np.bool_)[middle, middle])


def require_shown(labels: ComputedLabels, shown: set[tuple[int, int]]) -> None:
    """Require that exactly the slices and label values that the label map holds are `shown`."""
    computed = {(index, value) for index, plane in enumerate(labels.array) for value in labels_on(plane).tolist()}
    require(computed <= shown, f"outlines on {len(computed - shown)} slices of segments are missing")
    require(shown <= computed, f"{len(shown - computed)} slices of segments have outlines and nothing was found there")
