"""A slice as a picture with square pixels, large enough to read the text above and below it, and still in its place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from operators.label_maps import LabelMap
from operators.results.pages import Picture
from operators.results.slices import Floats, SliceGrid

LEAST_SIDE = 512
"""Pixels of the longer side of a shown slice, and of a page's width."""
_ROUNDING = 1e-6

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Canvas:
    """How slices of one matrix are laid out. The slice is at the left, below `band` lines of pixels for text."""

    rows: int
    """Of the slice, as all below down to `column_spacing`."""
    columns: int
    row_spacing: float
    """mm."""
    column_spacing: float
    band: int
    """Rows of pixels above the slice."""
    foot: int
    """Rows of pixels below it."""

    @cached_property
    def spacing(self) -> float:
        """Of the canvas's square pixels, mm: a whole part of the slice's finer spacing."""
        finer = min(self.row_spacing, self.column_spacing)
        longer = max(self.rows * self.row_spacing, self.columns * self.column_spacing) / finer
        return finer / max(1, math.ceil(LEAST_SIDE / longer - _ROUNDING))

    @cached_property
    def source_rows(self) -> Indices:
        """The row of the slice that each row of the shown slice lies in."""
        return _sampled(self.rows, self.row_spacing / self.spacing)

    @cached_property
    def source_columns(self) -> Indices:
        """The column of the slice that each column of the shown slice lies in."""
        return _sampled(self.columns, self.column_spacing / self.spacing)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the whole canvas."""
        return (
            self.band + len(self.source_rows) + self.foot,
            max(LEAST_SIDE, len(self.source_columns)),
        )

    def shown(self, grey: NDArray[np.uint8]) -> Picture:
        """Return a slice (row, column) as the slice's part of the canvas, interpolated where pixels are made."""
        height, width = len(self.source_rows), len(self.source_columns)
        # the last row and column may reach beyond the slice by less than a pixel
        padded = Image.fromarray(np.pad(grey, ((0, 1), (0, 1)), mode="edge"))
        box = (0.0, 0.0, width * self.spacing / self.column_spacing, height * self.spacing / self.row_spacing)
        resized = np.asarray(padded.resize((width, height), Image.Resampling.BILINEAR, box=box))
        return np.repeat(resized[:, :, None], 3, axis=2)

    def outlined(self, labels: LabelMap) -> LabelMap:
        """Return the label on each pixel of the slice's part that is its label's outermost, 0 elsewhere.

        A pixel is outermost if one of its four neighbours, or what lies beyond the edge, has another label.
        """
        shown = labels[np.ix_(self.source_rows, self.source_columns)]
        padded = np.pad(shown, 1)
        inner = np.ones(shown.shape, np.bool_)
        for neighbour in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
            inner &= neighbour == shown
        return np.where(inner, 0, shown).astype(labels.dtype)

    def position(self, grid: SliceGrid) -> Floats:
        """Return where the middle of the canvas's first pixel lies in the patient, LPS mm."""
        right, down = grid.right / np.linalg.norm(grid.right), grid.down / np.linalg.norm(grid.down)
        found: Floats = grid.corner + self.spacing * (right / 2 + (0.5 - self.band) * down)
        return found


def _sampled(count: int, scale: float) -> Indices:
    """The pixel that the middle of each shown pixel lies in, where one is shown as `scale` pixels."""
    shown = math.ceil(count * scale - _ROUNDING)
    found: Indices = np.minimum(np.floor((np.arange(shown) + 0.5) / scale).astype(np.int64), count - 1)
    return found
