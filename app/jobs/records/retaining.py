"""What may be removed from the disk, and the record of it, which comes before."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from app.jobs.connections import Connection, Connections, read_statements

_SQL = read_statements("retaining.sql")
_LIVE = ("queued", "running", "held", "delivering")


@dataclass(frozen=True)
class KeptStudy:
    """A study with files in the spool."""

    study_instance_uid: str
    instances: int
    bytes: int
    idle_seconds: float
    """Since the last that happened to it."""
    needed_by: str
    """What needs it, as ``sql/retaining.sql`` says; empty if nothing does."""


@dataclass(frozen=True)
class KeptResults:
    """A job with a folder of results."""

    job_id: uuid.UUID
    study_instance_uid: str
    idle_seconds: float
    needed_by: str


class RetainRecords(Connections):
    """What stays on the disk."""

    def kept_studies(
        self,
        committing: Collection[str],
        replay_seconds: float,
        study: str | None = None,
        connection: Connection | None = None,
    ) -> list[KeptStudy]:
        """Return the studies with files in the spool, or one of them, those left alone longest first.

        Parameters
        ----------
        committing
            The destinations that are asked for commitment.
        replay_seconds
            How long a failed job or delivery may be repeated.
        """
        facts = {"committing": list(committing), "replay_seconds": replay_seconds, "study": study}
        return [KeptStudy(**row) for row in self._asked(_SQL["kept_studies"], facts, connection)]

    def kept_results(
        self,
        committing: Collection[str],
        replay_seconds: float,
        jobs: Sequence[uuid.UUID],
        connection: Connection | None = None,
    ) -> list[KeptResults]:
        """Return of these jobs what needs their results, those left alone longest first."""
        facts = {"committing": list(committing), "replay_seconds": replay_seconds, "jobs": list(jobs)}
        return [KeptResults(**row) for row in self._asked(_SQL["kept_results"], facts, connection)]

    def kept_bytes(self) -> int:
        """Return what all instances take."""
        (row,) = self._rows(_SQL["kept_bytes"], ())
        return int(row["bytes"])

    def lock_kept_study(self, connection: Connection, study_instance_uid: str) -> bool:
        """Hold a study, so that nothing comes or is decided meanwhile; False if a live job elsewhere reads of it."""
        connection.execute(_SQL["lock_kept_study"], (study_instance_uid,))
        row = connection.execute(_SQL["reads_elsewhere"], (study_instance_uid,)).fetchone()
        return row is not None and not row["found"]

    def mark_instances(self, connection: Connection, study_instance_uid: str) -> None:
        """Record the instances of a study as removed."""
        connection.execute(_SQL["mark_instances"], (study_instance_uid,))

    def lock_results(self, connection: Connection, job_id: uuid.UUID) -> bool:
        """Hold a job; False if it lives: it was asked to repeat its work."""
        row = connection.execute(_SQL["lock_results"], (job_id,)).fetchone()
        return row is None or row["state"] not in _LIVE

    def lock_removed_results(self, connection: Connection, job_id: uuid.UUID) -> bool:
        """Hold a job whose results are recorded as removed; False if its files are needed again.

        Nothing of it is written before the transaction ends.
        """
        if not self.lock_results(connection, job_id):
            return False
        row = connection.execute(_SQL["results_came_since"], {"job_id": job_id}).fetchone()
        return row is not None and not row["found"]

    def mark_results(self, connection: Connection, job_id: uuid.UUID) -> None:
        """Record the results of a job as removed."""
        connection.execute(_SQL["mark_results"], (job_id,))
        connection.execute(_SQL["insert_removal"], (str(job_id),))

    def instances_to_remove(self, limit: int) -> list[str]:
        """Return digests that are recorded as removed and may lie in the spool still, the oldest record first."""
        return [row["name"] for row in self._rows(_SQL["removals_of_instances"], (limit,))]

    def results_to_remove(self, limit: int) -> list[uuid.UUID]:
        """Return jobs whose results are recorded as removed and may lie there still."""
        return [uuid.UUID(row["name"]) for row in self._rows(_SQL["removals_of_results"], (limit,))]

    def allow_silence(self, connection: Connection, seconds: float) -> None:
        """Let a transaction say nothing for longer than others may: it waits for a disk or a storage."""
        connection.execute(_SQL["allow_silence"], (f"{seconds:.0f}s",))

    def say_something(self, connection: Connection) -> None:
        """Show that whoever has a transaction lives; OperationalError if the database has ended it, with its locks."""
        connection.execute("SELECT 1")

    def lock_removed(self, connection: Connection, digests: Sequence[str]) -> list[str]:
        """Hold those of `digests` that are removed by the records: none comes back before the transaction ends."""
        return [row["digest"] for row in connection.execute(_SQL["lock_removed"], (list(digests),)).fetchall()]

    def removed_of(self, digests: Collection[str]) -> set[str]:
        """Return those of `digests` that came once and are recorded as removed."""
        return {row["digest"] for row in self._rows(_SQL["removed_of"], (list(digests),))}

    def removed_instances(self, connection: Connection, digests: Sequence[str]) -> None:
        """Record that these files are gone, or are needed again."""
        connection.execute(_SQL["removed"], ("instance", list(digests)))

    def removed_results(self, connection: Connection, job_id: uuid.UUID) -> None:
        """Record that the results of a job are gone, or are needed again."""
        connection.execute(_SQL["removed"], ("results", [str(job_id)]))

    def retention_is_asked_for(self) -> bool:
        """Whether a task that removes waits or runs."""
        return any(row["found"] for row in self._rows(_SQL["retention_is_asked_for"], ()))

    def _asked(self, statement: str, facts: dict[str, Any], connection: Connection | None) -> list[Any]:
        if connection is None:
            return self._rows(statement, facts)
        return connection.execute(statement, facts).fetchall()
