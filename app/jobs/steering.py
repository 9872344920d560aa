"""A person's word about a job: cancel it, start it again, put it first.

The command line only puts the word into the queue, for any server on these records to carry out. A graph that runs is
not told: whoever runs it sees that its attempt is not the job's any more (`app.jobs.attending`).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from app.audit.events import AuditEvent
from app.audit.log import AuditLog
from app.errors import JobError
from app.jobs import queue as queues
from app.jobs.auditing import audit_job
from app.jobs.commitment_start import begin_commitments
from app.jobs.queue import TaskQueue
from app.jobs.records import Connection, Job, JobState, Records
from app.jobs.records.steering import JobLife
from app.settings import Settings
from app.settings_pipeline import URGENT_PRIORITY
from app.telemetry import get_logger

Word = Literal["cancel", "replay", "urgent"]

LIVE: tuple[JobState, ...] = ("queued", "running", "held", "delivering")
REPLAYABLE: tuple[JobState, ...] = ("dead-letter", "failed", "cancelled")

_ASKED: Mapping[Word, tuple[tuple[JobState, ...], str, str]] = MappingProxyType(
    {
        "cancel": (LIVE, "only one that has not ended can be cancelled", "job-ended"),
        "urgent": (LIVE, "only one that has not ended can be put first", "job-ended"),
        "replay": (
            REPLAYABLE,
            "only a dead letter, a failed and a cancelled job can be replayed",
            "job-not-replayable",
        ),
    }
)
"""For each word the states it is for, why so, and the code where a job is in another."""

_log = get_logger(__name__)


class Steering:
    """Carries such words out. Its parameters are those of `app.jobs.workflow.Workflow`."""

    def __init__(self, *, settings: Settings, records: Records, audit: AuditLog, queue: TaskQueue) -> None:
        self._settings = settings
        self._records = records
        self._audit = audit
        self._queue = queue

    def cancel(self, job_id: uuid.UUID, person: str) -> None:
        """End a job that has not ended; deliveries that wait are cancelled with it, one that is being sent is not."""
        with self._records.transaction() as connection:
            job, life = self._locked(connection, job_id)
            if job is None or life is None or life.state not in LIVE:
                return
            reason = f"{person} cancelled it while it was {life.state}"
            audit_job(self._audit, AuditEvent.JOB_CANCELLED, job, person=person, state="cancelled", reason=reason)
            self._records.cancel_job(connection, job_id, reason)
            begin_commitments(self._records, self._queue, self._settings, connection, job_id)
        _log.info("job.cancelled", job_id=str(job_id))

    def replay(self, job_id: uuid.UUID, person: str) -> None:
        """Start a dead letter, a failed or a cancelled job again, with a fresh count of tries.

        Its identity stays, so that the UIDs of its results do. One that has its results only sends them again.
        """
        with self._records.transaction() as connection:
            job, life = self._locked(connection, job_id)
            if job is None or life is None or not is_replayable(life.state, life.code):
                return
            state = _begins_as(life)
            audit_job(self._audit, AuditEvent.JOB_REPLAYED, job, person=person, state=state, reason=job.reason or "-")
            if state == "queued":
                self._records.replay_job(connection, job_id, state)
                self._queue.defer_segment(connection, job)
                return
            again = self._records.replay_job(connection, job_id, state, "held" if state == "held" else "waiting")
            if state == "delivering":
                for digest, destination in again:
                    self._queue.defer_deliver(connection, job, digest, destination)
                if not self._records.has_open_deliveries(connection, job_id):
                    self._queue.defer_close(connection, job_id)
        _log.info("job.replayed", job_id=str(job_id))

    def put_first(self, job_id: uuid.UUID, person: str) -> None:
        """Give a job that has not ended, and its deliveries, the priority that goes before every routine job."""
        with self._records.transaction() as connection:
            job, life = self._locked(connection, job_id)
            if job is None or life is None or life.state not in LIVE:
                return
            audit_job(self._audit, AuditEvent.JOB_PUT_FIRST, job, person=person)
            self._records.prioritise(connection, job_id, URGENT_PRIORITY)
        _log.info("job.put_first", job_id=str(job_id))

    def _locked(self, connection: Connection, job_id: uuid.UUID) -> tuple[Job | None, JobLife | None]:
        life = self._records.lock_life(connection, job_id)
        return (None if life is None else self._records.job(job_id)), life


def is_done(word: Word, before: Job, now: Job | None) -> bool:
    """Whether a word has been carried out, by what the job was `before` and is `now`, or has come too late."""
    if now is None or (word != "replay" and now.ended):
        return True
    return now.priority == URGENT_PRIORITY if word == "urgent" else word == "replay" and now.state != before.state


def is_replayable(state: JobState, code: str) -> bool:
    """Whether a job can be replayed: of one whose model was replaced there is another one, with the new model."""
    return state in REPLAYABLE and code != "model-replaced"


def ask(records: Records, word: Word, job: Job, person: str) -> None:
    """Put a word into the queue for the server to carry out.

    Raises
    ------
    JobError
        ``job-ended``; ``job-not-replayable``.
    """
    states, why, code = _ASKED[word]
    if job.state not in states:
        raise JobError(f"the job is {job.state}, and {why}", code=code)
    if word == "replay" and not is_replayable(job.state, job.code):
        raise JobError("the job's model was replaced, and a new job took its place", code=code)
    with records.transaction() as connection:
        TaskQueue().defer_decision(connection, _TASKS[word], job.id, person)


_TASKS: Mapping[Word, str] = MappingProxyType(
    {"cancel": queues.CANCEL, "replay": queues.REPLAY, "urgent": queues.PUT_FIRST}
)


def _begins_as(life: JobLife) -> Literal["queued", "held", "delivering"]:
    """Where a replay begins: with the graph, or, of a job that has its results, with what becomes of them."""
    if life.state == "cancelled":
        return (
            "held" if life.cancelled_in == "held" else "delivering" if life.cancelled_in == "delivering" else "queued"
        )
    return "delivering" if life.code in ("not-delivered", "not-committed") else "queued"
