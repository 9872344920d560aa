"""A finding as an RT Structure Set (PS3.3 A.19): closed contours on the source slices, for radiotherapy systems.

Contours run along the edges of pixels (`operators.results.contours`), so that a reader that asks which pixels' middles
lie within them gets the label map back, and the area within them is that of the pixels. A component of a segment on a
slice is one contour; a hole in it is joined to it by a channel without width (keyhole, C.8.8.6.3). Of the Standard's
two ways that is the one that every reader understands, whether it combines the contours of a slice by union or by
exclusive or: CLOSEDPLANAR_XOR is skipped by some as unknown.

Every segment that the model can find is a region of interest. One that was not found has no contours, which the
Standard allows (Contour Sequence is Type 3) and treatment planning systems show as an empty structure: that it was
looked for is a result too, and a structure set without any region would not be valid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from highdicom.base import SOPClass
from pydicom.dataelem import DataElement
from pydicom.sr.codedict import codes
from pydicom.uid import RTStructureSetStorage

from operators.label_maps import label_counts, voxel_millilitres
from operators.object_kinds import MANUFACTURER
from operators.results.common_modules import (
    DESCRIPTION_LENGTH,
    NOT_VERIFIED,
    complete,
    described,
    display_rgb,
    identity_header,
    instance_references,
    prompting_reference,
    referenced_series,
    segment_text,
    transfer_syntax,
)
from operators.results.contours import outlines
from operators.results.equipment import equipment_attributes
from operators.results.finding import (
    Finding,
    WrittenObject,
    object_instance_uid,
    object_series_uid,
    save_object,
    series_number,
)
from operators.results.slices import CornerCount, Floats, SegmentOnSlice, SliceGrid, segments_on_slices
from operators.segments import SegmentSpec
from operators.source_identity import moment_of
from operators.source_references import SourceReferences

_DECIMALS = 4
"""Of coordinates in mm: a tenth of a micrometre, and a value of VR DS never reaches its 16 characters."""
_CONTOUR_DATA = 0x30060050
_STUDY_COMPONENT_MANAGEMENT = "1.2.840.10008.3.1.2.3.1"
"""What Referenced SOP Class UID of a study is: Detached Study Management, retired, and still asked for here."""
_ANATOMICAL_STRUCTURE = "123037004"
_UNAPPROVED = "UNAPPROVED"


def write_structure_set(finding: Finding, path: Path) -> WrittenObject:
    """Write the contours of a finding as one RT Structure Set, and return what was written.

    Raises
    ------
    OperatorError
        ``labels-elsewhere`` and ``label-undescribed`` if the labels are not the series' and the segments';
        ``outlines-too-many`` if they are noise.
    """
    regions, count = [], CornerCount()
    for number, segment, places in segments_on_slices(finding):
        regions.append((number, segment, list(_contours(finding, places, count))))
    references = SourceReferences(finding.series)
    dataset = _blank(finding, _longest(contour for _, _, contours in regions for contour in contours))
    moment = moment_of(finding.series.datasets)
    _add_structure_set(dataset, finding, references)
    dataset.StructureSetDate, dataset.StructureSetTime = moment
    counts = label_counts(finding.labels.array)
    millilitres = voxel_millilitres(finding.labels)
    dataset.StructureSetROISequence = [
        _region(finding, number, segment, float(counts[segment.label_value]) * millilitres)
        for number, segment, _ in regions
    ]
    dataset.ROIContourSequence = [
        _drawn(number, segment, contours, references) for number, segment, contours in regions
    ]
    dataset.RTROIObservationsSequence = [_observed(number, segment) for number, segment, _ in regions]
    text = [*segment_text(finding.segments), str(dataset.SeriesDescription)]
    complete(dataset, finding.source, moment, finding.algorithm, own_text=text)
    return save_object(dataset, path)


def _contours(finding: Finding, places: Iterable[SegmentOnSlice], count: CornerCount) -> Iterator[tuple[int, str]]:
    """Yield the index of the slice and the points, as Contour Data holds them, of each contour of a segment."""
    for place in places:
        grid = SliceGrid.of(finding.series.datasets[place.slice_index])
        for corners in outlines(place.mask):
            count.add(len(corners))
            yield place.slice_index, _text(grid.places(place.placed(corners)))


def _text(points: Floats) -> str:
    rounded = np.round(points, _DECIMALS) + 0.0  # without the sign of a negative zero
    return "\\".join(map(repr, rounded.reshape(-1).tolist()))


def _longest(contours: Iterable[tuple[int, str]]) -> int:
    return max((len(points) for _, points in contours), default=0)


def _blank(finding: Finding, longest: int) -> SOPClass:
    dataset = SOPClass(
        study_instance_uid=finding.source.StudyInstanceUID,
        series_instance_uid=object_series_uid(finding.identity, "structure-set"),
        series_number=series_number(finding.source, "structure-set"),
        sop_instance_uid=object_instance_uid(finding.identity, "structure-set"),
        sop_class_uid=RTStructureSetStorage,
        instance_number=1,
        modality="RTSTRUCT",
        transfer_syntax_uid=transfer_syntax(longest),
        series_description=described(finding, "contours"),
        **equipment_attributes(finding.algorithm),
    )
    dataset.copy_patient_and_study_information(identity_header(finding.series.datasets))
    return dataset


def _add_structure_set(dataset: pydicom.Dataset, finding: Finding, references: SourceReferences) -> None:
    """Add what the contours are about and where they lie (PS3.3 C.7.4.1, C.8.8.1, C.8.8.5, C.12.2, C.12.4)."""
    dataset.OperatorsName = ""
    dataset.StructureSetLabel = "AI"
    dataset.StructureSetName = str(dataset.SeriesDescription)
    dataset.StructureSetDescription = NOT_VERIFIED
    dataset.ApprovalStatus = _UNAPPROVED
    dataset.FrameOfReferenceUID = finding.source.FrameOfReferenceUID
    dataset.PositionReferenceIndicator = finding.source.get("PositionReferenceIndicator") or ""
    dataset.ReferencedFrameOfReferenceSequence = [_referenced_frame(finding, references)]
    sources = instance_references(finding.series.datasets)
    dataset.SourceInstanceSequence = [*sources, *map(prompting_reference, finding.prompted_by)]
    dataset.ReferencedSeriesSequence = referenced_series(finding.series.datasets, finding.prompted_by)


def _referenced_frame(finding: Finding, references: SourceReferences) -> pydicom.Dataset:
    frame, study, series = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    series.SeriesInstanceUID = finding.source.SeriesInstanceUID
    series.ContourImageSequence = references.images()
    study.ReferencedSOPClassUID = _STUDY_COMPONENT_MANAGEMENT
    study.ReferencedSOPInstanceUID = finding.source.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = finding.source.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _region(finding: Finding, number: int, segment: SegmentSpec, volume_ml: float) -> pydicom.Dataset:
    """The item of Structure Set ROI Sequence (PS3.3 C.8.8.5)."""
    algorithm = finding.algorithm
    region = pydicom.Dataset()
    region.ROINumber = number
    region.ReferencedFrameOfReferenceUID = finding.source.FrameOfReferenceUID
    region.ROIName = segment.label
    region.ROIVolume = f"{volume_ml:.10g}"
    region.ROIGenerationAlgorithm = "AUTOMATIC" if finding.is_automatic else "SEMIAUTOMATIC"
    made_by = f"{algorithm.name} {algorithm.version}"
    region.ROIGenerationDescription = made_by[:DESCRIPTION_LENGTH].rstrip()
    region.ROIDerivationAlgorithmIdentificationSequence = highdicom.AlgorithmIdentificationSequence(
        name=algorithm.name,
        family=codes.DCM.ArtificialIntelligence,
        version=algorithm.version,
        source=MANUFACTURER,
        parameters={"weights_sha256": algorithm.weights_digest, **algorithm.parameters},
    )
    return region


def _drawn(
    number: int, segment: SegmentSpec, contours: list[tuple[int, str]], references: SourceReferences
) -> pydicom.Dataset:
    """The item of ROI Contour Sequence (PS3.3 C.8.8.6)."""
    drawn = pydicom.Dataset()
    drawn.ReferencedROINumber = number
    drawn.ROIDisplayColor = list(display_rgb(segment, number))
    if contours:
        drawn.ContourSequence = [
            _contour(place, references.images([index]), points)
            for place, (index, points) in enumerate(contours, start=1)
        ]
    return drawn


def _contour(number: int, images: list[pydicom.Dataset], points: str) -> pydicom.Dataset:
    contour = pydicom.Dataset()
    contour.ContourNumber = number
    contour.ContourImageSequence = images
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = (points.count("\\") + 1) // 3
    # as text: pydicom would make a number of each of a million values, and text of it again
    contour.add(DataElement(_CONTOUR_DATA, "DS", points, already_converted=True))
    return contour


def _observed(number: int, segment: SegmentSpec) -> pydicom.Dataset:
    """The item of RT ROI Observations Sequence (PS3.3 C.8.8.8): what it is, and never that it is a target."""
    observed = pydicom.Dataset()
    observed.ObservationNumber = number
    observed.ReferencedROINumber = number
    is_anatomy = segment.category.value == _ANATOMICAL_STRUCTURE
    observed.RTROIInterpretedType = "ORGAN" if is_anatomy else ""
    observed.ROIInterpreter = ""
    code = segment.type.concept()
    if segment.modifier is not None:
        code.SegmentedPropertyTypeModifierCodeSequence = [segment.modifier.concept()]
    observed.RTROIIdentificationCodeSequence = [code]
    return observed
