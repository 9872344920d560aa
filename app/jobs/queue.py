"""The names in the task queue, and putting a task into it inside the caller's own transaction."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

import procrastinate
import psycopg
from procrastinate import RetryDecision
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job as QueuedTask
from procrastinate.retry import BaseRetryStrategy

from app.errors import AuditError, LimnerError, StorageError
from app.jobs.connections import read_statements
from app.jobs.records import Connection, Job, NewJob
from app.settings_pipeline import URGENT_PRIORITY
from app.telemetry import get_logger

SEGMENT = "segment"
DELIVER = "deliver"
TURN = "turn"
REPORT = "report"
ATTEND = "attend"
CLOSE = "close"
RELEASE = "release"
DISCARD = "discard"
CANCEL = "cancel"
REPLAY = "replay"
PUT_FIRST = "put-first"
PAUSE = "pause"
RESUME = "resume"
WITHDRAW = "withdraw"
TIDY = "tidy"
RETAIN = "retain"

GRAPH_QUEUE = "graph"
SYSTEM_QUEUE = "system"
GIVEN_UP_QUEUE = "given-up"
"""Of tasks that a defect failed again and again. Nobody serves it; each worker that starts puts them back."""

GROUND = (psycopg.Error, ConnectorException, AuditError, StorageError)
"""Failures of the ground the tasks stand on: nothing can be recorded or shared now, so the queue repeats the task."""

_NO_DEFECTS = (*GROUND, OSError, MemoryError)
_MOST_DEFECTS = 10

RETAIN_PRIORITY = -1000
"""Whatever else waits in the queue goes first."""
_RETAIN_NOW = f"{RETAIN}-now"
_LONGEST_WAIT_SECONDS = 60.0
_LONGEST_IN_QUEUE = 24
_SQL = read_statements("queue.sql")
_log = get_logger(__name__)


def delivery_queue(destination: str) -> str:
    """Return the queue of a destination: each has its own, so that one that is down holds up no other.

    A long name is cut, and told from others by its digest: PostgreSQL announces tasks on a channel that bears the
    queue's name, in at most 63 bytes, also where the queue is paused.
    """
    if len(destination) > _LONGEST_IN_QUEUE:
        digest = hashlib.sha256(destination.encode()).hexdigest()
        destination = f"{destination[: _LONGEST_IN_QUEUE - 9]}-{digest[:8]}"
    return f"deliver-{destination}"


def back_off_seconds(attempts: int, first: float, longest: float) -> float:
    """Return the wait after the `attempts`-th attempt: `first`, then doubled each time, at most `longest`."""
    return float(min(longest, first * 2.0 ** min(max(attempts, 1) - 1, 64)))


class Interrupted(Exception):
    """A shutdown ended the task before its end; it starts anew as soon as a worker is there."""


class Paused(Exception):
    """The task may not start now; it has begun nothing."""


class WhenPossible(BaseRetryStrategy):
    """Repeat a task whose failure is not the task's: database, audit log or shared storage were away.

    What fails for a reason of its own is recorded by the task itself and does not come here.
    """

    def get_retry_decision(self, *, exception: BaseException, job: QueuedTask) -> RetryDecision:
        """Return when to repeat it: at once after a shutdown, else later and later."""
        if isinstance(exception, Interrupted):
            wait = 0.0
        elif isinstance(exception, Paused):
            wait = 1.0  # by then it is set aside
        else:
            wait = back_off_seconds(job.attempts, 1, _LONGEST_WAIT_SECONDS)
        return RetryDecision(retry_in={"seconds": int(wait)})


class UnlessDefect(WhenPossible):
    """Repeat a task likewise, but one that fails again and again by a defect of this program: that is set aside.

    Such an error passes by no waiting. The task is in nobody's way where nobody serves it, the account names it
    (`task-given-up`), and a worker that starts, as after an upgrade that mends the defect, takes it up again. It is not
    for tasks with a queueing lock: one that is set aside would let no other into the queue.
    """

    def __init__(self) -> None:
        self._defects: Counter[int | None] = Counter()

    def get_retry_decision(self, *, exception: BaseException, job: QueuedTask) -> RetryDecision:
        """Return when to repeat it, or that it goes where nobody does."""
        if not _is_defect(exception):
            return super().get_retry_decision(exception=exception, job=job)
        self._defects[job.id] += 1
        if self._defects[job.id] < _MOST_DEFECTS:
            return super().get_retry_decision(exception=exception, job=job)
        del self._defects[job.id]
        about = str(job.task_kwargs.get("job_id", ""))
        code = exception.code if isinstance(exception, LimnerError) else type(exception).__name__
        _log.error("task.given_up", task=job.task_name, job_id=about, code=code, exc_info=exception)
        return RetryDecision(queue=GIVEN_UP_QUEUE)


class TaskQueue:
    """Puts tasks into the queue: they appear with the caller's transaction, or not at all.

    Parameters
    ----------
    graph_queues
        The queue of each pipeline's graphs (`app.jobs.slots.graph_queues`); `GRAPH_QUEUE` of one that is not there.
    """

    def __init__(self, graph_queues: Mapping[str, str] = MappingProxyType({})) -> None:
        self._graph_queues = graph_queues
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
        queued = self._app.configure_task(
            task, allow_unknown=True, queue=queue, priority=priority, schedule_at=at, connection=connection
        )
        with _as_the_connection_fails():
            queued.defer(**arguments)

    def defer_segment(self, connection: Connection, job: Job | NewJob, at: datetime | None = None) -> None:
        """Have the job's graph run."""
        priority = _priority_now(connection, job)
        queue = self._graph_queues.get(job.pipeline, GRAPH_QUEUE)
        self.defer(connection, SEGMENT, queue, priority=priority, at=at, job_id=str(job.id))

    def defer_deliver(
        self, connection: Connection, job: Job | NewJob, digest: str, destination: str, at: datetime | None = None
    ) -> None:
        """Have one object sent to one destination."""
        self.defer(
            connection,
            DELIVER,
            delivery_queue(destination),
            priority=_priority_now(connection, job),
            at=at,
            job_id=str(job.id),
            digest=digest,
            destination=destination,
        )

    def defer_turn(self, connection: Connection, destination: str, at: datetime | None = None) -> None:
        """Have everything sent to a destination that is due then, and have it asked for its commitments."""
        self.defer(connection, TURN, delivery_queue(destination), at=at, destination=destination)

    def defer_report(self, connection: Connection, transaction_uid: str) -> None:
        """Have a report on a request for storage commitment acted on."""
        self.defer(connection, REPORT, SYSTEM_QUEUE, transaction_uid=transaction_uid)

    def defer_retain(self, connection: Connection, *, is_urgent: bool, gives_way: bool = False) -> None:
        """Have what may go removed from the disk.

        An urgent wish has a task of its own: one that waits already may wait behind all else, or for its next attempt.

        Parameters
        ----------
        is_urgent
            Before all else of the queue; else after it.
        gives_way
            An urgent wish that follows another: after what waits by now, and before what comes later.

        Raises
        ------
        procrastinate.exceptions.AlreadyEnqueued
            If the same waits in the queue already; the transaction is over then.
        """
        at_once = 0 if gives_way else -RETAIN_PRIORITY
        queued = self._app.configure_task(
            RETAIN,
            allow_unknown=True,
            queue=SYSTEM_QUEUE,
            priority=at_once if is_urgent else RETAIN_PRIORITY,
            queueing_lock=_RETAIN_NOW if is_urgent else RETAIN,
            connection=connection,
        )
        with _as_the_connection_fails():
            queued.defer()

    def defer_close(self, connection: Connection, job_id: uuid.UUID) -> None:
        """Have the job closed."""
        self.defer(connection, CLOSE, SYSTEM_QUEUE, job_id=str(job_id))

    def defer_decision(self, connection: Connection, decision: str, job_id: uuid.UUID, person: str) -> None:
        """Have a person's decision about a job carried out, such as `RELEASE` or `CANCEL`; people wait for it."""
        self.defer(connection, decision, SYSTEM_QUEUE, priority=URGENT_PRIORITY, job_id=str(job_id), person=person)

    def defer_pause(self, connection: Connection, task: str, kind: str, name: str, person: str) -> None:
        """Have a pause, `PAUSE`, or its end, `RESUME`, carried out."""
        self.defer(connection, task, SYSTEM_QUEUE, priority=URGENT_PRIORITY, kind=kind, name=name, person=person)


def _is_defect(error: BaseException) -> bool:
    """Whether an error is neither of the ground nor of a shutdown, nor one that passes by itself."""
    if isinstance(error, (Interrupted, Paused, *_NO_DEFECTS)) or not isinstance(error, Exception):
        return False
    return not (isinstance(error, LimnerError) and error.retryable)


@contextlib.contextmanager
def _as_the_connection_fails() -> Iterator[None]:
    """Raise what the connection raised, as its other statements do: procrastinate wraps it in an error of its own."""
    try:
        yield
    except ConnectorException as error:
        if isinstance(error.__cause__, psycopg.Error):
            raise error.__cause__ from None
        raise


def _priority_now(connection: Connection, job: Job | NewJob) -> int:
    """The job's priority as the records have it: a person may have changed it since `job` was read."""
    row = connection.execute(_SQL["priority_of"], (job.id,)).fetchone()
    return job.priority if row is None else int(row["priority"])
