"""A person's decision about a held job: its results are sent after all, or never.

The command line only puts the decision into the queue: the audit log has one writer, the server.
"""

from __future__ import annotations

import uuid

from app.audit.events import AuditEvent
from app.audit.log import AuditLog
from app.errors import JobError
from app.jobs.auditing import audit_job
from app.jobs.queue import TaskQueue
from app.jobs.records import Records
from app.telemetry import get_logger

_log = get_logger(__name__)


class Holding:
    """Carries decisions out. Its parameters are those of `app.jobs.workflow.Workflow`."""

    def __init__(self, *, records: Records, audit: AuditLog, queue: TaskQueue) -> None:
        self._records = records
        self._audit = audit
        self._queue = queue

    def release(self, job_id: uuid.UUID, person: str) -> None:
        """Have a held job's results sent; nothing happens to a job that is not held."""
        with self._records.transaction() as connection:
            if not self._records.lock_held(connection, job_id):
                return
            job = self._records.job(job_id)
            assert job is not None  # noqa: S101 - it was locked just now
            audit_job(self._audit, AuditEvent.JOB_RELEASED, job, person=person, state="delivering")
            released = self._records.decide_job(connection, job_id, "delivering", "waiting")
            for digest, destination in released:
                self._queue.defer_deliver(connection, job, digest, destination)
            if not released:
                self._queue.defer_close(connection, job_id)
        _log.info("job.released", job_id=str(job_id))

    def discard(self, job_id: uuid.UUID, person: str) -> None:
        """End a held job without sending anything; nothing happens to a job that is not held."""
        with self._records.transaction() as connection:
            if not self._records.lock_held(connection, job_id):
                return
            job = self._records.job(job_id)
            assert job is not None  # noqa: S101 - it was locked just now
            audit_job(self._audit, AuditEvent.JOB_DISCARDED, job, person=person, state="discarded")
            self._records.decide_job(connection, job_id, "discarded", "discarded")
        _log.info("job.discarded", job_id=str(job_id))


def ask_for_decision(records: Records, decision: str, job_id: uuid.UUID, person: str) -> None:
    """Put a decision, `queue.RELEASE` or `queue.DISCARD`, into the queue for the server to carry out.

    Raises
    ------
    JobError
        ``job-unknown``; ``job-not-held``.
    """
    job = records.job(job_id)
    if job is None:
        raise JobError(f"there is no job {job_id}; `limner jobs` lists them", code="job-unknown")
    if job.state != "held":
        raise JobError(f"the job is {job.state}, and only a held one can be decided on", code="job-not-held")
    with records.transaction() as connection:
        TaskQueue().defer_decision(connection, decision, job_id, person)
