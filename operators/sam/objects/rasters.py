"""Outlines and masks on one slice, in pixels: (0, 0) is the corner of the first pixel, whose middle is (0.5, 0.5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from operators.sam.objects.prompt_object import Floats
from operators.sam.prompts import Box, Point

Pixels = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class SliceMask:
    """Pixels of one slice, cut to the box around them."""

    top: int
    left: int
    pixels: Pixels
    """(rows, columns) of the box."""

    @property
    def box(self) -> Box:
        """The outer edges of its pixels."""
        rows, columns = self.pixels.shape
        return Box(self.left, self.top, self.left + columns, self.top + rows)

    @property
    def area(self) -> int:
        """How many pixels it has."""
        return int(np.count_nonzero(self.pixels))

    def full(self, rows: int, columns: int) -> Pixels:
        """Return it on the whole slice."""
        whole = np.zeros((rows, columns), np.bool_)
        height, width = self.pixels.shape
        whole[self.top : self.top + height, self.left : self.left + width] = self.pixels
        return whole


def cut(mask: Pixels) -> SliceMask | None:
    """Return a mask (rows, columns) cut to what is True; None if nothing is."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    inside = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return SliceMask(int(rows[0]), int(columns[0]), inside.copy())


def filled(outline: Floats, rows: int, columns: int) -> Pixels:
    """Return the pixels whose middle lies within a polygon, by the even-odd rule, so that a keyhole's hole is left out.

    Parameters
    ----------
    outline
        Corners (n, 2), x and y; the last is joined to the first.
    """
    mask = np.zeros((rows, columns), np.bool_)
    start, end = outline, np.roll(outline, -1, axis=0)
    first = max(0, int(np.floor(outline[:, 1].min())))
    last = min(rows, int(np.ceil(outline[:, 1].max())) + 1)
    for row in range(first, last):
        middle = row + 0.5
        crossing = (start[:, 1] <= middle) != (end[:, 1] <= middle)
        one, other = start[crossing], end[crossing]
        across = one[:, 0] + (middle - one[:, 1]) * (other[:, 0] - one[:, 0]) / (other[:, 1] - one[:, 1])
        edges = np.clip(np.ceil(np.sort(across) - 0.5), 0, columns).astype(int)
        for left, right in zip(edges[::2], edges[1::2], strict=True):
            mask[row, left:right] ^= True
    return mask


def farthest_inside(mask: SliceMask, spacing: tuple[float, float]) -> Point:
    """Return the middle of the pixel that lies farthest from the mask's edge; of several, the first by row and column.

    Parameters
    ----------
    spacing
        Between rows and between columns, mm.
    """
    depth = ndimage.distance_transform_edt(np.pad(mask.pixels, 1), sampling=spacing)
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return Point(mask.left + float(column) - 0.5, mask.top + float(row) - 0.5)
