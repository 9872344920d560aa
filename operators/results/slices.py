"""The segments of a finding slice by slice, and where a slice's pixels lie in the patient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pydicom
from numpy.typing import NDArray
from scipy import ndimage

from operators.errors import OperatorError
from operators.label_maps import check_place, labels_on
from operators.results.contours import Corners, Pixels
from operators.results.finding import Finding
from operators.segments import SegmentSpec
from operators.series_checks import numbers

MOST_CORNERS = 4_000_000
"""Of all outlines in one object: some hundred megabytes. A model that found anatomy draws a tenth of that at most."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SegmentOnSlice:
    """A segment on one slice."""

    slice_index: int
    mask: Pixels
    """(row, column) of the part of the slice that it may be on."""
    top: int
    """The first row of that part."""
    left: int

    def placed(self, corners: Corners) -> Corners:
        """Return corners on the part as corners on the slice."""
        found: Corners = corners + np.array([self.left, self.top])
        return found


@dataclass(frozen=True, eq=False)
class SliceGrid:
    """A source slice in the patient, by its own header (PS3.3 C.7.6.2.1.1): LPS, mm."""

    corner: Floats
    """The outer corner of the first pixel."""
    right: Floats
    """The step to the next column."""
    down: Floats
    """The step to the next row."""

    @classmethod
    def of(cls, header: pydicom.Dataset) -> SliceGrid:
        """Return where the pixels of an image lie."""
        cosines = np.array(numbers(header, "ImageOrientationPatient"))
        between_rows, between_columns = numbers(header, "PixelSpacing")
        right, down = cosines[:3] * between_columns, cosines[3:] * between_rows
        return cls(np.array(numbers(header, "ImagePositionPatient")) - (right + down) / 2, right, down)

    def places(self, points: NDArray[np.int64]) -> Floats:
        """Return where points (n, 2) lie, x and y in pixels from the outer corner of the first: (n, 3)."""
        found: Floats = self.corner + points[:, :1] * self.right + points[:, 1:] * self.down
        return found


def segments_on_slices(finding: Finding) -> Iterator[tuple[int, SegmentSpec, Iterator[SegmentOnSlice]]]:
    """Yield number, segment and slices with it of every segment, found or not.

    Raises
    ------
    OperatorError
        ``labels-elsewhere`` if the labels lie elsewhere than the series, ``label-undescribed`` if they hold a value
        that no segment has.
    """
    check_place(finding.labels, finding.series.volume)
    boxes = ndimage.find_objects(finding.labels.array)
    values = {segment.label_value for segment in finding.segments}
    unknown = [value for value, box in enumerate(boxes, start=1) if box is not None and value not in values]
    if unknown:
        raise OperatorError(
            f"the labels hold {len(unknown)} values that segments.json does not describe, {unknown[0]} among them; "
            "describe every label that the model can paint",
            code="label-undescribed",
        )
    for number, segment in enumerate(finding.segments, start=1):
        box = boxes[segment.label_value - 1] if segment.label_value <= len(boxes) else None
        yield number, segment, iter(()) if box is None else _on_slices(finding, segment.label_value, box)


def found_on(finding: Finding) -> list[set[int]]:
    """Return the label values that each slice holds."""
    return [set(labels_on(plane).tolist()) for plane in finding.labels.array]


class CornerCount:
    """Counts corners, and ends an object that would become too large."""

    def __init__(self) -> None:
        self._corners = 0

    def add(self, corners: int) -> None:
        """Count more corners.

        Raises
        ------
        OperatorError
            ``outlines-too-many``.
        """
        self._corners += corners
        if self._corners > MOST_CORNERS:
            raise OperatorError(
                f"the outlines have more than {MOST_CORNERS} corners, as those of noise do; deliver a segmentation "
                "instead, or use a model that finds whole structures",
                code="outlines-too-many",
            )


def _on_slices(finding: Finding, value: int, box: tuple[slice, ...]) -> Iterator[SegmentOnSlice]:
    within, top, left = finding.labels.array[box], box[1].start, box[2].start
    for index, plane in enumerate(within, start=box[0].start):
        mask = plane == value
        if mask.any():
            yield SegmentOnSlice(index, mask, top, left)
