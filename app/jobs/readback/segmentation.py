"""A BINARY Segmentation, read back by the numbers of its file alone: not through the library that wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pydicom
from numpy.typing import NDArray

from app.graph import FindingRecord, SegmentRecord
from app.jobs.readback.computed import ComputedLabels, require
from app.jobs.readback.segments import check_segments, frame_slices, referenced_segment_number
from operators.label_maps import labels_on


def check_segmentation(dataset: pydicom.Dataset, labels: ComputedLabels, finding: FindingRecord) -> None:
    """Check segments, places and voxels. Raises ``VerificationFailed`` if anything is not what was computed."""
    check_segments(dataset.SegmentSequence, finding)
    _check_voxels(dataset, labels, finding.segments)


def _check_voxels(dataset: pydicom.Dataset, labels: ComputedLabels, segments: Sequence[SegmentRecord]) -> None:
    """Each frame is its slice of the label map, and what has no frame is empty."""
    values = {segment.number: segment.label_value for segment in segments}
    shown: list[set[int]] = [set() for _ in labels.array]
    for (groups, plane), frame in zip(frame_slices(dataset, labels), _frames(dataset), strict=True):
        number = referenced_segment_number(dataset, groups)
        require(values[number] not in shown[plane], "two frames show one slice of a segment")
        shown[plane].add(values[number])
        same = np.array_equal(frame, labels.array[plane] == values[number])
        require(same, f"the voxels of segment {number} differ")
    described = set(values.values())
    for computed, there in zip(labels.array, shown, strict=True):
        found = set(labels_on(computed).tolist())
        require(found <= described, "the label map holds a label without a segment")
        require(found <= there, f"frames of the label values {sorted(found - there)[:10]} are missing")


def _frames(dataset: pydicom.Dataset) -> Iterator[NDArray[np.bool_]]:
    """Yield the frames of a BINARY Segmentation, one at a time.

    They are bits, the lowest of a byte first, and follow each other without padding (PS3.5 sections 8.1.1 and 8.2):
    only the first is sure to begin with a byte, which pydicom's own frame by frame reading takes for granted.
    """
    size = dataset.Rows * dataset.Columns
    pixels = np.frombuffer(dataset.PixelData, np.uint8)
    require(dataset.BitsAllocated == 1, "its pixels are not bits")
    require(len(pixels) >= -(-size * dataset.NumberOfFrames // 8), "its pixel data is cut off")
    for start in range(0, size * dataset.NumberOfFrames, size):
        bits = np.unpackbits(pixels[start // 8 : -(-(start + size) // 8)], bitorder="little")
        yield bits[start % 8 : start % 8 + size].reshape(dataset.Rows, dataset.Columns).astype(np.bool_)
