"""A BINARY Segmentation, read back by the numbers of its file alone: not through the library that wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pydicom
from numpy.typing import NDArray

from app.graph import FindingRecord, SegmentRecord
from app.jobs.readback.computed import TOLERANCE_VOXELS, ComputedLabels, corner_positions, require, slice_of
from operators.label_maps import labels_on


def check_segmentation(dataset: pydicom.Dataset, labels: ComputedLabels, finding: FindingRecord) -> None:
    """Check segments, places and voxels. Raises ``VerificationFailed`` if anything is not what was computed."""
    _check_segments(dataset, finding)
    _check_voxels(dataset, labels, finding.segments)


def _check_segments(dataset: pydicom.Dataset, finding: FindingRecord) -> None:
    """Numbers, labels and codes are the record's, and the algorithm is the model whose weights computed it."""
    found = [
        (int(item.SegmentNumber), str(item.SegmentLabel), _code_text(item.SegmentedPropertyTypeCodeSequence[0]))
        for item in dataset.SegmentSequence
    ]
    expected = [(segment.number, segment.label, segment.code) for segment in finding.segments]
    require(found == expected, "its segments are not the record's")
    for item in dataset.SegmentSequence:
        (algorithm,) = item.SegmentationAlgorithmIdentificationSequence
        require(algorithm.AlgorithmVersion == finding.model.version, "it names another version of the model")
        require(finding.model.weights_digest in algorithm.AlgorithmParameters, "it names other weights")


def _code_text(code: pydicom.Dataset) -> str:
    return f'({code.CodeValue}, {code.CodingSchemeDesignator}, "{code.CodeMeaning}")'


def _check_voxels(dataset: pydicom.Dataset, labels: ComputedLabels, segments: Sequence[SegmentRecord]) -> None:
    """Each frame is its slice of the label map, and what has no frame is empty."""
    (shared,) = dataset.SharedFunctionalGroupsSequence
    values = {segment.number: segment.label_value for segment in segments}
    shown: list[set[int]] = [set() for _ in labels.array]
    for groups, frame in zip(dataset.PerFrameFunctionalGroupsSequence, _frames(dataset), strict=True):
        orientation = _group(groups, shared, "PlaneOrientationSequence").ImageOrientationPatient
        spacing = _group(groups, shared, "PixelMeasuresSequence").PixelSpacing
        position = _group(groups, shared, "PlanePositionSequence").ImagePositionPatient
        number = int(_group(groups, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
        corners = corner_positions(position, orientation, spacing, dataset)
        plane = slice_of(labels, corners, TOLERANCE_VOXELS, "a frame lies elsewhere than the label map's slices")
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


def _group(groups: pydicom.Dataset, shared: pydicom.Dataset, keyword: str) -> pydicom.Dataset:
    item: pydicom.Dataset = (groups if keyword in groups else shared)[keyword].value[0]
    return item
