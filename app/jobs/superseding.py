"""A series that got more content: the job of the whole takes the place of those that were made before it.

What waits or runs of an older job ends; what was sent of it stays where it is, and the new job's objects say that they
replace it. Withdrawing it is another matter (`app.jobs.records.Records.objects_to_withdraw`).
"""

from __future__ import annotations

import uuid
from dataclasses import replace

from app.audit.events import AuditEvent
from app.audit.log import AuditLog
from app.graph import Role
from app.jobs.auditing import audit_job
from app.jobs.commitment_start import begin_commitments
from app.jobs.queue import TaskQueue
from app.jobs.records import Connection, Delivery, EarlierJob, Job, NewJob, Records
from app.settings import Settings
from app.settings_pipeline import URGENT_PRIORITY
from app.telemetry import get_logger
from operators.results.replacing import ReplacedObject

SUPERSEDED = "superseded"
"""State and code of what a newer job took the place of."""
SENT = frozenset({"delivered", "committing", "committed"})
"""States of deliveries whose object a destination has."""
_NOT_SENT = frozenset({"queued", "running", "held"})

_log = get_logger(__name__)


class Superseding:
    """Ends older jobs in the transaction that makes the new one."""

    def __init__(self, *, settings: Settings, records: Records, audit: AuditLog, queue: TaskQueue) -> None:
        self._settings = settings
        self._records = records
        self._audit = audit
        self._queue = queue

    def supersede(self, connection: Connection, job: NewJob, *, of_study: bool = False, of_series: bool = False) -> int:
        """Mark each earlier job that `job` takes the place of, and end what of it has not begun; return how many.

        An urgent one makes `job` urgent. An attempt that runs writes nothing any more: its row is no longer running.
        The audit line of each comes first.

        Parameters
        ----------
        of_study
            Whether the rule binds channels in a whole study.
        of_series
            Whether the job reads its series alone: then it takes the place of what other rules made of earlier
            revisions of that alone, too. What came late may be what another rule goes by.
        """
        alone = self._alone() if of_series else ()
        earlier = self._records.lock_earlier_jobs(connection, job, of_study=of_study, alone=alone)
        for one in earlier:
            self._end(connection, one, job)
        if earlier:  # the new job's task is put into the queue after this, with what the records say then
            self._records.keep_urgency(connection, job.id, URGENT_PRIORITY)
        return len(earlier)

    def _alone(self) -> list[str]:
        """Return the pipelines whose jobs read one series each; a prompted one's read its images too.

        What a person drew is none of theirs: its pipeline is in no settings.
        """
        bound = {one.pipeline for one in self._settings.rule if one.channels}
        return [one.name for one in self._settings.pipeline if one.prompt is None and one.name not in bound]

    def _end(self, connection: Connection, old: EarlierJob, new: NewJob) -> None:
        recorded = self._records.job(old.id)
        assert recorded is not None  # noqa: S101 - it was locked just now
        ends = old.state in _NOT_SENT
        reason = f"more of its series came; job {new.id} of the whole takes its place"
        audit_job(
            self._audit,
            AuditEvent.JOB_SUPERSEDED,
            recorded,
            state=SUPERSEDED if ends else old.state,
            superseded_by=str(new.id),
        )
        withholds = self._records.withhold_deliveries(connection, old.id, reason)
        if old.state == "delivering":
            if withholds:
                begin_commitments(self._records, self._queue, self._settings, connection, old.id)
            sent, still_open = self._records.count_sent(connection, old.id)
            ends = not sent
            if withholds and sent and not still_open:  # its last delivery has ended just now
                self._queue.defer_close(connection, old.id)
        self._records.mark_superseded(connection, old.id, new.id, reason, ends=ends)
        _log.info("job.superseded", job_id=str(old.id), state=SUPERSEDED if ends else old.state)


def withheld(delivery: Delivery, by: uuid.UUID, *, is_unknown: bool) -> Delivery:
    """Return how a delivery ends that begins once more after its job was superseded: it is not sent.

    Where nobody learned what became of the attempt before (`is_unknown`), its code says so: the destination may have
    the object.
    """
    code = delivery.code or "no-answer" if is_unknown else SUPERSEDED
    return replace(delivery, code=code, reason=f"job {by} takes the job's place", is_unknown=is_unknown)


def replaced_by(records: Records, job: Job) -> dict[Role, tuple[ReplacedObject, ...]]:
    """Return what destinations have of the newest earlier job of which they have anything, by the model that made it.

    What they have of jobs before that one, that one replaced.
    """
    found: dict[Role, dict[str, ReplacedObject]] = {}
    sent = records.replaced_objects([job.id])
    for one in sent:
        if one.job_id == sent[0].job_id:
            replaced = ReplacedObject(one.kind, one.sop_class_uid, one.sop_instance_uid, one.series_instance_uid)
            found.setdefault(one.role, {})[one.sop_instance_uid] = replaced
    return {role: tuple(objects.values()) for role, objects in found.items()}
