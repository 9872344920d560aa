"""What a job's destinations have is asked for where the last delivery that was waited for ends unsent."""

from __future__ import annotations

import uuid

from app.jobs.queue import TaskQueue
from app.jobs.records import Connection, Records
from app.settings import Settings


def begin_commitments(
    records: Records, queue: TaskQueue, settings: Settings, connection: Connection, job_id: uuid.UUID
) -> None:
    """Have each destination that commits itself asked for what it has of a job, if nothing more comes there.

    The job must be locked. Where the last delivery arrives its sender does the same (`Records.end_delivery`).
    """
    committing = [one.name for one in settings.destination if one.commitment != "none"]
    for destination in records.begin_committing(connection, job_id, committing):
        queue.defer_turn(connection, destination)
