"""Prompts out of another model's result: what an nnU-Net found on a slice shows a generalist where to look again."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from operators.sam.objects.rasters import Pixels, cut, farthest_inside
from operators.sam.prompts import MOST_POINTS, Box, Point, SegmentPrompts, SlicePrompt

_TOUCHING = np.ones((3, 3))
"""Pixels that meet at a corner are of one part."""


def prompt_from_mask(
    mask: Pixels, spacing: tuple[float, float], *, prompts: SegmentPrompts, margin: float
) -> SlicePrompt:
    """Return the prompt that shows what one segment has on one slice.

    Parameters
    ----------
    mask
        (rows, columns), with at least one pixel.
    spacing
        Between rows and between columns, mm.
    prompts
        What it is shown by.
    margin
        How much larger than the segment a box is on each side, in pixels.
    """
    return SlicePrompt(
        box=box_around(mask, margin) if shows_boxes(prompts) else None,
        points=points_inside(mask, spacing) if shows_points(prompts) else (),
    )


def shows_boxes(prompts: SegmentPrompts) -> bool:
    """Whether segments are shown by boxes, alone or with points."""
    return prompts != "points"


def shows_points(prompts: SegmentPrompts) -> bool:
    """Whether segments are shown by points, alone or with boxes."""
    return prompts != "boxes"


def box_around(mask: Pixels, margin: float) -> Box:
    """Return the box around what is set in (rows, columns), `margin` pixels larger on each side within the image."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return Box(
        left=max(0.0, float(columns[0]) - margin),
        top=max(0.0, float(rows[0]) - margin),
        right=min(float(mask.shape[1]), float(columns[-1]) + 1 + margin),
        bottom=min(float(mask.shape[0]), float(rows[-1]) + 1 + margin),
    )


def points_inside(mask: Pixels, spacing: tuple[float, float]) -> tuple[Point, ...]:
    """Return for each connected part of (rows, columns) the point that lies farthest from its edge.

    The parts come by falling area, those of one area by row and column; of more than `MOST_POINTS` the largest.
    """
    parts, count = ndimage.label(mask, structure=_TOUCHING)
    areas = np.bincount(parts.reshape(-1), minlength=count + 1)[1:]
    largest = np.argsort(-areas, kind="stable")[:MOST_POINTS] + 1
    cuts = [cut(parts == part) for part in largest]
    return tuple(farthest_inside(one, spacing) for one in cuts if one is not None)
