"""What Segmentations of all three types say of their segments and frames, held against the record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pydicom

from app.graph import FindingRecord
from app.jobs.readback.computed import (
    ComputedLabels,
    corner_positions,
    functional_group,
    require,
    slice_of,
)


def check_segments(segments: Sequence[pydicom.Dataset], finding: FindingRecord) -> None:
    """Numbers, labels and codes are the record's, and the algorithm is the model whose weights computed it."""
    found = [
        (int(item.SegmentNumber), str(item.SegmentLabel), code_text(item.SegmentedPropertyTypeCodeSequence[0]))
        for item in segments
    ]
    expected = [(segment.number, segment.label, segment.code) for segment in finding.segments]
    require(found == expected, "its segments are not the record's")
    for item in segments:
        (algorithm,) = item.SegmentationAlgorithmIdentificationSequence
        require(algorithm.AlgorithmVersion == finding.model.version, "it names another version of the model")
        require(finding.model.weights_digest in algorithm.AlgorithmParameters, "it names other weights")


def code_text(code: pydicom.Dataset) -> str:
    """Return a code as the Standard writes it, and as the record has it."""
    return f'({code.CodeValue}, {code.CodingSchemeDesignator}, "{code.CodeMeaning}")'


def frame_slices(dataset: pydicom.Dataset, labels: ComputedLabels) -> Iterator[tuple[pydicom.Dataset, int]]:
    """Yield the functional groups of each frame and the slice of the label map that it lies on, all corners of it.

    Raises ``VerificationFailed`` where there is none.
    """
    (shared,) = dataset.SharedFunctionalGroupsSequence
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        orientation = functional_group(groups, shared, "PlaneOrientationSequence").ImageOrientationPatient
        spacing = functional_group(groups, shared, "PixelMeasuresSequence").PixelSpacing
        position = functional_group(groups, shared, "PlanePositionSequence").ImagePositionPatient
        corners = corner_positions(position, orientation, spacing, dataset)
        yield groups, slice_of(labels, corners, "a frame lies elsewhere than the label map's slices")


def referenced_segment_number(dataset: pydicom.Dataset, groups: pydicom.Dataset) -> int:
    """Return the segment that a frame shows."""
    (shared,) = dataset.SharedFunctionalGroupsSequence
    return int(functional_group(groups, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
