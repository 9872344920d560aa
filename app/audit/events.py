"""The closed list of what is audited, with the codes of PS3.15 A.5, and the closed list of what may be said about it.

``docs/reference/audit.md`` shows both lists; a test holds it to this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, unique
from types import MappingProxyType

OWN_SCHEME = "99LIMNER"
"""Coding scheme of event types that the Standard has no code for (PS3.3 8.2: private designators begin with 99)."""


class Outcome(IntEnum):
    """The Event Outcome Indicator (PS3.15 A.5.2)."""

    SUCCESS = 0
    """It happened."""
    MINOR_FAILURE = 4
    """It did not happen, or only in part, and will be tried again or was the peer's to mend."""
    SERIOUS_FAILURE = 8
    """It did not happen, and somebody must act."""
    MAJOR_FAILURE = 12
    """The application can't go on."""


@dataclass(frozen=True)
class Code:
    """A coded term: code value, coding scheme designator, code meaning."""

    code: str
    scheme: str
    meaning: str

    def as_json(self) -> dict[str, str]:
        """Return the code as it stands in a record."""
        return {"code": self.code, "scheme": self.scheme, "meaning": self.meaning}


def _dcm(code: str, meaning: str) -> Code:
    return Code(code, "DCM", meaning)


def _own(code: str, meaning: str) -> Code:
    return Code(code, OWN_SCHEME, meaning)


_APPLICATION_ACTIVITY = _dcm("110100", "Application Activity")
_AUDIT_LOG_USED = _dcm("110101", "Audit Log Used")
_BEGIN_TRANSFERRING = _dcm("110102", "Begin Transferring DICOM Instances")
_INSTANCES_ACCESSED = _dcm("110103", "DICOM Instances Accessed")
_INSTANCES_TRANSFERRED = _dcm("110104", "DICOM Instances Transferred")
_QUERY = _dcm("110112", "Query")
_STUDY_DELETED = _dcm("110105", "DICOM Study Deleted")
_SECURITY_ALERT = _dcm("110113", "Security Alert")


@unique
class AuditEvent(Enum):
    """Everything that is audited. A member's value: its Event ID, its Event Type Code or None, and when it is written.

    The Standard's event messages (PS3.15 A.5.3) come as close as they can: what a job does to a study is its
    "DICOM Instances Accessed" (instances being viewed, utilized, updated, or deleted), told apart by an event type
    of our own.
    """

    APPLICATION_STARTED = (
        _APPLICATION_ACTIVITY,
        _dcm("110120", "Application Start"),
        "The server has started and is about to accept associations.",
    )
    APPLICATION_STOPPED = (
        _APPLICATION_ACTIVITY,
        _dcm("110121", "Application Stop"),
        "The server stops in order.",
    )
    ASSOCIATION_REFUSED = (
        _SECURITY_ALERT,
        _dcm("110126", "Node Authentication"),
        "A peer that is not allowed, or calls a title that is not ours, was rejected.",
    )
    RECEIVING_BEGAN = (_BEGIN_TRANSFERRING, None, "The first instance arrives on an association.")
    INSTANCE_REFUSED = (
        _INSTANCES_TRANSFERRED,
        _own("instance-refused", "Instance refused"),
        "An instance was answered with a failure status.",
    )
    INSTANCE_CHANGED = (
        _INSTANCES_TRANSFERRED,
        _own("instance-changed", "Instance changed"),
        "An instance came with other content than it had before; both are kept, and the later one counts.",
    )
    INSTANCES_RECEIVED = (
        _INSTANCES_TRANSFERRED,
        None,
        "An association has ended; one record for each study it brought instances of.",
    )
    NO_RULE_APPLIES = (
        _INSTANCES_ACCESSED,
        _own("no-rule-applies", "No rule applies"),
        "A complete series matches no rule; nothing is done with it.",
    )
    OWN_RESULT_RETURNED = (
        _INSTANCES_ACCESSED,
        _own("own-result-returned", "Own result returned"),
        "A complete series holds results that were made here; nothing is done with it.",
    )
    NO_CHANNEL_FITS = (
        _INSTANCES_ACCESSED,
        _own("no-channel-fits", "No channel fits"),
        "A rule took a complete series, and it fits no channel of the model; nothing is done with it.",
    )
    SERIES_INCOMPLETE = (
        _INSTANCES_ACCESSED,
        _own("series-incomplete", "Series incomplete"),
        "Of a series fewer instances came than its archive has, for longer than is waited; nothing is done with it.",
    )
    ARCHIVE_ASKED = (
        _QUERY,
        _own("archive-asked", "Archive asked"),
        "An archive is about to be asked how many instances it has of each series of a study.",
    )
    IMAGES_REQUESTED = (
        _QUERY,
        None,
        "An archive is about to be asked to send images that a prompt refers to.",
    )
    JOB_CREATED = (_INSTANCES_ACCESSED, _own("job-created", "Job created"), "A rule took a series: a job was made.")
    GRAPH_STARTED = (
        _INSTANCES_ACCESSED,
        _own("graph-started", "Graph started"),
        "A model is about to read the instances of a job.",
    )
    RESULTS_VERIFIED = (
        _INSTANCES_ACCESSED,
        _own("results-verified", "Results verified"),
        "The objects of a job were read back and are what was computed.",
    )
    RESULTS_FLAGGED = (
        _INSTANCES_ACCESSED,
        _own("results-flagged", "Results flagged"),
        "The two models of a job disagree beyond the pipeline's limits, or the generalist has no result.",
    )
    JOB_HELD = (
        _INSTANCES_ACCESSED,
        _own("job-held", "Job held"),
        "A job's results are not sent before a person decides.",
    )
    JOB_RELEASED = (
        _INSTANCES_ACCESSED,
        _own("job-released", "Job released"),
        "A person decided that a held job's results are sent.",
    )
    JOB_DISCARDED = (
        _INSTANCES_ACCESSED,
        _own("job-discarded", "Job discarded"),
        "A person decided that a held job's results are never sent.",
    )
    JOB_CANCELLED = (
        _INSTANCES_ACCESSED,
        _own("job-cancelled", "Job cancelled"),
        "A person ended a job; what it has not sent yet is not sent.",
    )
    JOB_GIVEN_UP = (
        _INSTANCES_ACCESSED,
        _own("job-given-up", "Job given up"),
        "A job's attempts are used up: it is a dead letter, kept for a replay.",
    )
    JOB_REPLAYED = (
        _INSTANCES_ACCESSED,
        _own("job-replayed", "Job replayed"),
        "A person had a dead letter, a failed or a cancelled job started again; or one begins again that a worker "
        "ended since it has another model.",
    )
    JOB_PUT_FIRST = (
        _INSTANCES_ACCESSED,
        _own("job-put-first", "Job put first"),
        "A person gave a job the priority that goes before every routine job.",
    )
    JOB_SUPERSEDED = (
        _INSTANCES_ACCESSED,
        _own("job-superseded", "Job superseded"),
        "More of its series came, and a job of the whole takes its place; what of it waits is not done any more.",
    )
    JOB_FAILED = (
        _INSTANCES_ACCESSED,
        _own("job-failed", "Job failed"),
        "An attempt of a job, or the job for good, failed.",
    )
    JOB_REFUSED = (
        _INSTANCES_ACCESSED,
        _own("job-refused", "Job refused"),
        "The instances of a job can't be processed by its model.",
    )
    DELIVERY_BEGAN = (_BEGIN_TRANSFERRING, None, "An object is about to be sent to a destination.")
    DELIVERY_SUCCEEDED = (_INSTANCES_TRANSFERRED, None, "A destination has accepted an object.")
    DELIVERY_FAILED = (
        _INSTANCES_TRANSFERRED,
        _own("delivery-failed", "Delivery failed"),
        "A destination did not accept an object in this attempt.",
    )
    DELIVERY_REPLACED = (
        _INSTANCES_TRANSFERRED,
        _own("delivery-replaced", "Delivery replaced"),
        "A destination does not take objects of a kind; one of another kind that says the same is sent in its place.",
    )
    DESTINATION_DOWN = (
        _APPLICATION_ACTIVITY,
        _own("destination-down", "Destination down"),
        "A destination can't be reached, lets nobody in, breaks off or has no room; what waits for it waits on.",
    )
    DESTINATION_BACK = (
        _APPLICATION_ACTIVITY,
        _own("destination-back", "Destination back"),
        "A destination that was down answers again.",
    )
    DESTINATION_ASKED = (
        _QUERY,
        _own("destination-asked", "Destination asked"),
        "A destination is about to be asked whether it has an object that was sent to it.",
    )
    COMMITMENT_REQUESTED = (
        _INSTANCES_TRANSFERRED,
        _own("commitment-requested", "Storage commitment requested"),
        "A destination is about to be asked to commit itself to what a job sent to it.",
    )
    COMMITMENT_RECEIVED = (
        _INSTANCES_TRANSFERRED,
        _own("commitment-received", "Storage commitment received"),
        "A destination has committed itself to an object, or it was found there where that is enough.",
    )
    COMMITMENT_FAILED = (
        _INSTANCES_TRANSFERRED,
        _own("commitment-failed", "Storage commitment failed"),
        "A destination does not commit itself to an object: it is sent again, or the delivery fails.",
    )
    COMMITMENT_REPORT_REFUSED = (
        _SECURITY_ALERT,
        _own("commitment-report-refused", "Storage commitment report refused"),
        "A report came from no destination, or about nothing that was asked; nothing is done with it.",
    )
    JOB_CLOSED = (
        _INSTANCES_ACCESSED,
        _own("job-closed", "Job closed"),
        "A job has reached its final state; nothing more happens in it.",
    )
    RESULTS_WITHDRAWN = (
        _INSTANCES_ACCESSED,
        _own("results-withdrawn", "Results withdrawn"),
        "A person decided, or a rule where a newer revision supersedes them, that a destination must not use a job's "
        "results any more.",
    )
    SESSION_OPENED = (
        _INSTANCES_ACCESSED,
        _own("session-opened", "Session opened"),
        "A person is about to draw on a series with a generalist, through the API.",
    )
    SESSION_ENDED = (
        _INSTANCES_ACCESSED,
        _own("session-ended", "Session ended"),
        "A session of the API has ended: discarded, idle, with the server, or by a failure.",
    )
    API_ACCESS_REFUSED = (
        _SECURITY_ALERT,
        _own("api-access-refused", "API access refused"),
        "A request came to the API without the right token; one record for those of ten seconds.",
    )
    WORK_PAUSED = (
        _APPLICATION_ACTIVITY,
        _own("work-paused", "Work paused"),
        "A person lets no new work start: none at all, none of a pipeline, or none for a destination.",
    )
    WORK_RESUMED = (
        _APPLICATION_ACTIVITY,
        _own("work-resumed", "Work resumed"),
        "A person lets work go on that was paused.",
    )
    AUDIT_LOG_REPAIRED = (
        _SECURITY_ALERT,
        _own("audit-log-repaired", "Audit log repaired"),
        "On start the end of the log was found as a crash leaves it, and was put in order.",
    )
    AUDIT_LOG_USED = (_AUDIT_LOG_USED, None, "Somebody read or verified the audit log.")
    STORAGE_BELOW_WATERMARK = (
        _SECURITY_ALERT,
        _own("storage-below-watermark", "Storage below watermark"),
        "The disk is so full that instances are refused.",
    )

    INSTANCES_REMOVED = (
        _STUDY_DELETED,
        _own("instances-removed", "Instances removed"),
        "The received instances of a study are about to be removed from the disk; nothing needs them.",
    )
    RESULTS_REMOVED = (
        _STUDY_DELETED,
        _own("results-removed", "Results removed"),
        "The results of a job are about to be removed from the disk; nothing needs them.",
    )
    REFUSED_REMOVED = (
        _INSTANCES_ACCESSED,
        _own("refused-removed", "Refused objects removed"),
        "An object that was refused is about to be removed from the quarantine.",
    )

    def __init__(self, event_id: Code, event_type: Code | None, written: str) -> None:
        self.event_id = event_id
        """The Event ID (PS3.15 A.5.2, CID 400)."""
        self.event_type = event_type
        """The Event Type Code (CID 401, or our own), if the event has one."""
        self.written = written
        """When it is written, as a sentence."""


DETAIL_KEYS = MappingProxyType(
    {
        "archive": "The archive's name in the settings.",
        "association_id": "The association, as the diagnostic log names it.",
        "attempt": "Which attempt of the job or delivery, from 1.",
        "bytes": "Size in bytes.",
        "called_ae_title": "The AE title the peer called.",
        "calling_ae_title": "The AE title the peer gave itself.",
        "channel_series_instance_uids": "Series Instance UIDs of what feeds the channels, in the order of `channels`.",
        "channels": "Names of the model's input channels that series feed, in its order.",
        "code": "Short stable name of a reason, as in refusals.md.",
        "cut_bytes": "Bytes cut from the end of the audit log.",
        "destination": "The destination's name in the settings.",
        "flag": "Why results were flagged: `disagreement` or `generalist-failed`.",
        "generalist": "The generalist's name, where one reads after the model.",
        "generalist_digest": "SHA-256 of the generalist's weights.",
        "generalist_version": "The generalist's version.",
        "host": "The machine the server runs on.",
        "inputs_digest": "SHA-256 over the digests of a job's instances.",
        "instances": "How many instances.",
        "job_id": "The job's number in the records.",
        "job_key": "The job's identity: inputs, pipeline, model version.",
        "left_out": "What of prompt objects could not be followed while the rest could: number and code.",
        "input_notes": "Codes of the notes on a job's input: what the gate let pass, what of prompts was left out or "
        "overlaps.",
        "log_id": "Where the diagnostic log tells more.",
        "model": "The model's name.",
        "model_version": "The model's version.",
        "object_digest": "SHA-256 of a result's file.",
        "person": "The operating system's name of the user who gave the command.",
        "pipeline": "The pipeline's name in the settings.",
        "process_id": "The process that wrote the record.",
        "reason": "A sentence that never holds data of a patient.",
        "roles": "What the process does: `listener`, `worker`, `web`.",
        "rule": "The rule's name in the settings.",
        "series_instance_uid": "Series Instance UID.",
        "session": "The session of the API.",
        "settings_digest": "SHA-256 of the effective settings.",
        "sop_class_uids": "SOP Class UIDs.",
        "sop_instance_uid": "SOP Instance UID.",
        "source_host": "The peer's address.",
        "state": "The state reached.",
        "status": "The DIMSE status answered or received.",
        "study_instance_uid": "Study Instance UID.",
        "superseded_by": "The number of the job that takes the job's place.",
        "transaction_uid": "Transaction UID of a storage commitment.",
        "version": "Limner's version.",
        "weights_digest": "SHA-256 of the model's weights.",
    }
)
"""What a record may say, and what each key means. There is no key for a patient's name, identifier or dates."""
