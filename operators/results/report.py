"""A finding as a Comprehensive 3D SR by TID 1500: what was measured of each segment, and which were looked for in vain.

It is what reporting systems read volumes from, and IHE AI Results asks for as the root of a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pydicom
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    Comprehensive3DSR,
    ContentSequence,
    FindingSite,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from operators.label_maps import check_place
from operators.object_kinds import MANUFACTURER, Kind
from operators.results.finding import Algorithm, Finding, PromptingObject, WrittenObject, save_object
from operators.results.replacing import name_predecessors
from operators.results.segmentation import segment_numbers
from operators.results.structured_report import (
    LANGUAGE,
    coded,
    observation_context,
    procedure_reported,
    qualitative_evaluations,
    report_document,
    said,
)
from operators.results.voxel_values import SegmentValues, measure_segments, value_concept
from operators.segments import SegmentSpec

SIGNIFICANT_DIGITS = 6
"""Of measured values: far beyond what a voxel's size decides, and a reader need not see sixteen."""
_ANATOMICAL_STRUCTURE = ("123037004", "SCT")
"""The segmented property category whose types are anatomic locations (CID 7150)."""
_SIDES = ("7771000", "24028007", "51440002", "66459002")
"""CID 244."""


def write_report(
    finding: Finding,
    segmentation: WrittenObject | None,
    path: Path,
    *,
    kind: Kind = "report",
    notes: Sequence[str] = (),
) -> WrittenObject:
    """Write the finding as one report beside its series, and return what was written.

    Each segment has its group: whether it is present or absent, as the algorithm sees it, and, where it was found, its
    volume in cubic centimetres and mean and standard deviation of the source's values, if their unit is known.

    Parameters
    ----------
    segmentation
        The Segmentation of the same finding, of any type; groups of segments that were found refer to theirs in it.
        Without it they are groups of TID 1501 instead of TID 1411.
    kind
        Which of the reports it is: each has UIDs of its own, since it refers to another object.
    notes
        Sentences for people about the whole result, beside what the gate noted of the series; without a patient's name
        or identifier.

    Raises
    ------
    OperatorError
        ``labels-elsewhere`` if the labels lie elsewhere than the series, ``label-undescribed`` if they hold a value
        that no segment has.
    """
    check_place(finding.labels, finding.series.volume)
    segment_numbers(finding.labels.array, finding.segments)
    values = measure_segments(finding)
    report = MeasurementReport(
        observation_context=observation_context(finding.algorithm),
        procedure_reported=procedure_reported(finding.source),
        imaging_measurements=[
            _group(finding, number, values.get(number), segmentation) for number in range(1, len(finding.segments) + 1)
        ],
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(LANGUAGE),
    )
    summary = (
        codes.DCM.AllAlgorithmsSucceededWithFindings if values else codes.DCM.AllAlgorithmsSucceededWithoutFindings
    )
    said_of_it = [*(one.message for one in finding.series.notes), *notes]
    comments = [said(codes.DCM.Comment, note) for note in said_of_it]
    report[0].ContentSequence.append(
        qualitative_evaluations([coded(codes.DCM.CADProcessingAndFindingsSummary, summary), *comments])
    )
    document = report_document(
        Comprehensive3DSR,
        report[0],
        finding.series.datasets,
        _other_evidence(finding, segmentation),
        kind=kind,
        identity=finding.identity,
        algorithm=finding.algorithm,
        series_description=finding.series_description,
        own_text=finding.own_text(*said_of_it),
    )
    name_predecessors(document, finding.replaces)
    return save_object(document, path)


def algorithm_identification(algorithm: Algorithm) -> AlgorithmIdentification:
    """Return who says so (TID 4019)."""
    return AlgorithmIdentification(
        name=algorithm.name,
        version=algorithm.version,
        parameters=[f"{name}={value}" for name, value in algorithm.all_parameters.items()],
        family=codes.DCM.ArtificialIntelligence,
        manufacturer=MANUFACTURER,
    )


def _group(
    finding: Finding, number: int, values: SegmentValues | None, segmentation: WrittenObject | None
) -> ContentSequence:
    """A segment's group: TID 1411 where there is a segment to refer to, else TID 1501."""
    segment = finding.segments[number - 1]
    identifier, uid = finding.tracking(number)
    presence = QualitativeEvaluation(
        codes.DCM.PresenceOfProperty, codes.SCT.Absent if values is None else codes.SCT.Present
    )
    content = {
        "tracking_identifier": TrackingIdentifier(uid=uid, identifier=identifier),
        "finding_category": segment.category.concept(),
        "finding_type": segment.type.concept(),
        "finding_sites": _sites(segment),
        "algorithm_id": algorithm_identification(finding.algorithm),
        "measurements": None if values is None else _measurements(finding.source, values),
        "qualitative_evaluations": [presence],
    }
    if values is None or segmentation is None:
        group: ContentSequence = MeasurementsAndQualitativeEvaluations(**content)
    else:
        group = VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=_reference(finding, number, segmentation), **content
        )
    _modify_finding(group, segment)
    return group


def _reference(finding: Finding, number: int, segmentation: WrittenObject) -> ReferencedSegment:
    return ReferencedSegment(
        sop_class_uid=segmentation.sop_class_uid,
        sop_instance_uid=segmentation.sop_instance_uid,
        segment_number=number,
        source_series=SourceSeriesForSegmentation(str(finding.source.SeriesInstanceUID)),
    )


def _is_anatomy(segment: SegmentSpec) -> bool:
    return (segment.category.value, segment.category.scheme) == _ANATOMICAL_STRUCTURE


def _is_side(segment: SegmentSpec) -> bool:
    return segment.modifier is not None and segment.modifier.value in _SIDES


def _sites(segment: SegmentSpec) -> list[FindingSite] | None:
    """The finding site: the structure itself, with its side, where the finding is one."""
    if not _is_anatomy(segment):
        return None
    modifier = None if segment.modifier is None else segment.modifier.concept()
    side = _is_side(segment)
    return [
        FindingSite(
            anatomic_location=segment.type.concept(),
            laterality=modifier if side else None,
            topographical_modifier=None if side else modifier,
        )
    ]


def _modify_finding(group: ContentSequence, segment: SegmentSpec) -> None:
    """Put the modifier of a finding that is no anatomical structure below the finding: the template is extensible."""
    if segment.modifier is None or _is_anatomy(segment):
        return
    name = codes.SCT.Laterality if _is_side(segment) else codes.SCT.TopographicalModifier
    (item,) = (one for one in group[0].ContentSequence if one.name == codes.DCM.Finding)
    item.ContentSequence = [
        CodeContentItem(name, segment.modifier.concept(), relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD)
    ]


def _measurements(source: pydicom.Dataset, values: SegmentValues) -> list[Measurement]:
    volume = Measurement(
        name=codes.SCT.Volume,
        value=_rounded(values.volume_ml),
        unit=codes.UCUM.CubicCentimeter,
        method=codes.DCM.SumOfSegmentedVoxelMethodForVolume,
    )
    concept = value_concept(source)
    if concept is None:
        return [volume]
    name, unit = concept
    return [
        volume,
        _statistic(name, unit, values.mean, codes.SCT.Mean),
        _statistic(name, unit, values.standard_deviation, codes.SCT.StandardDeviation),
    ]


def _statistic(name: Code, unit: Code, value: float, derivation: Code | CodedConcept) -> Measurement:
    return Measurement(name=name, value=_rounded(value), unit=unit, derivation=derivation)


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _other_evidence(finding: Finding, segmentation: WrittenObject | None) -> list[pydicom.Dataset]:
    """The Segmentation, and what prompted the algorithm, as evidence of the same study."""
    others: list[WrittenObject | PromptingObject] = [*finding.prompted_by]
    if segmentation is not None:
        others.insert(0, segmentation)
    return [_instance(finding.source, one) for one in others]


def _instance(source: pydicom.Dataset, other: WrittenObject | PromptingObject) -> pydicom.Dataset:
    instance = pydicom.Dataset()
    instance.StudyInstanceUID = source.StudyInstanceUID
    instance.SeriesInstanceUID = other.series_instance_uid
    instance.SOPClassUID = other.sop_class_uid
    instance.SOPInstanceUID = other.sop_instance_uid
    return instance
