"""Labels as a DICOM Segmentation (PS3.3 A.51): BINARY, Explicit VR Little Endian, placed by patient coordinates.

The same labels, series, model and identity give the same bytes, so that a retry replaces and never doubles.
"""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from highdicom.seg import Segmentation, SegmentationTypeValues
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    ExtensibleSRStorage,
    SegmentationStorage,
)

from operators.derived_uids import derived_uid, instance_uid, series_uid
from operators.durable import write_durably
from operators.errors import OperatorError
from operators.label_maps import MOST_LABELS, LabelMap, check_place, label_counts, labels_on, smallest_label_type
from operators.object_kinds import LABEL_MAP_SEGMENTATION_STORAGE, MANUFACTURER
from operators.segments import SegmentSpec
from operators.series_volume import SeriesVolume
from operators.source_identity import moment_of, normalised_headers, take_over_identity

_DESCRIPTION_LENGTH = 64
"""Characters of a Series Description, VR LO."""
_NAME_LENGTH = 32
"""Of them, what the name of an algorithm may take."""
_SERIES_NUMBER_OFFSET = 1000
"""A result's Series Number is its source's and this: beside it, and not another acquisition's."""
_MOST_SERIES_NUMBER = 99999
_MOST_PIXEL_DATA_BYTES = (1 << 32) - 2
"""What the length field of Pixel Data can say (PS3.5 section 7.1.2)."""
_MOST_NAMED = 10
"""Label values that an error names."""
_SEGMENTATION_CLASSES = (SegmentationStorage, LABEL_MAP_SEGMENTATION_STORAGE)
_REPORT_CLASSES = (EnhancedSRStorage, ComprehensiveSRStorage, Comprehensive3DSRStorage, ExtensibleSRStorage)


@dataclass(frozen=True)
class Algorithm:
    """Who says so (PS3.3 10.16)."""

    name: str
    version: str
    weights_digest: str
    """SHA-256 of the weights, 64 hexadecimal digits."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """What else decides its result, such as what prompted it."""


@dataclass(frozen=True)
class PromptingObject:
    """An object of the same study that prompted the algorithm."""

    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str = str(SegmentationStorage)

    @classmethod
    def of(cls, identity: str) -> PromptingObject:
        """Return the Segmentation that belongs to `identity`."""
        return cls(series_uid(identity), instance_uid(identity))


@dataclass(frozen=True)
class WrittenObject:
    """An object on disk."""

    path: Path
    digest: str
    """SHA-256 of the file, 64 hexadecimal digits."""
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


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
    check_place(labels, series.volume)
    numbered = labels.with_array(segment_numbers(labels.array, segments))
    _check_size(numbered.array)
    segmentation = _segmentation(
        numbered, series, segments, algorithm, identity, say_ai(series_description), is_automatic
    )
    for prompting in prompted_by:
        _refer_to(segmentation, prompting)
    buffer = io.BytesIO()
    segmentation.save_as(buffer, enforce_file_format=True)
    digest = write_durably(path, buffer.getvalue())
    return WrittenObject(
        path=path,
        digest=digest,
        sop_class_uid=str(SegmentationStorage),
        sop_instance_uid=str(segmentation.SOPInstanceUID),
        series_instance_uid=str(segmentation.SeriesInstanceUID),
    )


def segment_numbers(labels: LabelMap, segments: Sequence[SegmentSpec]) -> LabelMap:
    """Return segment numbers, 1 to the number of segments in their order, in place of label values.

    They are uint8 as long as the segments' number allows it, else uint16.

    Raises
    ------
    OperatorError
        ``label-undescribed``.
    """
    table = np.zeros(MOST_LABELS + 1, smallest_label_type(len(segments)))
    for number, segment in enumerate(segments, start=1):
        table[segment.label_value] = number
    found = label_counts(labels) > 0
    unknown = (np.flatnonzero(found[1:] & (table[1:] == 0)) + 1).tolist()
    if unknown:
        raise OperatorError(
            f"the labels hold {len(unknown)} values that segments.json does not describe: {unknown[:_MOST_NAMED]}"
            f"{' and others' if len(unknown) > _MOST_NAMED else ''}",
            code="label-undescribed",
        )
    numbered: LabelMap = table[labels]
    return numbered


def say_ai(description: str) -> str:
    """Return a Series Description that says that a machine made this, cut to what its VR holds."""
    said = description if re.search(r"\bAI\b", description[:_DESCRIPTION_LENGTH]) else f"AI: {description}"
    return said[:_DESCRIPTION_LENGTH].rstrip()


def say_whose(description: str, algorithm_name: str) -> str:
    """Return a Series Description that ends with whose result it is, whatever else must be cut for it."""
    end = f" ({algorithm_name[:_NAME_LENGTH]})"
    room = _DESCRIPTION_LENGTH - len(end)
    return say_ai(say_ai(description)[:room].rstrip())[:room].rstrip() + end


def _check_size(labels: LabelMap) -> None:
    """Refuse, before any frame is made, what no DICOM object can hold."""
    frames = sum(len(labels_on(plane)) for plane in labels)
    size = frames * labels[0].size // 8
    if size > _MOST_PIXEL_DATA_BYTES:
        raise OperatorError(
            f"the labels make {frames} frames, {size} bytes of Pixel Data, and {_MOST_PIXEL_DATA_BYTES} are possible; "
            "use a model with fewer labels or a series with fewer slices",
            code="segmentation-too-large",
        )


def _segmentation(
    numbered: highdicom.Volume,
    series: SeriesVolume,
    segments: Sequence[SegmentSpec],
    algorithm: Algorithm,
    identity: str,
    series_description: str,
    is_automatic: bool,
) -> Segmentation:
    identification = _identification(algorithm)
    date, time = moment_of(series.datasets)
    empty = not np.any(numbered.array)
    if empty:
        # highdicom would write every slice of every segment: gigabytes of nothing where segments are many. So it is
        # given one voxel, which is taken out again below
        numbered.array[0, 0, 0] = 1
    segmentation = Segmentation(
        source_images=normalised_headers(series.datasets, float(numbered.spacing_between_slices)),
        pixel_array=numbered,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            segment.description(
                number, identification, derived_uid(identity, "tracking", str(number)), is_automatic=is_automatic
            )
            for number, segment in enumerate(segments, start=1)
        ],
        series_instance_uid=series_uid(identity),
        series_number=_series_number(series.datasets[0]),
        sop_instance_uid=instance_uid(identity),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=algorithm.name,
        software_versions=algorithm.version,
        device_serial_number=algorithm.weights_digest[:16],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="SEGMENTATION",
        content_description=series_description,
        series_description=series_description,
        content_date=date,
        content_time=time,
        series_date=date,
        series_time=time,
        specific_character_set=None,  # the source's, put in below: highdicom refuses some that are in use
        omit_empty_frames=True,
    )
    if empty:
        segmentation.PixelData = bytes(len(segmentation.PixelData))
    _make_repeatable(segmentation, identity, date, time)
    take_over_identity(segmentation, series.datasets[0], own_text=_own_text(series_description, segments, algorithm))
    return segmentation


def _identification(algorithm: Algorithm) -> highdicom.AlgorithmIdentificationSequence:
    return highdicom.AlgorithmIdentificationSequence(
        name=algorithm.name,
        family=codes.DCM.ArtificialIntelligence,
        version=algorithm.version,
        source=MANUFACTURER,
        parameters={"weights_sha256": algorithm.weights_digest, **algorithm.parameters},
    )


def _refer_to(segmentation: Segmentation, prompting: PromptingObject) -> None:
    """Name what prompted it where the Standard has places for it.

    The Common Instance Reference Module (PS3.3 C.12.2) lists all that an instance refers to. What an image was derived
    from is listed by the General Image Module's Source Image Sequence (C.7.6.1), with a purpose from CID 7202, and,
    where it is no image, by the General Reference Module's Source Instance Sequence (C.12.4), with one from CID 7013.
    The frames' own derivation (C.7.6.16.2.6) stays that from the series: they were computed of its pixels.
    """
    instance = pydicom.Dataset()
    instance.ReferencedSOPClassUID = prompting.sop_class_uid
    instance.ReferencedSOPInstanceUID = prompting.sop_instance_uid
    source = copy.deepcopy(instance)
    if prompting.sop_class_uid in _SEGMENTATION_CLASSES:
        source.PurposeOfReferenceCodeSequence = [
            CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
        ]
        segmentation.SourceImageSequence.append(source)
    else:
        if prompting.sop_class_uid in _REPORT_CLASSES:
            source.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(codes.DCM.SourceReport)]
        segmentation.SourceInstanceSequence = [*segmentation.get("SourceInstanceSequence", ()), source]
    for series in segmentation.ReferencedSeriesSequence:
        if series.SeriesInstanceUID == prompting.series_instance_uid:
            series.ReferencedInstanceSequence.append(instance)
            return
    series = pydicom.Dataset()
    series.SeriesInstanceUID = prompting.series_instance_uid
    series.ReferencedInstanceSequence = [instance]
    segmentation.ReferencedSeriesSequence.append(series)


def _make_repeatable(segmentation: Segmentation, identity: str, date: str, time: str) -> None:
    """Replace what highdicom takes from the clock and from chance."""
    segmentation.InstanceCreationDate, segmentation.InstanceCreationTime = date, time
    organization = derived_uid(identity, "dimension organization")
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    for equipment in segmentation.ContributingEquipmentSequence:
        if equipment.PurposeOfReferenceCodeSequence[0].CodeValue == codes.DCM.ProcessingEquipment.value:
            equipment.ContributionDateTime = f"{date}{time}"


def _series_number(source: pydicom.Dataset) -> int:
    try:
        number = int(source.get("SeriesNumber") or 0)
    except ValueError:
        number = 0
    return _SERIES_NUMBER_OFFSET + (number if 0 < number <= _MOST_SERIES_NUMBER else 0)


def _own_text(series_description: str, segments: Sequence[SegmentSpec], algorithm: Algorithm) -> str:
    meanings = [
        code.meaning for segment in segments for code in (segment.category, segment.type, segment.modifier) if code
    ]
    labels = [segment.label for segment in segments]
    return " ".join([series_description, algorithm.name, algorithm.version, *labels, *meanings])
