"""What Segmentations of all three types have in common (PS3.3 A.51, A.92): all but their pixels.

Identity, equipment, segments, references and places are described in the same way. The same finding gives the same
bytes, so that a retry replaces and never doubles.
"""

from __future__ import annotations

from collections.abc import Sequence

import highdicom
import numpy as np
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.uid import UID

from operators.derived_uids import derived_uid
from operators.errors import OperatorError
from operators.label_maps import MOST_LABELS, LabelMap, label_counts, smallest_label_type
from operators.results.equipment import equipment_attributes, identification, processing_equipment, without_clock
from operators.results.finding import Finding, Kind, object_instance_uid, object_series_uid, series_number
from operators.results.prompting import refer_to
from operators.results.replacing import relate_to_replaced
from operators.results.series_description import say_ai
from operators.segments import SegmentSpec
from operators.source_identity import moment_of, take_over_identity
from operators.source_references import refer_to_sources, source_images

_MOST_PIXEL_DATA_BYTES = (1 << 32) - 2
"""What the length field of Pixel Data can say (PS3.5 section 7.1.2)."""
_INSTANCE_NUMBERS: dict[Kind, int] = {"segmentation": 1, "labelmap": 2, "fractional": 3}
"""The three types share a series."""
_ON_THE_GRID_MM = 1e-3
"""Closer than this highdicom, too, takes a slice and a plane to be at one place."""
_MOST_NAMED = 10
"""Label values that an error names."""


def segment_numbers(labels: LabelMap, segments: Sequence[SegmentSpec]) -> LabelMap:
    """Return segment numbers, 1 to the number of segments in their order, in place of label values.

    They are uint8 as long as the segments' number allows it, else uint16, and always an array of their own.

    Raises
    ------
    OperatorError
        ``label-undescribed``.
    """
    table = np.zeros(MOST_LABELS + 1, smallest_label_type(len(segments)))
    for number, segment in enumerate(segments, start=1):
        table[segment.label_value] = number
    found = np.flatnonzero(label_counts(labels)[1:]) + 1
    unknown = found[table[found] == 0].tolist()
    if unknown:
        raise OperatorError(
            f"the labels hold {len(unknown)} values that segments.json does not describe: {unknown[:_MOST_NAMED]}"
            f"{' and others' if len(unknown) > _MOST_NAMED else ''}",
            code="label-undescribed",
        )
    if np.array_equal(table[found], found):
        return labels.astype(table.dtype)
    numbered: LabelMap = np.take(table, labels, mode="clip")  # no label is beyond the table; "raise" is much slower
    return numbered


def placed(labels: LabelMap, finding: Finding) -> LabelMap | highdicom.Volume:
    """Return segment numbers as `segmentation_object` takes them soonest: where the series lies.

    Slices may lie a little beside the even grid of the series' volume. Labels are told on the grid then, as they were
    computed and will be proved: as a volume. Where all lie on it, an array of planes says the same.
    """
    grid = finding.series.volume
    positions = np.array([header.ImagePositionPatient for header in finding.series.datasets], np.float64)
    steps = np.arange(len(positions))[:, np.newaxis] * grid.affine[:3, 0]
    beside = np.linalg.norm(positions - (grid.affine[:3, 3] + steps), axis=1)
    return labels if beside.max() < _ON_THE_GRID_MM else grid.with_array(labels)


def check_size(frames: int, size: int) -> None:
    """Refuse what native Pixel Data of a DICOM object can't hold: `frames` that take `size` bytes.

    Raises
    ------
    OperatorError
        ``segmentation-too-large``.
    """
    if size > _MOST_PIXEL_DATA_BYTES:
        raise OperatorError(
            f"the labels make {frames} frames, {size} bytes of Pixel Data, and {_MOST_PIXEL_DATA_BYTES} are possible; "
            "use a model with fewer labels or a series with fewer slices",
            code="segmentation-too-large",
        )


def segmentation_object(
    finding: Finding,
    pixels: LabelMap | highdicom.Volume,
    kind: Kind,
    segmentation_type: SegmentationTypeValues,
    transfer_syntax_uid: UID,
    *,
    omit_empty_frames: bool,
) -> Segmentation:
    """Return the Segmentation of a finding; its source is named, and what prompted it.

    Nothing in it comes from the clock or from chance.

    Parameters
    ----------
    pixels
        As highdicom takes them. An array has a plane for each slice of the series, in their order, and lies where they
        lie; for a volume highdicom looks for the slice at each plane's place, which takes the square of their number.
    """
    date, time = moment_of(finding.series.datasets)
    description = say_ai(finding.series_description)
    segmentation = Segmentation(
        source_images=source_images(finding.series),
        pixel_array=pixels,
        segmentation_type=segmentation_type,
        segment_descriptions=_descriptions(finding),
        series_instance_uid=object_series_uid(finding.identity, kind),
        series_number=series_number(finding.source, kind),
        sop_instance_uid=object_instance_uid(finding.identity, kind),
        instance_number=_INSTANCE_NUMBERS[kind],
        transfer_syntax_uid=transfer_syntax_uid,
        content_label="SEGMENTATION",
        content_description=description,
        series_description=description,
        content_date=date,
        content_time=time,
        series_date=date,
        series_time=time,
        specific_character_set=None,  # the source's, put in below: highdicom refuses some that are in use
        omit_empty_frames=omit_empty_frames,
        contributing_equipment=[processing_equipment(finding.algorithm)],
        **equipment_attributes(finding.algorithm),
    )
    segmentation.ContentCreatorName = ""  # Type 2 (PS3.3 table 10-12), and highdicom leaves it out
    refer_to_sources(segmentation, finding.series)
    _make_repeatable(segmentation, finding.identity, date, time)
    take_over_identity(segmentation, finding.source, own_text=finding.own_text(description))
    for prompting in finding.prompted_by:
        refer_to(segmentation, prompting)
    relate_to_replaced(segmentation, finding.replaces)
    _name_sources_once(segmentation, finding)
    return segmentation


def _name_sources_once(segmentation: Segmentation, finding: Finding) -> None:
    """Leave out the Source Image Sequence of the whole where it says nothing that is not said already.

    The Common Instance Reference Module (PS3.3 C.12.2) names all instances of the series, and each frame its own slice.
    It stays where only some frames of an instance were read, or something else than the series was a source too.
    """
    series = {header.SOPInstanceUID for header in finding.series.datasets}
    if all(
        item.ReferencedSOPInstanceUID in series and "ReferencedFrameNumber" not in item
        for item in segmentation.SourceImageSequence
    ):
        del segmentation.SourceImageSequence


def _descriptions(finding: Finding) -> list[SegmentDescription]:
    algorithm = identification(finding.algorithm)
    return [
        segment.description(number, algorithm, finding.tracking(number)[1], is_automatic=finding.is_automatic)
        for number, segment in enumerate(finding.segments, start=1)
    ]


def _make_repeatable(segmentation: Segmentation, identity: str, date: str, time: str) -> None:
    """Replace what highdicom takes from the clock and from chance."""
    without_clock(segmentation, date, time)
    organization = derived_uid(identity, "dimension organization")
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
