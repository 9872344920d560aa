"""Labels as a BINARY DICOM Segmentation (PS3.3 A.51), placed by patient coordinates.

The same labels, series, model and identity give the same bytes, so that a retry replaces and never doubles.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import highdicom

from operators.object_kinds import MANUFACTURER
from operators.results.binary import write_binary
from operators.results.finding import Algorithm, Finding, PromptingObject, WrittenObject
from operators.results.segmentation import segment_numbers
from operators.results.series_description import say_ai, say_whose
from operators.segments import SegmentSpec
from operators.series_volume import SeriesVolume

__all__ = [
    "MANUFACTURER",
    "Algorithm",
    "PromptingObject",
    "WrittenObject",
    "say_ai",
    "say_whose",
    "segment_numbers",
    "write_segmentation",
]


def write_segmentation(
    labels: highdicom.Volume,
    series: SeriesVolume,
    segments: Sequence[SegmentSpec],
    algorithm: Algorithm,
    *,
    identity: str,
    series_description: str,
    path: Path,
    is_automatic: bool = True,
    prompted_by: Sequence[PromptingObject] = (),
) -> WrittenObject:
    """Write `labels` as one Segmentation instance beside the series, and return what was written.

    Parameters
    ----------
    labels
        uint8 or uint16, axes slice, row, column, with exactly the series volume's geometry; 0 is background, other
        values are label values of `segments`.
    segments
        Every label the model can paint. All are described, found or not; frames without a voxel of a segment are left
        out. If nothing was found at all, one empty frame is written: that is a result too.
    identity
        Of the job; all UIDs derive from it.
    series_description
        "AI" is put before it unless it says so itself.
    is_automatic
        False where a person's hand guided the algorithm: Segment Algorithm Type SEMIAUTOMATIC (PS3.3 C.8.20.4).
    prompted_by
        The objects that prompted the algorithm; they are named where the Standard has places for them.

    Raises
    ------
    OperatorError
        ``labels-elsewhere`` if the labels lie elsewhere than the series, ``label-undescribed`` if they hold a value
        that no segment has, ``segmentation-too-large`` if its frames are more than a DICOM object can hold.
    """
    finding = Finding(
        labels=labels,
        series=series,
        segments=segments,
        algorithm=algorithm,
        identity=identity,
        series_description=series_description,
        is_automatic=is_automatic,
        prompted_by=prompted_by,
    )
    return write_binary(finding, path)
