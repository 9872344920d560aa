"""Results that are withdrawn after they were sent."""

from __future__ import annotations

import uuid
from dataclasses import asdict

from app.jobs.connections import Connection, Connections, read_statements
from app.jobs.return_entries import Withdrawal

_SQL = read_statements("withdrawing.sql")


class WithdrawRecords(Connections):
    """What was taken back."""

    def add_withdrawal(self, connection: Connection, withdrawal: Withdrawal) -> None:
        """Record that a job's results are withdrawn from a destination."""
        connection.execute(_SQL["insert_withdrawal"], asdict(withdrawal))

    def cancel_deliveries(self, connection: Connection, job_id: uuid.UUID, destination: str, reason: str) -> int:
        """End the deliveries of a job's results to a destination that have not ended; return how many they were.

        Those that it has, and that wait for its commitment alone, stay delivered, and it is no longer asked for them.
        """
        facts = {"job_id": job_id, "destination": destination, "reason": reason}
        connection.execute(_SQL["give_up_commitments"], facts)
        return len(connection.execute(_SQL["cancel_deliveries"], facts).fetchall())

    def is_withdrawn(self, connection: Connection, job_id: uuid.UUID, digest: str, destination: str) -> bool:
        """Whether an object of a job was withdrawn from a destination; a rejection note never is."""
        facts = {"job_id": job_id, "digest": digest, "destination": destination}
        row = connection.execute(_SQL["is_withdrawn"], facts).fetchone()
        return row is not None and bool(row["is_withdrawn"])

    def is_delivered(self, connection: Connection, job_id: uuid.UUID) -> bool:
        """Whether no delivery of the job's results is still to come; those of notes do not count."""
        row = connection.execute(_SQL["is_delivered"], (job_id,)).fetchone()
        return row is not None and bool(row["is_delivered"])

    def withdrawals(self, job_id: uuid.UUID) -> list[Withdrawal]:
        """Return from where a job's results were withdrawn."""
        return [Withdrawal(**row) for row in self._rows(_SQL["withdrawals"], (job_id,))]
