"""The report of a run without a result: refused, failed, or nothing found.

Without it a reader can't tell "nothing was found" from "it did not run". It is made from the headers of the source
alone, which may be what the run was refused for.

It is an Enhanced SR by TID 1500, the template of the reports of results: who reads these finds it in the same place,
and Enhanced SR is among the classes that nearly every archive takes (PS3.4 B.5). Basic Text SR is no older and no more
widely shown, and highdicom does not write it. Where a standard code exists for how a run ended, it is CAD's: the
context groups 6047 (CAD Processing and Findings Summary) and 6042 (Status of Result).
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pydicom
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    EnhancedSR,
    LanguageOfContentItemAndDescendants,
    RelationshipTypeValues,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage

from operators.derived_uids import derived_uid
from operators.errors import OperatorError
from operators.object_kinds import MANUFACTURER
from operators.results.finding import Algorithm, WrittenObject, save_object
from operators.results.report import algorithm_identification
from operators.results.structured_report import (
    LANGUAGE,
    coded,
    observation_context,
    procedure_reported,
    qualitative_evaluations,
    report_document,
    said,
)
from operators.source_identity import readable_copy

Outcome = Literal["refused", "failed", "nothing-found"]

_SUMMARIES: dict[Outcome, tuple[Code, Code]] = {
    "refused": (codes.DCM.NoAlgorithmsSucceededWithoutFindings, codes.DCM.NotAttempted),
    "failed": (codes.DCM.NoAlgorithmsSucceededWithoutFindings, codes.DCM.Failed),
    "nothing-found": (codes.DCM.AllAlgorithmsSucceededWithoutFindings, codes.DCM.Succeeded),
}
"""CAD Processing and Findings Summary (CID 6047) and Status of Result (CID 6042)."""
_DESCRIPTIONS: dict[Outcome, str] = {
    "refused": "AI: not analysed",
    "failed": "AI: analysis failed",
    "nothing-found": "AI: nothing found",
}
_SCHEME = "99LIMNER"
REASON_CODE = CodedConcept("reason-code", _SCHEME, "Reason code")
PIPELINE = CodedConcept("pipeline", _SCHEME, "Pipeline")


def write_notice(
    headers: Sequence[pydicom.Dataset],
    path: Path,
    *,
    outcome: Outcome,
    code: str,
    sentence: str,
    pipeline: str,
    identity: str,
    algorithm: Algorithm | None = None,
    undated: datetime.datetime | None = None,
) -> WrittenObject:
    """Write why a run has no result as one report in its study, and return what was written.

    Parameters
    ----------
    headers
        Of the source's instances, as far as they could be read, the first with Study Instance UID. Nothing else in them
        need be there or be right: what can't be parsed is left out, and instances without UIDs of their own are not
        referred to.
    outcome
        ``refused`` if the model did not run because of its input, ``failed`` if it ran or should have run and did not
        end well, ``nothing-found`` if it ran and found none of its segments.
    code
        For programs: the kebab-case code of the error, such as ``slice-missing``.
    sentence
        For people: the error's message; without a patient's name or identifier.
    pipeline
        What should have been done, by its name.
    identity
        Of the job and of what is said of it; the UIDs derive from it.
    algorithm
        The model that should have run; the pipeline stands for it where it is not known.
    undated
        When it is said to be made where the source has no usable date: now, if it is not given.

    Raises
    ------
    OperatorError
        ``no-study`` if there is no header with a Study Instance UID.
    """
    readable = [readable_copy(header) for header in headers]
    if not readable or not readable[0].get("StudyInstanceUID"):
        raise OperatorError(
            "expected the headers of at least one instance, the first with a Study Instance UID, and got none; without "
            "it a notice belongs to no study: see the audit log",
            code="no-study",
        )
    observer = algorithm or Algorithm(name=pipeline, version="", weights_digest="")
    evidence = [one for one in readable if _can_be_evidence(one)]
    document = report_document(
        EnhancedSR,
        _content(readable[0], outcome, code, sentence, pipeline, observer),
        evidence or [_placeholder(readable[0], identity)],
        [],
        kind="notice",
        identity=identity,
        algorithm=observer,
        series_description=f"{_DESCRIPTIONS[outcome]} ({pipeline})",
        own_text=f"{sentence} {code} {pipeline}",
        undated=undated,
    )
    document.CodingSchemeIdentificationSequence = [
        CodingSchemeIdentificationItem(_SCHEME, name="Limner", responsible_organization=MANUFACTURER)
    ]
    if not evidence:
        del document.CurrentRequestedProcedureEvidenceSequence
    return save_object(document, path)


def _content(
    source: pydicom.Dataset, outcome: Outcome, code: str, sentence: str, pipeline: str, observer: Algorithm
) -> ContainerContentItem:
    """The root (TID 1500). highdicom's own insists on a measurement, and there is none."""
    summary, status = _SUMMARIES[outcome]
    summarised = coded(codes.DCM.CADProcessingAndFindingsSummary, summary)
    if observer.version:
        summarised.ContentSequence = algorithm_identification(observer)
    statements: list[ContentItem] = [
        summarised,
        coded(codes.DCM.SummaryOfAnalyses, status),
        said(codes.DCM.Comment, sentence),
        said(REASON_CODE, code),
        said(PIPELINE, pipeline),
    ]
    root = ContainerContentItem(codes.DCM.ImagingMeasurementReport, template_id="1500")
    root.ContentSequence = ContentSequence(
        [
            *LanguageOfContentItemAndDescendants(LANGUAGE),
            *observation_context(observer),
            CodeContentItem(
                codes.DCM.ProcedureReported,
                procedure_reported(source),
                relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD,
            ),
            qualitative_evaluations(statements),
        ]
    )
    return root


def _can_be_evidence(header: pydicom.Dataset) -> bool:
    return all(
        header.get(keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
    )


def _placeholder(header: pydicom.Dataset, identity: str) -> pydicom.Dataset:
    """A header that names an instance, for highdicom, which asks for evidence; what refers to it is taken out again."""
    header.SeriesInstanceUID = header.get("SeriesInstanceUID") or derived_uid(identity, "placeholder")
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, derived_uid(identity, "placeholder instance")
    return header
