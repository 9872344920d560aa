"""Late arrivals: which jobs a new one takes the place of, and what destinations have of them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict

from app.jobs.arrival_entries import EarlierJob, SentObject
from app.jobs.connections import Connection, Connections, read_statements
from app.jobs.entries import NewJob

_SQL = read_statements("superseding.sql")


class SupersedeRecords(Connections):
    """What a newer job does to older ones."""

    def lock_earlier_jobs(
        self, connection: Connection, job: NewJob, *, of_study: bool, alone: Sequence[str] = ()
    ) -> list[EarlierJob]:
        """Hold the jobs that a new one takes the place of until the transaction ends, the oldest first.

        Parameters
        ----------
        of_study
            Whether all jobs of the rule in the study count, whichever series carries them.
        alone
            Pipelines whose jobs of earlier revisions of the same series count whatever their rule, where they were made
            of it alone.
        """
        facts = {**asdict(job), "of_study": of_study, "alone": list(alone)}
        return [EarlierJob(**row) for row in connection.execute(_SQL["lock_earlier_jobs"], facts).fetchall()]

    def keep_urgency(self, connection: Connection, job_id: uuid.UUID, urgent: int) -> None:
        """Make a job as urgent as one that it took the place of, if that has at least the priority `urgent`."""
        connection.execute(_SQL["keep_urgency"], {"id": job_id, "urgent": urgent})

    def mark_superseded(
        self, connection: Connection, job_id: uuid.UUID, by: uuid.UUID, reason: str, *, ends: bool
    ) -> None:
        """Record which job takes the place of a job, and, if it `ends` by that, that it ends as superseded."""
        facts = {"id": job_id, "by": by, "reason": reason, "ends": ends}
        connection.execute(_SQL["mark_superseded"], facts)

    def withhold_deliveries(self, connection: Connection, job_id: uuid.UUID, reason: str) -> list[tuple[str, str]]:
        """End the deliveries of a job that wait; return digest and destination of each."""
        rows = connection.execute(_SQL["withhold_deliveries"], {"id": job_id, "reason": reason}).fetchall()
        return [(row["digest"], row["destination"]) for row in rows]

    def count_sent(self, connection: Connection, job_id: uuid.UUID) -> tuple[int, int]:
        """Return how many deliveries of a job a destination has or may have, and how many of them are still open."""
        row = connection.execute(_SQL["sent_deliveries"], (job_id,)).fetchone()
        return (0, 0) if row is None else (row["sent"], row["open"])

    def superseded_jobs(self, job_id: uuid.UUID) -> list[uuid.UUID]:
        """Return the jobs that a job took the place of, the oldest first."""
        return [row["id"] for row in self._rows(_SQL["superseded_jobs"], (job_id,))]

    def replaced_objects(self, job_ids: Sequence[uuid.UUID]) -> list[SentObject]:
        """Return what destinations have, or may have, of the jobs that these took the place of, the newest first."""
        return [SentObject(**row) for row in self._rows(_SQL["replaced_objects"], (list(job_ids),))]

    def objects_to_withdraw(self) -> list[SentObject]:
        """Return what destinations have of superseded jobs whose successors have been delivered: it says nothing new.

        This is where a withdrawal (a rejection note) takes its objects from.
        """
        done = [row["id"] for row in self._rows(_SQL["jobs_with_objects_to_withdraw"], ())]
        return self.replaced_objects(done)
