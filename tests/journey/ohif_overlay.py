"""What a viewer's picture says about a segmentation: the label of each voxel of a slice, read from pixels' colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Labels = NDArray[np.int64]
"""Axes row, column: numbers of segments, counted from 1, 0 for none."""

OTHER = -1
"""The label of what is changed, but has no segment's colour."""

_LEAST_COLOUR = 5.0
"""A distance from grey, in values of 0 to 255; half transparent organs have 20 to 45."""
_SAME_HUE = 0.95
"""Cosine; between the hues of liver and spleen it is 0.2."""
_BORDER = 2
"""Voxels at each side of a border: there the viewer draws a line, and a pixel of the screen is of two voxels."""


@dataclass(frozen=True)
class Picture:
    """What the canvas of a viewport shows of a slice."""

    pixels: NDArray[np.uint8]
    """Axes y, x, colour (red, green, blue)."""
    to_canvas: NDArray[np.float64]
    """2x3, from (row, column, 1) of the slice to x and y on the canvas."""

    def at_voxels(self, shape: tuple[int, int]) -> NDArray[np.float64]:
        """The colours where the middles of voxels are drawn: axes row, column, colour; not-a-number off the canvas."""
        indices = np.indices(shape).reshape(2, -1)
        x, y = np.floor(self.to_canvas @ np.vstack([indices, np.ones(indices.shape[1])])).astype(int)
        height, width, _ = self.pixels.shape
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        colours = np.full((indices.shape[1], 3), np.nan)
        colours[inside] = self.pixels[y[inside], x[inside]]
        return colours.reshape(*shape, 3)


def seen_labels(
    overlaid: NDArray[np.float64], plain: NDArray[np.float64], colours: Sequence[tuple[int, int, int]]
) -> Labels:
    """What the colours of voxels, with the segments and without them, say is there.

    A half transparent colour over grey is as far from grey as the transparency lets it be, and its hue is the colour's:
    neither what is below nor how transparent it is matters.
    """
    hues = np.array([_away_from_grey(np.array(colour, float)) for colour in colours])
    found = _away_from_grey(overlaid)
    strength = np.linalg.norm(found, axis=-1)
    likeness = found @ hues.T / (np.maximum(strength, 1.0)[..., None] * np.linalg.norm(hues, axis=-1))
    is_known = (strength > _LEAST_COLOUR) & (likeness.max(axis=-1) > _SAME_HUE)
    labels = np.where(is_known, likeness.argmax(axis=-1) + 1, OTHER)
    return np.where((overlaid == plain).all(axis=-1), 0, labels)


def wrong_voxels(seen: Labels, expected: Labels, shown: NDArray[np.bool_]) -> int:
    """How many voxels of what is `shown` look otherwise than expected; those at borders don't count."""
    size = 2 * _BORDER + 1
    is_certain = ndimage.minimum_filter(expected, size) == ndimage.maximum_filter(expected, size)
    return int(((seen != expected) & is_certain & shown).sum())


def _away_from_grey(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    away: NDArray[np.float64] = colours - colours.mean(axis=-1, keepdims=True)
    return away
