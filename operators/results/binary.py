"""A finding as a BINARY Segmentation (PS3.3 A.51): Explicit VR Little Endian, which every receiver can read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from highdicom.seg import Segmentation, SegmentationTypeValues
from pydicom.uid import ExplicitVRLittleEndian

from operators.label_maps import LabelMap, check_place, labels_on
from operators.results.finding import Finding, WrittenObject, save_object
from operators.results.segmentation import check_size, placed, segment_numbers, segmentation_object


def write_binary(finding: Finding, path: Path) -> WrittenObject:
    """Write the finding as one BINARY Segmentation instance beside its series, and return what was written.

    All segments are described, found or not; frames without a voxel of a segment are left out. If nothing was found at
    all, one empty frame is written: that is a result too.

    Raises
    ------
    OperatorError
        ``labels-elsewhere`` if the labels lie elsewhere than the series, ``label-undescribed`` if they hold a value
        that no segment has, ``segmentation-too-large`` if its frames are more than a DICOM object can hold.
    """
    check_place(finding.labels, finding.series.volume)
    numbered = segment_numbers(finding.labels.array, finding.segments)
    _check_size(numbered)
    return save_object(_segmentation(finding, numbered), path)


def _check_size(labels: LabelMap) -> None:
    """Refuse, before any frame is made, what no DICOM object can hold."""
    frames = sum(len(labels_on(plane)) for plane in labels)
    check_size(frames, frames * labels[0].size // 8)


def _segmentation(finding: Finding, numbered: LabelMap) -> Segmentation:
    empty = not np.any(numbered)
    if empty:
        # highdicom would write every slice of every segment: gigabytes of nothing where segments are many. So it is
        # given one voxel, which is taken out again below
        numbered[0, 0, 0] = 1
    segmentation = segmentation_object(
        finding,
        placed(numbered, finding),
        "segmentation",
        SegmentationTypeValues.BINARY,
        ExplicitVRLittleEndian,
        omit_empty_frames=True,
    )
    if empty:
        segmentation.PixelData = bytes(len(segmentation.PixelData))
    return segmentation
