"""The document that withdraws results: a rejection note of IHE's Imaging Object Change Management (IOCM).

A Key Object Selection Document (PS3.3 A.35.4, TID 2010) whose title says why the objects that it refers to must not be
used any more. An archive that follows the profile hides or deletes them; for another it is a note that people can read.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pydicom
from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import (
    CodeContentItem,
    DeviceObserverIdentifyingAttributes,
    ObserverContext,
    RelationshipTypeValues,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID

from operators.derived_uids import derived_uid
from operators.object_kinds import IMAGES, MANUFACTURER, Kind
from operators.rejection_reasons import SENTENCES, RejectionReason
from operators.results.common_modules import complete, identity_header
from operators.results.finding import WrittenObject, object_series_uid, save_object, series_number
from operators.source_identity import readable_copy, without_identity

TITLES: Mapping[RejectionReason, Code] = MappingProxyType(
    {
        "quality": codes.DCM.RejectedForQualityReasons,
        "wrong-patient": codes.DCM.RejectedForPatientSafetyReasons,
        "unsafe": codes.DCM.RejectedForPatientSafetyReasons,
        "wrong-worklist": codes.DCM.IncorrectModalityWorklistEntry,
        "expired": codes.DCM.DataRetentionPolicyExpired,
        "superseded": codes.DCM.RejectedForQualityReasons,
        "other": codes.DCM.RejectedForQualityReasons,
    }
)
"""The title (CID 7010) that says each of them: the profile has four, and takes no other."""
_DESCRIPTION = "AI: result withdrawn"
_DOCUMENT_TITLE_MODIFIER = codes.DCM.DocumentTitleModifier
_ANY_SIZE = 1


@dataclass(frozen=True)
class RejectedObject:
    """An object that is withdrawn."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    kind: Kind


def note_uid(identity: str, objects: Sequence[RejectedObject], reason: RejectionReason) -> UID:
    """Return the SOP Instance UID of the note: the same objects of a job, for the same reason, make the same note."""
    return derived_uid(identity, "rejection-note", reason, *sorted(one.sop_instance_uid for one in objects))


def write_rejection_note(
    header: pydicom.Dataset,
    objects: Sequence[RejectedObject],
    path: Path,
    *,
    reason: RejectionReason,
    identity: str,
    moment: datetime.datetime,
) -> WrittenObject:
    """Write the note in the study of the objects, and return what was written.

    Parameters
    ----------
    header
        Of one of the objects: patient and study are its.
    objects
        At least one, all of its study.
    identity
        Of the job; the UIDs derive from it.
    moment
        When it was decided. With the same moment the note has the same bytes.
    """
    source = readable_copy(header)
    evidence = [_evidence(one, source) for one in objects]
    date, time = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S")
    document: pydicom.Dataset = KeyObjectSelectionDocument(
        evidence=evidence,
        content=_content(evidence, reason),
        series_instance_uid=object_series_uid(identity, "rejection-note"),
        series_number=series_number(source, "rejection-note"),
        sop_instance_uid=note_uid(identity, objects, reason),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        series_description=_DESCRIPTION,
        content_date=date,
        content_time=time,
        specific_character_set=None,
    )
    document.copy_patient_and_study_information(identity_header([source]))
    complete(document, source, (date, time), None, own_text=[SENTENCES[reason], _DESCRIPTION])
    return save_object(document, path)


def _content(evidence: Sequence[pydicom.Dataset], reason: RejectionReason) -> KeyObjectSelection:
    observer = DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", MANUFACTURER), manufacturer_name=MANUFACTURER, model_name=MANUFACTURER
    )
    content = KeyObjectSelection(
        document_title=TITLES[reason],
        referenced_objects=evidence,
        observer_device_context=ObserverContext(codes.DCM.Device, observer),
        description=SENTENCES[reason],
    )
    if TITLES[reason] == codes.DCM.RejectedForQualityReasons:
        # TID 2010 wants to know more with this title; highdicom has no argument for it
        modifier = CodeContentItem(
            _DOCUMENT_TITLE_MODIFIER, codes.DCM.OtherFailure, relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD
        )
        content[0].ContentSequence.insert(0, modifier)
    return content


def _evidence(one: RejectedObject, source: pydicom.Dataset) -> pydicom.Dataset:
    """The object as highdicom wants it told: what has rows and columns is an image."""
    found = without_identity(pydicom.Dataset())
    found.StudyInstanceUID, found.SeriesInstanceUID = source.StudyInstanceUID, one.series_instance_uid
    found.SOPClassUID, found.SOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
    if one.kind in IMAGES:
        found.Rows = found.Columns = _ANY_SIZE
    return found
