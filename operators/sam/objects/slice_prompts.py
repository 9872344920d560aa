"""How what was drawn on one slice becomes a prompt. These are all the rules there are.

==================================  ==================================================================================
outlines, ellipses                  the box around them, and their inside as a mask
an ellipsoid                        on each slice that it cuts, the box around the cut
a mask                              the box around its pixels' outer edges, and the mask
one line                            a square box, the line's middle its centre and the line's length its side, in mm.
                                    MedSAM 2 makes a box of a RECIST diameter so (``get_diameter_bbox`` in its
                                    ``medsam2_infer_CT_lesion_npz_recist.py``), in pixels, which it takes to be square
two lines                           the box around the ellipse that has the longer one as its axis and the shorter one
                                    as the width across it, widened to hold all four ends: RECIST's long and short axis
three lines and more                the box around the squares of all
a stroke                            five points along it
points                              points
==================================  ==================================================================================

Outlines, ellipsoids and masks say more than lines: where there are such on a slice, lines on it are not used. Points go
together with any of them. All points are on what is meant: DICOM's graphics have no word for what is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from operators.errors import PromptRefused
from operators.sam.objects.prompt_object import Floats
from operators.sam.objects.rasters import Pixels, SliceMask, cut, filled
from operators.sam.prompts import Box, Point, SlicePrompt

STROKE_POINTS = 5
"""MedSAM 2 takes so many points of a line."""


@dataclass(frozen=True)
class SliceGrid:
    """The pixels of a slice."""

    rows: int
    columns: int
    spacing: tuple[float, float]
    """Between rows and between columns, mm."""


@dataclass(frozen=True, eq=False)
class Line:
    """A line whose middle lies on the slice."""

    ends: Floats
    """(2, 2), x and y in pixels; of a line that leaves the slice, where its ends fall on it."""
    length: float
    """mm, in space."""


@dataclass(eq=False)
class DrawnOnSlice:
    """What was drawn on one slice for one structure, in pixels."""

    outlines: list[Floats] = field(default_factory=list)
    has_exclusive: bool = False
    boxes: list[Box] = field(default_factory=list)
    masks: list[SliceMask] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class PlacedSlice:
    """A prompt on one slice."""

    slice_index: int
    prompt: SlicePrompt
    mask: SliceMask | None = None
    """What outlines and masks enclose."""
    outlines: tuple[Floats, ...] = ()
    """Corners (n, 2), x and y, as drawn."""

    @property
    def area(self) -> float:
        """Pixels of the mask, or else of the box; 0 of points."""
        if self.mask is not None:
            return float(self.mask.area)
        box = self.prompt.box
        return 0.0 if box is None else (box.right - box.left) * (box.bottom - box.top)


def prompt_on(slice_index: int, drawn: DrawnOnSlice, grid: SliceGrid) -> PlacedSlice:
    """Return the prompt that the drawings on a slice make, its box cut to the image.

    Raises
    ------
    PromptRefused
        As `SlicePrompt.checked`: ``prompt-empty``, ``prompt-outside``, ``prompt-too-long``, ``prompt-not-finite``.
    """
    boxes = [*map(_around, drawn.outlines), *drawn.boxes, *(mask.box for mask in drawn.masks)]
    box = _union(boxes) if boxes else _box_of_lines(drawn.lines, grid)
    prompt = SlicePrompt(box=box, points=tuple(drawn.points)).checked(grid.rows, grid.columns)
    if box is not None:
        prompt = SlicePrompt(box=_within(box, grid), points=prompt.points).checked(grid.rows, grid.columns)
    return PlacedSlice(slice_index, prompt, _mask(drawn, grid), tuple(drawn.outlines))


def stroke_points(stroke: Floats) -> Floats:
    """Return `STROKE_POINTS` points at even distances along a stroke, none at its ends; (n, dimensions)."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(stroke, axis=0), axis=1))])
    places = (np.arange(STROKE_POINTS) + 0.5) / STROKE_POINTS * along[-1]
    return np.stack([np.interp(places, along, values) for values in stroke.T], axis=1)


def _box_of_lines(lines: Sequence[Line], grid: SliceGrid) -> Box | None:
    if not lines:
        return None
    if len(lines) == 2:
        return _box_of_two(lines[0], lines[1], grid)
    return _union([_square(line, grid) for line in lines])


def _square(line: Line, grid: SliceGrid) -> Box:
    return _box_at(line.ends.mean(axis=0), np.array([line.length, line.length]) / 2, grid)


def _box_of_two(one: Line, other: Line, grid: SliceGrid) -> Box:
    long, short = sorted((one, other), key=lambda line: line.length, reverse=True)
    span = (long.ends[1] - long.ends[0]) * grid.spacing[::-1]
    length = float(np.linalg.norm(span))
    direction = span / length if length > 0 else np.array([1.0, 0.0])
    across = np.array([-direction[1], direction[0]])
    half = np.hypot(direction * long.length / 2, across * short.length / 2)
    return _union([_box_at(long.ends.mean(axis=0), half, grid), _around(long.ends), _around(short.ends)])


def _box_at(centre: Floats, half: Floats, grid: SliceGrid) -> Box:
    """A box around `centre` (pixels) that reaches `half` (mm, x and y) to either side."""
    reach = half / np.array(grid.spacing[::-1])
    (left, top), (right, bottom) = (centre - reach).tolist(), (centre + reach).tolist()
    return Box(left, top, right, bottom)


def _around(points: Floats) -> Box:
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return Box(left, top, right, bottom)


def _union(boxes: Sequence[Box]) -> Box:
    return Box(
        min(box.left for box in boxes),
        min(box.top for box in boxes),
        max(box.right for box in boxes),
        max(box.bottom for box in boxes),
    )


def _within(box: Box, grid: SliceGrid) -> Box:
    return Box(
        max(0.0, box.left), max(0.0, box.top), min(float(grid.columns), box.right), min(float(grid.rows), box.bottom)
    )


def _mask(drawn: DrawnOnSlice, grid: SliceGrid) -> SliceMask | None:
    whole: Pixels = np.zeros((grid.rows, grid.columns), np.bool_)
    for outline in drawn.outlines:
        inside = filled(outline, grid.rows, grid.columns)
        whole = whole ^ inside if drawn.has_exclusive else whole | inside
    for mask in drawn.masks:
        whole |= mask.full(grid.rows, grid.columns)
    return cut(whole)


def refuse_outside(what: str) -> PromptRefused:
    """Return the refusal of what lies elsewhere than the series."""
    return PromptRefused(f"{what} outside the series; give the series that it was drawn on", code="prompt-outside")
