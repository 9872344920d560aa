"""Pausing everything, a pipeline's graphs, or the deliveries to a destination, until a person has it go on.

Nothing new of it starts; what runs ends. What waits is set aside in its order (`sql/pausing.sql`): as the pause begins,
and once a second what came since. A task that is fetched in between goes back before it has begun anything.
"""

from __future__ import annotations

import uuid

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.jobs import queue as queues
from app.jobs.queue import Paused, TaskQueue
from app.jobs.records import Records
from app.jobs.records.pausing import PauseKind
from app.telemetry import get_logger

_log = get_logger(__name__)


class Pausing:
    """Carries pauses out. Its parameters are those of `app.jobs.workflow.Workflow`."""

    def __init__(self, *, records: Records, audit: AuditLog) -> None:
        self._records = records
        self._audit = audit

    def pause(self, kind: PauseKind, name: str, person: str) -> None:
        """Let nothing new of it start."""
        self._tell(AuditEvent.WORK_PAUSED, kind, name, person)
        with self._records.transaction() as connection:
            self._records.pause(connection, kind, name, person)
        _log.warning("work.paused", what=f"{kind} {name}".strip())

    def resume(self, kind: PauseKind, name: str, person: str) -> None:
        """Let it go on."""
        self._tell(AuditEvent.WORK_RESUMED, kind, name, person)
        with self._records.transaction() as connection:
            self._records.resume(connection, kind, name)
        _log.warning("work.resumed", what=f"{kind} {name}".strip())

    def check(self, job_id: uuid.UUID) -> None:
        """Raise `Paused` if a job's graph may not start."""
        if self._records.is_paused(job_id):
            raise Paused

    def check_destination(self, destination: str) -> None:
        """Raise `Paused` if nothing may be sent to a destination."""
        if self._records.is_destination_paused(destination):
            raise Paused

    def _tell(self, event: AuditEvent, kind: PauseKind, name: str, person: str) -> None:
        which: dict[str, str] = {} if kind == "everything" else {kind: name}
        self._audit.append(event, Outcome.SUCCESS, person=person, **which)


def ask_for_pause(records: Records, kind: PauseKind, name: str, person: str, *, resume: bool = False) -> None:
    """Put a pause, or its end, into the queue for the server to carry out."""
    with records.transaction() as connection:
        TaskQueue().defer_pause(connection, queues.RESUME if resume else queues.PAUSE, kind, name, person)
