"""A TID 1500 report, read back item by item and held against the label map and the Segmentation that it refers to."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pydicom
from pydicom.uid import Comprehensive3DSRStorage

from app.graph import FindingRecord, SegmentRecord
from app.jobs.readback.computed import ComputedLabels, require
from app.jobs.readback.segments import code_text
from operators.label_maps import label_counts

VOLUME_TOLERANCE = 0.001
"""Of the label map's volume."""
Concept = tuple[str, str]
"""Code Value and Coding Scheme Designator."""

_REPORT_TITLE = ("126000", "DCM")
_IMAGING_MEASUREMENTS = ("126010", "DCM")
_MEASUREMENT_GROUP = ("125007", "DCM")
_TRACKING_IDENTIFIER = ("112039", "DCM")
_TRACKING_UID = ("112040", "DCM")
_FINDING_CATEGORY = ("276214006", "SCT")
_FINDING = ("121071", "DCM")
_FINDING_SITE = ("363698007", "SCT")
_MODIFIERS = (("272741003", "SCT"), ("106233006", "SCT"))
"""Laterality and topographical modifier."""
_ALGORITHM_VERSION = ("111003", "DCM")
_ALGORITHM_PARAMETERS = ("111002", "DCM")
_PRESENCE = ("121052", "DCM")
_PRESENT, _ABSENT = ("52101004", "SCT"), ("272519000", "SCT")
_VOLUME = ("118565006", "SCT")
_CUBIC_CENTIMETRE = ("cm3", "UCUM")
_REFERENCED_SEGMENT = ("121191", "DCM")
_SOURCE_SERIES = ("121232", "DCM")


def check_report(
    dataset: pydicom.Dataset,
    labels: ComputedLabels,
    finding: FindingRecord,
    *,
    segmentation: pydicom.Dataset | None,
    sources: Sequence[pydicom.Dataset],
    prompted_by: Collection[str] = (),
) -> None:
    """Check volumes, codes, tracking and references. Raises ``VerificationFailed`` if any is not what was computed.

    Parameters
    ----------
    segmentation
        The Segmentation, already checked, that the groups of found segments must refer to; None where there is none.
    sources
        The headers of the instances that were read, with SOP Instance and Series Instance UID.
    prompted_by
        SOP Instance UIDs of what else must be evidence.
    """
    _check_document(dataset)
    _check_evidence(dataset, segmentation, sources, prompted_by)
    (measurements,) = _children(dataset, _IMAGING_MEASUREMENTS)
    groups = _children(measurements, _MEASUREMENT_GROUP)
    require(len(groups) == len(finding.segments), "it has another number of groups than there are segments")
    counts = label_counts(labels.array)
    voxel_ml = abs(float(np.linalg.det(labels.affine[:3, :3]))) / 1000
    for group, segment in zip(groups, finding.segments, strict=True):
        count = int(counts[segment.label_value])
        _check_finding(group, segment, is_present=count > 0)
        _check_algorithm(group, finding)
        _check_volume(group, segment, count * voxel_ml)
        if segmentation is not None:
            _check_segment(group, segment, segmentation)
            _check_reference(group, segment, segmentation, sources, is_present=count > 0)


def _check_document(dataset: pydicom.Dataset) -> None:
    require(dataset.SOPClassUID == Comprehensive3DSRStorage, "it is no Comprehensive 3D SR")
    flags = (dataset.CompletionFlag, dataset.VerificationFlag)
    require(flags == ("COMPLETE", "UNVERIFIED"), "it is not complete and unverified")
    (template,) = dataset.ContentTemplateSequence
    is_report = template.TemplateIdentifier == "1500" and _name(dataset) == _REPORT_TITLE
    require(is_report, "it is no imaging measurement report")


def _check_evidence(
    dataset: pydicom.Dataset,
    segmentation: pydicom.Dataset | None,
    sources: Sequence[pydicom.Dataset],
    prompted_by: Collection[str],
) -> None:
    """It names exactly the source instances, the Segmentation and what prompted it."""
    expected = {str(source.SOPInstanceUID) for source in sources} | {str(one) for one in prompted_by}
    if segmentation is not None:
        expected.add(str(segmentation.SOPInstanceUID))
    found = [
        str(instance.ReferencedSOPInstanceUID)
        for study in dataset.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]
    require(sorted(found) == sorted(expected), "its evidence is not exactly its sources and what it refers to")


def _check_finding(group: pydicom.Dataset, segment: SegmentRecord, *, is_present: bool) -> None:
    """What was looked for is the record's, and it is present where the label map holds it."""
    (item,) = _children(group, _FINDING)
    same = code_text(item.ConceptCodeSequence[0]) == segment.code
    require(same, f"its finding {segment.number} is not the record's")
    (presence,) = _children(group, _PRESENCE)
    expected = _PRESENT if is_present else _ABSENT
    require(_concept(presence.ConceptCodeSequence) == expected, f"it says of segment {segment.number} what is not so")


def _check_algorithm(group: pydicom.Dataset, finding: FindingRecord) -> None:
    (version,) = _children(group, _ALGORITHM_VERSION)
    require(version.TextValue == finding.model.version, "it names another version of the model")
    parameters = [str(item.TextValue) for item in _children(group, _ALGORITHM_PARAMETERS)]
    require(any(finding.model.weights_digest in one for one in parameters), "it names other weights")


def _check_volume(group: pydicom.Dataset, segment: SegmentRecord, volume_ml: float) -> None:
    found = _children(group, _VOLUME)
    require(len(found) == int(volume_ml > 0), f"segment {segment.number} is measured not exactly where it was found")
    for item in found:
        (measured,) = item.MeasuredValueSequence
        unit = _concept(measured.MeasurementUnitsCodeSequence)
        require(unit == _CUBIC_CENTIMETRE, "a volume has another unit")
        near = abs(float(measured.NumericValue) - volume_ml) <= VOLUME_TOLERANCE * volume_ml
        require(near, f"the volume of segment {segment.number} is not the label map's")


def _check_segment(group: pydicom.Dataset, segment: SegmentRecord, segmentation: pydicom.Dataset) -> None:
    """Category, modifier and tracking are those of the segment in the Segmentation."""
    (described,) = (one for one in segmentation.SegmentSequence if one.SegmentNumber == segment.number)
    (identifier,), (uid,) = _children(group, _TRACKING_IDENTIFIER), _children(group, _TRACKING_UID)
    tracked = (identifier.TextValue, uid.UID) == (described.TrackingID, described.TrackingUID)
    require(tracked, f"segment {segment.number} is tracked otherwise than in the Segmentation")
    (category,) = _children(group, _FINDING_CATEGORY)
    same = _concept(category.ConceptCodeSequence) == _concept(described.SegmentedPropertyCategoryCodeSequence)
    require(same, f"the category of segment {segment.number} is not the Segmentation's")
    kind = described.SegmentedPropertyTypeCodeSequence[0]
    modifiers = [_concept([one]) for one in kind.get("SegmentedPropertyTypeModifierCodeSequence", ())]
    require(_modifiers(group) == modifiers, f"the side of segment {segment.number} is not the Segmentation's")


def _modifiers(group: pydicom.Dataset) -> list[Concept]:
    """Sides and parts, of the finding or of its site."""
    return [
        _concept(modifier.ConceptCodeSequence)
        for item in (*_children(group, _FINDING), *_children(group, _FINDING_SITE))
        for name in _MODIFIERS
        for modifier in _children(item, name)
    ]


def _check_reference(
    group: pydicom.Dataset,
    segment: SegmentRecord,
    segmentation: pydicom.Dataset,
    sources: Sequence[pydicom.Dataset],
    *,
    is_present: bool,
) -> None:
    """A segment that was found refers to itself in the Segmentation, and to the series that it was computed from."""
    references = [item.ReferencedSOPSequence[0] for item in _children(group, _REFERENCED_SEGMENT)]
    found = [
        (one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID, one.ReferencedSegmentNumber) for one in references
    ]
    expected = [(segmentation.SOPClassUID, segmentation.SOPInstanceUID, segment.number)] if is_present else []
    require(found == expected, f"segment {segment.number} does not refer to itself in the Segmentation")
    series = [str(item.UID) for item in _children(group, _SOURCE_SERIES)]
    own = [str(sources[0].SeriesInstanceUID)] if is_present else []
    require(series == own, f"segment {segment.number} does not refer to its source series")


def _children(item: pydicom.Dataset, concept: Concept) -> list[pydicom.Dataset]:
    return [child for child in item.get("ContentSequence", ()) if _name(child) == concept]


def _name(item: pydicom.Dataset) -> Concept:
    return _concept(item.ConceptNameCodeSequence)


def _concept(sequence: Sequence[pydicom.Dataset]) -> Concept:
    (code,) = sequence
    return str(code.CodeValue), str(code.CodingSchemeDesignator)
