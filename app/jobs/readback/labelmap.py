"""A LABELMAP Segmentation, decoded by pydicom and held against the label map: not through the library that wrote it."""

from __future__ import annotations

import numpy as np
import pydicom
from pydicom.pixels.utils import iter_pixels

from app.graph import FindingRecord
from app.jobs.readback.computed import ComputedLabels, require
from app.jobs.readback.segments import check_segments, frame_slices
from operators.label_maps import MOST_LABELS, smallest_label_type
from operators.object_kinds import LABEL_MAP_SEGMENTATION_STORAGE

_BACKGROUND = ("125040", "DCM")


def check_labelmap(dataset: pydicom.Dataset, labels: ComputedLabels, finding: FindingRecord) -> None:
    """Check segments, places and voxels. Raises ``VerificationFailed`` if anything is not what was computed."""
    is_labelmap = (dataset.SOPClassUID, dataset.SegmentationType) == (LABEL_MAP_SEGMENTATION_STORAGE, "LABELMAP")
    require(is_labelmap, "it is no LABELMAP Segmentation")
    *segments, background = dataset.SegmentSequence
    (code,) = background.SegmentedPropertyTypeCodeSequence
    is_background = (code.CodeValue, code.CodingSchemeDesignator) == _BACKGROUND
    require(background.SegmentNumber == 0 and is_background, "its number 0 is not background")
    check_segments(segments, finding)
    _check_voxels(dataset, labels, finding)


def _check_voxels(dataset: pydicom.Dataset, labels: ComputedLabels, finding: FindingRecord) -> None:
    """Each slice of the label map has one frame, and each pixel is the number of its label's segment."""
    highest = len(finding.segments)
    numbers = np.zeros(MOST_LABELS + 1, smallest_label_type(highest))
    for segment in finding.segments:
        numbers[segment.label_value] = segment.number
    require(dataset.BitsAllocated == 8 * numbers.itemsize, "its pixels have another size than its segments need")
    shown: set[int] = set()
    for (_, plane), frame in zip(frame_slices(dataset, labels), iter_pixels(dataset), strict=True):
        require(plane not in shown, "two frames show one slice")
        shown.add(plane)
        computed = labels.array[plane]
        described = np.array_equal(numbers[computed] == 0, computed == 0)
        require(described, "the label map holds a label without a segment")
        require(np.array_equal(frame, numbers[computed]), "the voxels differ")
    require(len(shown) == len(labels.array), "a slice has no frame")
