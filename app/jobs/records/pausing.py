"""What is paused, and how much is under way and waits."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from app.jobs.connections import Connection, Connections, read_statements

_SQL = read_statements("pausing.sql")

PauseKind = Literal["everything", "pipeline", "destination"]


@dataclass(frozen=True)
class Pause:
    """Something of which nothing new starts."""

    kind: PauseKind
    name: str
    """Of the pipeline or destination; empty for everything."""
    person: str
    paused_at: datetime

    @property
    def what(self) -> str:
        """What is paused, in words."""
        return f"{self.kind} {self.name}".strip()


class Work(NamedTuple):
    """Graphs and sendings that are under way, and that wait."""

    graphs: int
    sendings: int
    graphs_waiting: int
    sendings_waiting: int


class PauseRecords(Connections):
    """What of it stands still."""

    def pauses(self) -> list[Pause]:
        """Return what is paused."""
        return [Pause(**row) for row in self._rows(_SQL["pauses"], ())]

    def pause(self, connection: Connection, kind: PauseKind, name: str, person: str) -> None:
        """Pause something; what waits of it is set aside with this transaction."""
        connection.execute(_SQL["pause"], {"kind": kind, "name": name, "person": person})
        self._follow(connection)

    def resume(self, connection: Connection, kind: PauseKind, name: str) -> None:
        """Let something go on; what was set aside waits again, where no other pause holds it."""
        connection.execute(_SQL["resume"], {"kind": kind, "name": name})
        self._follow(connection)

    def follow_pauses(self) -> None:
        """Set aside what was put into the queue since a pause began, and bring back what no pause holds."""
        with self.transaction() as connection:
            self._follow(connection)

    def is_paused(self, job_id: uuid.UUID) -> bool:
        """Whether a job's graph may not start now."""
        return any(row["paused"] for row in self._rows(_SQL["is_paused"], {"job_id": job_id}))

    def is_destination_paused(self, destination: str) -> bool:
        """Whether nothing may be sent to a destination now."""
        return any(row["paused"] for row in self._rows(_SQL["is_destination_paused"], (destination,)))

    def work(self) -> Work:
        """Return how much is under way and waits."""
        (row,) = self._rows(_SQL["work"], ())
        return Work(**row)

    def has_workers(self) -> bool:
        """Whether a process works on the queue, on this host or another."""
        (row,) = self._rows(_SQL["has_workers"], ())
        return bool(row["found"])

    def job_counts(self) -> dict[str, int]:
        """Return how many jobs are in each state that any is in."""
        return {row["state"]: row["number"] for row in self._rows(_SQL["job_counts"], ())}

    def _follow(self, connection: Connection) -> None:
        self._move_alone(connection)
        connection.execute(_SQL["park"])
        connection.execute(_SQL["unpark"])
