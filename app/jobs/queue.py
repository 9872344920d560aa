"""The names in the task queue, and putting a task into it inside the caller's own transaction."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import procrastinate
import psycopg
from procrastinate import RetryDecision
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job as QueuedTask
from procrastinate.retry import BaseRetryStrategy

from app.errors import AuditError
from app.jobs.records import Connection, Job, NewJob

SEGMENT = "segment"
DELIVER = "deliver"
CLOSE = "close"
RELEASE = "release"
DISCARD = "discard"
TIDY = "tidy"
RETAIN = "retain"

GRAPH_QUEUE = "graph"
SYSTEM_QUEUE = "system"

GROUND = (psycopg.Error, ConnectorException, AuditError)
"""Failures of the ground the tasks stand on: nothing can be recorded now, so the queue repeats the task."""

RETAIN_PRIORITY = -1000
"""Whatever else waits in the queue goes first."""
_LONGEST_WAIT_SECONDS = 60.0


def delivery_queue(destination: str) -> str:
    """Return the queue of a destination: each has its own, so that one that is down holds up no other."""
    return f"deliver-{destination}"


def back_off_seconds(attempts: int, first: float, longest: float) -> float:
    """Return the wait after the `attempts`-th attempt: `first`, then doubled each time, at most `longest`."""
    return float(min(longest, first * 2.0 ** min(max(attempts, 1) - 1, 64)))


class Interrupted(Exception):
    """A shutdown ended the task before its end; it starts anew as soon as a worker is there."""


class WhenPossible(BaseRetryStrategy):
    """Repeat a task whose failure is not the task's: the database or the audit log could not be written.

    What fails for a reason of its own is recorded by the task itself and does not come here.
    """

    def get_retry_decision(self, *, exception: BaseException, job: QueuedTask) -> RetryDecision:
        """Return when to repeat it: at once after a shutdown, else later and later."""
        wait = 0.0 if isinstance(exception, Interrupted) else back_off_seconds(job.attempts, 1, _LONGEST_WAIT_SECONDS)
        return RetryDecision(retry_in={"seconds": int(wait)})


class TaskQueue:
    """Puts tasks into the queue: they appear with the caller's transaction, or not at all."""

    def __init__(self) -> None:
        # never opened: each task brings the connection it is put in by
        self._app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector())

    def defer(
        self,
        connection: Connection,
        task: str,
        queue: str,
        *,
        priority: int = 0,
        at: datetime | None = None,
        **arguments: Any,
    ) -> None:
        """Put a task into a queue, not to start before `at`."""
        self._app.configure_task(
            task, allow_unknown=True, queue=queue, priority=priority, schedule_at=at, connection=connection
        ).defer(**arguments)

    def defer_segment(
        self, connection: Connection, job_id: uuid.UUID, priority: int, at: datetime | None = None
    ) -> None:
        """Have the job's graph run."""
        self.defer(connection, SEGMENT, GRAPH_QUEUE, priority=priority, at=at, job_id=str(job_id))

    def defer_deliver(
        self, connection: Connection, job: Job | NewJob, digest: str, destination: str, at: datetime | None = None
    ) -> None:
        """Have one object sent to one destination."""
        self.defer(
            connection,
            DELIVER,
            delivery_queue(destination),
            priority=job.priority,
            at=at,
            job_id=str(job.id),
            digest=digest,
            destination=destination,
        )

    def defer_retain(self, connection: Connection, *, is_urgent: bool) -> None:
        """Have what may go removed from the disk: after all else of the queue, or before it where space is wanted.

        Raises
        ------
        procrastinate.exceptions.AlreadyEnqueued
            If that waits in the queue already; the transaction is over then.
        """
        self._app.configure_task(
            RETAIN,
            allow_unknown=True,
            queue=SYSTEM_QUEUE,
            priority=-RETAIN_PRIORITY if is_urgent else RETAIN_PRIORITY,
            queueing_lock=RETAIN,
            connection=connection,
        ).defer()

    def defer_close(self, connection: Connection, job_id: uuid.UUID) -> None:
        """Have the job closed."""
        self.defer(connection, CLOSE, SYSTEM_QUEUE, job_id=str(job_id))

    def defer_decision(self, connection: Connection, decision: str, job_id: uuid.UUID, person: str) -> None:
        """Have a person's decision about a held job, `RELEASE` or `DISCARD`, carried out."""
        self.defer(connection, decision, SYSTEM_QUEUE, job_id=str(job_id), person=person)
