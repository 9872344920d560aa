"""A finding as a LABELMAP Segmentation (PS3.3 A.92): one frame a slice, whose pixels are segment numbers.

Where there are many segments it is smaller by far than a BINARY one and faster to read, but it is of a SOP class that
not every archive and viewer knows yet.
"""

from __future__ import annotations

from pathlib import Path

from highdicom.seg import Segmentation, SegmentationTypeValues
from pydicom.uid import UID, RLELossless

from operators.label_maps import check_place
from operators.results.finding import Finding, WrittenObject, save_object
from operators.results.segmentation import check_size, placed, segment_numbers, segmentation_object


def write_labelmap(finding: Finding, path: Path, *, transfer_syntax_uid: UID = RLELossless) -> WrittenObject:
    """Write the finding as one LABELMAP Segmentation instance beside its series, and return what was written.

    Every slice has its frame, also where nothing was found: a reader finds one whole volume, and a finding of nothing
    is no special case. Pixels have 8 bits up to 255 segments, else 16. Number 0 is described as background, after all
    others.

    Parameters
    ----------
    transfer_syntax_uid
        RLE Lossless, which every DICOM toolkit can read, or another that highdicom writes without loss.

    Raises
    ------
    OperatorError
        As `operators.results.binary.write_binary`; ``segmentation-too-large`` only where it is not compressed.
    """
    check_place(finding.labels, finding.series.volume)
    numbered = segment_numbers(finding.labels.array, finding.segments)
    if not transfer_syntax_uid.is_encapsulated:
        check_size(len(numbered), numbered.nbytes)
    segmentation = segmentation_object(
        finding,
        placed(numbered, finding),
        "labelmap",
        SegmentationTypeValues.LABELMAP,
        transfer_syntax_uid,
        omit_empty_frames=False,
    )
    _describe_background_last(segmentation)
    return save_object(segmentation, path)


def _describe_background_last(segmentation: Segmentation) -> None:
    """Put the item of number 0, with which highdicom begins, behind the segments.

    Items of a LABELMAP's Segment Sequence may stand in any order (PS3.3 C.8.20.2.4). Viewers up to OHIF 3.13.2 take
    the place of an item for its number, as in a BINARY Segmentation, and would paint each segment in the colour of the
    one before it.
    """
    segments = segmentation.SegmentSequence
    segments.append(segments.pop(0))
