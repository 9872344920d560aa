"""Prompts out of another model's result: an nnU-Net's labels show a generalist where to look again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import highdicom
import numpy as np
from scipy import ndimage

from operators.errors import PromptRefused
from operators.label_maps import LabelMap
from operators.sam.objects.placing import PlacedPrompt, slice_grid
from operators.sam.objects.prompt_object import ObjectPrompt
from operators.sam.objects.rasters import SliceMask
from operators.sam.objects.slice_prompts import PlacedSlice, SliceGrid
from operators.sam.prompts import Box, SlicePrompt
from operators.segments import SegmentSpec


def prompts_from_labels(
    labels: highdicom.Volume, segments: Sequence[SegmentSpec], *, margin_mm: float = 0.0
) -> tuple[PlacedPrompt, ...]:
    """Return a prompt for each segment that the labels hold, by rising label value: a box and a mask on each slice.

    `PlacedPrompt.key` is the slice with its largest area, `PlacedPrompt.interior` a point well within it.

    Parameters
    ----------
    labels
        uint8 or uint16, axes slice, row, column, on the grid of the series to be segmented.
    segments
        The wanted ones.
    margin_mm
        By how much boxes are wider than the masks on each side; they end where the image ends.

    Raises
    ------
    PromptRefused
        ``prompt-empty`` if the labels hold none of the segments.
    """
    grid = slice_grid(labels)
    wanted = {segment.label_value: segment for segment in segments}
    slices: dict[int, list[PlacedSlice]] = {value: [] for value in sorted(wanted)}
    for index, plane in enumerate(labels.array):
        for value, mask in _masks(plane):
            if value in wanted:
                prompt = SlicePrompt(box=_widened(mask.box, margin_mm, grid))
                slices[value].append(PlacedSlice(index, prompt, mask))
    found = [PlacedPrompt(_object(wanted[value]), tuple(placed), grid) for value, placed in slices.items() if placed]
    if not found:
        raise PromptRefused(
            f"the labels hold none of {len(wanted)} wanted segments, so that nothing is shown", code="prompt-empty"
        )
    return tuple(found)


def _masks(plane: LabelMap) -> Iterator[tuple[int, SliceMask]]:
    for value, box in enumerate(ndimage.find_objects(plane), start=1):
        if box is not None:
            rows, columns = box
            yield value, SliceMask(int(rows.start), int(columns.start), plane[box] == value)


def _widened(box: Box, margin_mm: float, grid: SliceGrid) -> Box:
    down, right = (margin_mm / np.array(grid.spacing)).tolist()
    return Box(
        max(0.0, box.left - right),
        max(0.0, box.top - down),
        min(float(grid.columns), box.right + right),
        min(float(grid.rows), box.bottom + down),
    )


def _object(segment: SegmentSpec) -> ObjectPrompt:
    return ObjectPrompt(number=segment.label_value, drawings=(), label=segment.label, code=segment.type)
