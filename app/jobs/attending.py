"""What goes on beside an attempt: its progress is written, and whether anybody waits for it still is asked."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.jobs.auditing import audit_job
from app.jobs.records import Job, Records
from app.telemetry import get_logger

_PROGRESS_SECONDS = 0.5  # progress is written at most so often
_ASK_SECONDS = 1.0
_LOOK_SECONDS = 0.1

_log = get_logger(__name__)


class Overtaken(Exception):
    """The attempt is no longer its job's: the job was cancelled, or runs elsewhere. It writes nothing."""


class Progress:
    """Writes the graph's progress to the job's row, now and then and at each new step."""

    def __init__(self, records: Records, job_id: uuid.UUID, attempt: int) -> None:
        self._records = records
        self._job_id = job_id
        self._attempt = attempt
        self._step = ""
        self._written = 0.0

    def __call__(self, step: str, done: int, total: int) -> None:
        """Write it, unless that was done just now."""
        now = time.monotonic()
        if step == self._step and done < total and now - self._written < _PROGRESS_SECONDS:
            return
        self._step, self._written = step, now
        try:
            self._records.report_progress(self._job_id, self._attempt, step, done, total)
        except psycopg.Error:  # progress is for people; a run goes on without it
            _log.warning("job.progress_not_written", job_id=str(self._job_id))


def audit_attempt(
    records: Records,
    audit: AuditLog,
    job: Job,
    attempt: int,
    event: AuditEvent,
    outcome: Outcome = Outcome.SUCCESS,
    **detail: str | int | list[str],
) -> None:
    """Append an event of a job that its attempt is about to bring about, unless the attempt is its job's no more.

    The records' own fence comes later, after the audit log's line. A worker that was stopped, and goes on when another
    has its job, would say of that that it failed, which the other closes: its graph took too long, or the folder of its
    attempt is gone.

    Raises
    ------
    Overtaken
        If the job was cancelled, or runs elsewhere.
    """
    try:
        is_current = records.is_current(job.id, attempt)
    except psycopg.Error:
        is_current = True  # nobody can have taken it while the records can't be reached
    if not is_current:
        raise Overtaken
    audit_job(audit, event, job, outcome, attempt=attempt, **detail)


@contextmanager
def attended(
    records: Records, job_id: uuid.UUID, attempt: int, slot_lost: threading.Event
) -> Iterator[threading.Event]:
    """Give an event that is set soon after the attempt is no longer the one that its job runs, or its slot is lost.

    The records are asked each second: what they say counts, whoever changed them and wherever that was. While they
    can't be reached the run goes on.
    """
    unwanted, over = threading.Event(), threading.Event()

    def look() -> None:
        asked = time.monotonic()
        while not over.wait(_LOOK_SECONDS):
            if slot_lost.is_set():
                unwanted.set()
                return
            if time.monotonic() - asked < _ASK_SECONDS:
                continue
            asked = time.monotonic()
            try:
                current = records.is_current(job_id, attempt)
            except psycopg.Error:
                continue
            if not current:
                unwanted.set()
                return

    looking = threading.Thread(target=look, name=f"attend {job_id}", daemon=True)
    looking.start()
    try:
        yield unwanted
    finally:
        over.set()
        looking.join()
