"""What can disagree between records, queue, disk and audit log: a code for each, what it means and what to do."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple


class Meaning(NamedTuple):
    """What a code says."""

    sentence: str
    advice: str


CODES: Mapping[str, Meaning] = MappingProxyType(
    {
        "file-missing": Meaning(
            "a received instance is not in the spool, and nothing records that it was removed",
            "send the study again: the instance is then kept anew",
        ),
        "file-changed": Meaning(
            "the file of a received instance is not what was received",
            "look at the disk; move the file away and send the study again",
        ),
        "file-unrecorded": Meaning(
            "a file lies in the spool without a record; its sender has had no answer, or the record was deleted",
            "start the server again: it records what it finds in the spool",
        ),
        "study-missing": Meaning(
            "the audit log says that instances of a study were received, and none of it is recorded",
            "the records were deleted, or are older than the log: restore the database, or send the study again",
        ),
        "series-missing": Meaning(
            "instances are recorded of a series that has no record, so that nothing is decided about it",
            "the record was deleted: restore the database, or send the series again with another instance of it",
        ),
        "series-empty": Meaning(
            "a series is recorded of which no instance is", "an instance's record was deleted: send the study again"
        ),
        "instance-missing": Meaning(
            "an instance that a job read, or is to read, is not recorded",
            "its record was deleted: restore the database, or send the study again",
        ),
        "series-without-job": Meaning(
            "a rule took a series, and its job is not in the records",
            "the job's record was deleted: restore the database",
        ),
        "job-missing": Meaning(
            "the audit log tells of a job at work or of its end, and the job is not in the records",
            "the job's record was deleted, or the records are older than the log: restore the database, or send the "
            "study again",
        ),
        "job-without-inputs": Meaning(
            "a job is recorded without the instances that it reads", "records were deleted: restore the database"
        ),
        "job-without-task": Meaning(
            "a job waits or runs by the records, and no task in the queue will go on with it",
            "the task was deleted: restore the database; the job does not go on by itself",
        ),
        "job-not-closed": Meaning(
            "a job delivers by the records, and nothing of it is on its way, nor a task in the queue that closes it",
            "a task or a delivery was deleted: restore the database; the job does not go on by itself",
        ),
        "task-given-up": Meaning(
            "a task of the server failed ten times by an error of the server itself, and is not tried again: a job is "
            "not closed, or what a person decided is not carried out",
            "the log has it as `task.given_up`: report it; each worker that starts tries it anew, and a version that "
            "mends the error ends it",
        ),
        "job-closed-too-soon": Meaning(
            "a job has ended while an object of it is still on its way", "look at the delivery with `limner jobs show`"
        ),
        "job-held-without-delivery": Meaning(
            "a job is held by the records, and nothing is there to be sent when it is released",
            "a delivery was deleted: restore the database",
        ),
        "delivery-held-alone": Meaning(
            "an object is held back, and its job is not held: nobody will decide about it",
            "look at the job with `limner jobs show`; restore the database",
        ),
        "delivery-without-task": Meaning(
            "an object is to be sent, and no task in the queue will send it",
            "the task was deleted: restore the database; the object does not go on by itself",
        ),
        "delivery-missing": Meaning(
            "an object was being sent, or is about to be, and no record says where to and what became of it",
            "the record was deleted: ask the destination whether it holds the object; restore the database",
        ),
        "deliveries-lost": Meaning(
            "fewer deliveries are recorded of a job than were made for it: a destination does not get an object",
            "the record was deleted: restore the database; the object lies in the results folder",
        ),
        "result-missing": Meaning(
            "the file of a result is gone, and nothing records that it was removed",
            "what was delivered is not affected; what was not can't be sent any more",
        ),
        "result-changed": Meaning(
            "the file of a result is not what was verified", "it is never sent so; look at the disk"
        ),
        "audit-job-not-created": Meaning(
            "the audit log has no line for the making of a job",
            "`limner audit verify` says whether the log was changed",
        ),
        "audit-job-not-ended": Meaning(
            "a job has ended, and the audit log has no line for its end",
            "`limner audit verify` says whether the log was changed",
        ),
        "audit-delivery-not-made": Meaning(
            "an object is delivered or committed by the records, and the audit log has no line that its destination "
            "took it, or committed itself to it",
            "ask the destination whether it holds the object; `limner audit verify` says whether the log was changed",
        ),
        "audit-log-missing": Meaning(
            "jobs are recorded, and there is no audit log", "find the log; give its folder with --audit"
        ),
        "study-never-seen": Meaning(
            "the archive holds a study that a rule would take, as far as the archive tells, and nothing of it came",
            "have the archive send it; look into the archive's routing",
        ),
        "series-never-seen": Meaning(
            "the archive holds a series that a rule would take, as far as the archive tells, of a study that came here "
            "without it",
            "have the archive send it; look into the archive's routing",
        ),
        "result-not-held": Meaning(
            "a result is recorded as delivered, and its destination does not hold it",
            "look into the destination's log; the object lies in the results folder unless it was removed",
        ),
    }
)


@dataclass(frozen=True)
class Discrepancy:
    """Something that does not agree. Identifiers only: nothing of a patient."""

    code: str
    """One of `CODES`."""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    job_id: str = ""
    destination: str = ""
    digest: str = ""

    @property
    def meaning(self) -> Meaning:
        """What the code says."""
        return CODES[self.code]

    @property
    def subject(self) -> str:
        """What it is about, in a few words."""
        named = (
            ("study", self.study_instance_uid),
            ("series", self.series_instance_uid),
            ("instance", self.sop_instance_uid),
            ("job", self.job_id),
            ("to", self.destination),
            ("digest", self.digest),
        )
        return ", ".join(f"{word} {value}" for word, value in named if value)

    @classmethod
    def about(cls, code: str, row: Mapping[str, Any]) -> Discrepancy:
        """Make one of a row of the records, as far as that names anything."""
        names = ("study_instance_uid", "series_instance_uid", "sop_instance_uid", "job_id", "destination", "digest")
        found = {name: row[name] for name in names if row.get(name) is not None}
        return cls(code, **{name: str(one) if isinstance(one, uuid.UUID) else one for name, one in found.items()})
