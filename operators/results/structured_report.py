"""What the reports have in common: document, observer, procedure, and the items of TID 1500 that highdicom lacks."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import pydicom
from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from operators.object_kinds import MANUFACTURER
from operators.results.equipment import equipment_attributes, processing_equipment, without_clock
from operators.results.finding import (
    Algorithm,
    Kind,
    device_uid,
    object_instance_uid,
    object_series_uid,
    series_number,
)
from operators.results.series_description import say_ai
from operators.source_identity import moment_of, readable_copy, take_over_identity, without_identity
from operators.source_references import distinct_instances

LANGUAGE = CodedConcept("en", "RFC5646", "English")
_QUALITATIVE_EVALUATIONS = CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")
_PROCEDURES = {
    "CT": codes.LN.CTUnspecifiedBodyRegion,
    "MR": codes.LN.MRIUnspecifiedBodyRegion,
    "PT": codes.LN.PETUnspecifiedBodyRegion,
}
"""CID 100."""


def observation_context(algorithm: Algorithm) -> ObservationContext:
    """Return the observer context (TID 1001): a device, no person."""
    attributes = DeviceObserverIdentifyingAttributes(
        uid=device_uid(algorithm), manufacturer_name=MANUFACTURER, model_name=algorithm.name
    )
    return ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, attributes))


def procedure_reported(source: pydicom.Dataset) -> Code:
    """Return the kind of the procedure that the series is from (CID 100)."""
    procedure: Code = _PROCEDURES.get(str(source.get("Modality", "")), codes.SCT.ImagingProcedure)
    return procedure


def qualitative_evaluations(items: Sequence[ContentItem]) -> ContainerContentItem:
    """Return the container of the evaluations that belong to no measurement (TID 1500); highdicom has none."""
    container = ContainerContentItem(_QUALITATIVE_EVALUATIONS, relationship_type=RelationshipTypeValues.CONTAINS)
    container.ContentSequence = ContentSequence(items)
    return container


def coded(name: Code, value: Code) -> CodeContentItem:
    """Return a coded statement."""
    return CodeContentItem(name, value, relationship_type=RelationshipTypeValues.CONTAINS)


def said(name: Code | CodedConcept, text: str) -> TextContentItem:
    """Return a statement in words."""
    return TextContentItem(name, text, relationship_type=RelationshipTypeValues.CONTAINS)


def report_document(
    document_class: type[Comprehensive3DSR] | type[EnhancedSR],
    root: ContentItem,
    headers: Sequence[pydicom.Dataset],
    others: Sequence[pydicom.Dataset],
    *,
    kind: Kind,
    identity: str,
    algorithm: Algorithm,
    series_description: str,
    own_text: str,
    undated: datetime.datetime | None = None,
) -> pydicom.Dataset:
    """Return the document with the content `root`: COMPLETE, and UNVERIFIED, since no person has read it.

    Parameters
    ----------
    headers
        Of the slices that were read, with SOP Class and Instance UID of their instances, each of which becomes evidence
        once; patient and study are the first's.
    others
        Class and UIDs of other instances that are evidence (PS3.3 C.17.2).
    own_text
        All that the document says itself.
    undated
        As `moment_of` has it.
    """
    source, (date, time) = readable_copy(headers[0]), moment_of(headers, undated)
    description = say_ai(series_description)
    document: pydicom.Dataset = document_class(
        evidence=[without_identity(readable_copy(headers[0])), *distinct_instances(headers)[1:], *others],
        content=root,
        series_instance_uid=object_series_uid(identity, kind),
        series_number=series_number(source, kind),
        sop_instance_uid=object_instance_uid(identity, kind),
        instance_number=1,
        is_complete=True,
        series_description=description,
        content_date=date,
        content_time=time,
        series_date=date,
        series_time=time,
        specific_character_set=None,  # the source's, put in below: highdicom refuses some that are in use
        contributing_equipment=[processing_equipment(algorithm)],
        **equipment_attributes(algorithm),
    )
    without_clock(document, date, time)
    take_over_identity(document, source, own_text=f"{own_text} {description} {algorithm.own_text}")
    return document
