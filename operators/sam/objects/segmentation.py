"""Segmentations (PS3.3 A.51): each segment's voxels. BINARY and LABELMAP as they are, FRACTIONAL from a half on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import highdicom
import numpy as np
import pydicom
from highdicom.seg import Segmentation

from operators.errors import PromptRefused
from operators.sam.objects.prompt_object import DAMAGED, ImageReference, Mask, ObjectPrompt, Part
from operators.sam.objects.values import code_of, items, references_by_series
from operators.series_checks import text

_INSIDE = 0.5
"""Probability or occupancy from which on a voxel belongs to the segment."""
_AUTOMATIC = "AUTOMATIC"
"""What Segment Algorithm Type is called where no person had a hand in it (PS3.3 C.8.20.2)."""
_MOST_VOXELS = 1 << 30
"""Of the grid that the frames span; empty frames are left out of a Segmentation, so that few can span much."""


def segmentation_images(dataset: pydicom.Dataset) -> Iterator[ImageReference]:
    """Return the images that were segmented."""
    return references_by_series(dataset, "ReferencedInstanceSequence")


def segment_count(dataset: pydicom.Dataset) -> int:
    """Return how many segments there are; the background of a LABELMAP, number 0, is none. Needs no pixel data."""
    return sum(text(segment, "SegmentNumber") != "0" for segment in items(dataset, "SegmentSequence"))


def segmentation_parts(dataset: pydicom.Dataset) -> Iterator[Part]:
    """Return the segments; the background of a LABELMAP, number 0, is none."""
    reading = _Reading(Segmentation.from_dataset(dataset, copy=False))
    segmentation = reading.segmentation
    geometry = segmentation.get_volume_geometry()
    if geometry is None:
        raise PromptRefused(
            "expected a Segmentation whose frames are one evenly spaced stack, got another; store it on a series' grid",
            code="graphic-unsupported",
        )
    if np.prod([float(length) for length in geometry.spatial_shape]) > _MOST_VOXELS:
        raise PromptRefused(
            f"the Segmentation's frames span more than {_MOST_VOXELS} voxels; store it on a series' grid",
            code="prompt-too-long",
        )
    for segment in items(dataset, "SegmentSequence"):
        number = int(text(segment, "SegmentNumber"))
        if number:
            yield number, partial(_segment, reading, number, segment)


@dataclass
class _Reading:
    """The voxels of one segment after the other, each by itself: a damaged frame is one segment's."""

    segmentation: Segmentation

    def volume(self, number: int) -> highdicom.Volume:
        try:
            found: highdicom.Volume = self.segmentation.get_volume(segment_numbers=[number])
        except DAMAGED:
            # what a failed reading leaves open in highdicom's tables would fail the next one
            self.segmentation = Segmentation.from_dataset(self.segmentation, copy=False)
            raise
        return found


def _segment(reading: _Reading, number: int, segment: pydicom.Dataset) -> ObjectPrompt:
    segmentation = reading.segmentation
    if number not in segmentation.get_segment_numbers():
        raise PromptRefused("the segment is described and has no frame", code="prompt-empty")
    found = reading.volume(number)
    mask = found.array[..., 0] >= _INSIDE
    if not mask.any():
        raise PromptRefused("the segment has no voxel", code="prompt-empty")
    ranges = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    box = tuple(slice(int(one[0]), int(one[-1]) + 1) for one in ranges)
    volume = highdicom.Volume(
        mask,
        found.affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=text(segmentation, "FrameOfReferenceUID"),
    )[box]
    return ObjectPrompt(
        number=number,
        drawings=(Mask(volume),),
        label=text(segment, "SegmentLabel"),
        code=code_of(segment, "SegmentedPropertyTypeCodeSequence"),
        category=code_of(segment, "SegmentedPropertyCategoryCodeSequence"),
        tracking_id=text(segment, "TrackingID"),
        tracking_uid=text(segment, "TrackingUID"),
        is_automatic=text(segment, "SegmentAlgorithmType") == _AUTOMATIC,
    )
