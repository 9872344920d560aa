"""Step 4: deliveries, and what destinations take."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from app.jobs.connections import Connection, Connections, read_statements
from app.jobs.entries import Delivery, DeliveryState, JobState
from app.jobs.return_entries import BegunDelivery, DestinationProfile
from operators.object_kinds import Kind

_SQL = read_statements("returning.sql")


class ReturnRecords(Connections):
    """Where what they made goes."""

    def begin_delivery(self, job_id: uuid.UUID, digest: str, destination: str) -> BegunDelivery | None:
        """Start the next attempt of a delivery; None if it has ended, as it does with a job that was cancelled.

        A withdrawal that is under way is waited for: its note refers to what had begun before, and nothing else goes.
        """
        facts = {"job_id": job_id, "digest": digest, "destination": destination}
        with self.transaction() as connection:
            self.lock_job(connection, job_id)
            row = connection.execute(_SQL["begin_delivery"], facts).fetchone()
        return None if row is None else BegunDelivery(**row)

    def drop_delivery(self, connection: Connection, job_id: uuid.UUID, digest: str, destination: str) -> None:
        """End the delivery of a cancelled job that was being sent when its worker was lost. The job must be locked."""
        connection.execute(_SQL["drop_delivery"], {"job_id": job_id, "digest": digest, "destination": destination})

    def postpone_delivery(
        self, connection: Connection, delivery: Delivery, seconds: float, *, counts: bool = True
    ) -> datetime | None:
        """Record a failed attempt and when the next comes, by the database's clock.

        None if there is no next one: it was overtaken, or the job cancelled. One that did not reach the destination
        does not count.
        """
        job = connection.execute(_SQL["lock_job"], (delivery.job_id,)).fetchone()
        state = "" if job is None else job["state"]
        facts = {**asdict(delivery), "seconds": seconds, "counts": counts, "job_state": state}
        row = connection.execute(_SQL["postpone_delivery"], facts).fetchone()
        return None if row is None else row["next_attempt_at"]

    def end_delivery(
        self, connection: Connection, delivery: Delivery, state: DeliveryState, *, commits: bool = False
    ) -> bool:
        """End a delivery; True if nothing of the job is left to do. One that was overtaken changes nothing.

        Where its destination `commits` itself, what the job sent there waits for that, once all of it has arrived.
        """
        self.lock_job(connection, delivery.job_id)
        facts = {**asdict(delivery), "to_state": state}
        if connection.execute(_SQL["end_delivery"], facts).fetchone() is None:
            return False
        if commits:
            self.begin_committing(connection, delivery.job_id, [delivery.destination])
        return not self.has_open_deliveries(connection, delivery.job_id)

    def begin_committing(self, connection: Connection, job_id: uuid.UUID, destinations: Sequence[str]) -> list[str]:
        """Have what a locked job sent to `destinations` wait for their commitment, where all of it has ended.

        Returns the destinations that are to be asked by that.
        """
        facts = {"job_id": job_id, "destinations": list(destinations)}
        rows = connection.execute(_SQL["begin_committing"], facts).fetchall()
        return sorted({row["destination"] for row in rows})

    def lock_job(self, connection: Connection, job_id: uuid.UUID) -> bool:
        """Keep others from ending deliveries of a job until the transaction ends; False if there is no such job."""
        return connection.execute(_SQL["lock_job"], (job_id,)).fetchone() is not None

    def has_open_deliveries(self, connection: Connection, job_id: uuid.UUID) -> bool:
        """Whether something of the job is still on its way, or waits for a destination's commitment."""
        row = connection.execute(_SQL["open_deliveries"], (job_id,)).fetchone()
        return row is None or row["open"] > 0

    def keep_profile(self, destination: str, address: str, accepted: Sequence[Kind]) -> None:
        """Keep what a destination said that it accepts, in place of what it said before."""
        facts = {"destination": destination, "address": address, "accepted": list(accepted)}
        with self.transaction() as connection:
            connection.execute(_SQL["keep_profile"], facts)

    def profiles(self) -> dict[str, DestinationProfile]:
        """Return what each destination said last, by its name."""
        rows = self._rows(_SQL["profiles"], ())
        found = [DestinationProfile(**{**row, "accepted": tuple(row["accepted"])}) for row in rows]
        return {one.destination: one for one in found}

    def failed_destinations(self, job_id: uuid.UUID) -> list[str]:
        """Return the destinations that did not get all of the job's objects."""
        return [row["destination"] for row in self._rows(_SQL["failed_deliveries"], (job_id,))]

    def close_job(self, job_id: uuid.UUID, state: JobState, code: str = "", reason: str = "") -> bool:
        """End a job whose deliveries have ended; False if it has ended before."""
        return self._happened(_SQL["close_job"], {"id": job_id, "to_state": state, "code": code, "reason": reason})
