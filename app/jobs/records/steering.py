"""What people do to jobs in progress: cancel, replay, put first."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from typing import NamedTuple

from app.jobs.connections import Connection, Connections, read_statements
from app.jobs.entries import DeliveryState, JobState

_SQL = read_statements("steering.sql")


class JobLife(NamedTuple):
    """Where a job is, while it is locked."""

    state: JobState
    code: str
    cancelled_in: JobState | str
    """What a cancelled job was; empty otherwise."""


class SteerRecords(Connections):
    """What people do to it."""

    def lock_life(self, connection: Connection, job_id: uuid.UUID) -> JobLife | None:
        """Hold a job until the transaction ends, and say where it is; None if there is no such job."""
        row = connection.execute(_SQL["lock_life"], (job_id,)).fetchone()
        return None if row is None else JobLife(**row)

    def cancel_job(self, connection: Connection, job_id: uuid.UUID, reason: str) -> None:
        """End a locked job and its deliveries as cancelled, and take back its tasks that wait."""
        connection.execute(_SQL["cancel_job"], {"id": job_id, "reason": reason})
        connection.execute(_SQL["cancel_deliveries"], (job_id,))
        connection.execute(_SQL["drop_tasks"], {"id": job_id})

    def replay_job(
        self,
        connection: Connection,
        job_id: uuid.UUID,
        job_state: JobState,
        delivery_state: DeliveryState | None = None,
    ) -> list[tuple[str, str]]:
        """Start a locked job again in a state, with a fresh count of tries.

        With a `delivery_state` the deliveries that failed or were cancelled get it; returns digest and destination
        of each of them.
        """
        connection.execute(_SQL["replay_job"], {"id": job_id, "to_state": job_state})
        if delivery_state is None:
            return []
        rows = connection.execute(_SQL["replay_deliveries"], {"id": job_id, "to_state": delivery_state}).fetchall()
        return [(row["digest"], row["destination"]) for row in rows]

    def replayable_jobs(self) -> list[uuid.UUID]:
        """Return the dead letters and the jobs whose deliveries failed, the oldest first."""
        return [row["id"] for row in self._rows(_SQL["replayable_jobs"], ())]

    def prioritise(self, connection: Connection, job_id: uuid.UUID, priority: int) -> None:
        """Give a locked job and its tasks a priority."""
        facts = {"id": job_id, "priority": priority}
        connection.execute(_SQL["prioritise_job"], facts)
        connection.execute(_SQL["prioritise_tasks"], facts)

    def waiting_graph_queues(self) -> set[str]:
        """Return the queues in which tasks of graphs wait."""
        return {row["queue"] for row in self._rows(_SQL["waiting_graph_queues"], ())}

    def requeue_graphs(
        self, queues: Mapping[str, str], otherwise: str, waiting_in: Collection[str] | None = None
    ) -> None:
        """Put each graph's task into the queue of its pipeline, or into `otherwise` where that has none.

        Parameters
        ----------
        waiting_in
            Of these queues alone.
        """
        facts = {
            "pipelines": list(queues),
            "queues": list(queues.values()),
            "otherwise": otherwise,
            "waiting_in": None if waiting_in is None else list(waiting_in),
        }
        with self.transaction() as connection:
            self._move_alone(connection)
            connection.execute(_SQL["requeue_graphs"], facts)

    def take_up_tasks(self, given_up: str, queue: str) -> list[str]:
        """Put the tasks of the queue `given_up` back into `queue`; return their names."""
        rows = self._rows(_SQL["take_up_tasks"], {"given_up": given_up, "queue": queue})
        return [row["task_name"] for row in rows]

    def is_current(self, job_id: uuid.UUID, attempt: int) -> bool:
        """Whether this attempt is the one that the job is running."""
        return bool(self._rows(_SQL["is_current"], {"id": job_id, "attempt": attempt}))
