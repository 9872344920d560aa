"""Step 4: what destinations were asked to commit themselves to, and what they said (PS3.4 annex J)."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from datetime import datetime

from psycopg.rows import DictRow

from app.jobs.connections import Connection, Connections, read_statements
from app.jobs.entries import DeliveryState
from app.jobs.return_entries import Commitment, CommittingObject, KeptReport

_SQL = read_statements("committing.sql")


class CommitRecords(Connections):
    """Requests for storage commitment, and the reports on them."""

    def due_commitments(self, destination: str, limit: int) -> list[uuid.UUID]:
        """Return the jobs that the destination is to be asked about now."""
        rows = self._rows(_SQL["due_commitments"], {"destination": destination, "limit": limit})
        return [row["job_id"] for row in rows]

    def put_off_commitments(self, connection: Connection, destination: str, codes: Collection[str]) -> bool:
        """Have what the destination is due to be asked about wait with what was put off with one of `codes`.

        False if nothing is due, or nothing waits like that. The task at the end of that wait is there already.
        """
        facts = {"destination": destination, "codes": list(codes)}
        return self._happened(_SQL["put_off_commitments"], facts, connection)

    def begin_round(self, connection: Connection, job_id: uuid.UUID, destination: str) -> list[CommittingObject]:
        """Count one more question about what a job sent that is due to be asked about, and return the objects."""
        rows = connection.execute(_SQL["begin_round"], {"job_id": job_id, "destination": destination}).fetchall()
        return [CommittingObject(**row) for row in rows]

    def take_back_round(
        self, connection: Connection, job_id: uuid.UUID, destination: str, objects: Sequence[CommittingObject]
    ) -> None:
        """Have a question that did not leave not count; these objects stay due."""
        facts = {"job_id": job_id, "destination": destination, "digests": [one.digest for one in objects]}
        connection.execute(_SQL["take_back_round"], facts)

    def keep_commitment(self, connection: Connection, request: Commitment, objects: Sequence[CommittingObject]) -> None:
        """Write a request down, before it leaves."""
        facts = {"transaction_uid": request.transaction_uid, "destination": request.destination}
        connection.execute(_SQL["insert_commitment"], {**facts, "job_id": request.job_id})
        for one in objects:
            about = {"digest": one.digest, "sop_instance_uid": one.sop_instance_uid}
            connection.execute(_SQL["insert_commitment_object"], {**facts, **about})

    def ask_again(
        self,
        connection: Connection,
        job_id: uuid.UUID,
        destination: str,
        objects: Sequence[CommittingObject],
        seconds: float,
        *,
        counts: bool = True,
        code: str = "",
        reason: str = "",
    ) -> datetime | None:
        """Have a question asked again after `seconds`, if it is open still; when. One that got nowhere counts not."""
        facts = {"job_id": job_id, "destination": destination, "digests": [one.digest for one in objects]}
        said = {"code": code, "reason": reason, "seconds": seconds, "counts": counts}
        rows = connection.execute(_SQL["ask_again"], {**facts, **said}).fetchall()
        return max((row["next_attempt_at"] for row in rows), default=None)

    def keep_report(
        self,
        connection: Connection,
        transaction_uid: str,
        committed: Sequence[str],
        refused: Sequence[tuple[str, int]],
        destinations: Collection[str],
    ) -> bool:
        """Keep a report on a request to one of `destinations`; False if there was no such request.

        Parameters
        ----------
        committed
            SOP Instance UIDs.
        refused
            SOP Instance UIDs with the Failure Reason (PS3.3 section C.14).
        """
        facts = {
            "transaction_uid": transaction_uid,
            "committed": list(committed),
            "refused": [uid for uid, _ in refused],
            "reasons": [reason for _, reason in refused],
            "destinations": list(destinations),
        }
        return self._happened(_SQL["insert_report"], facts, connection)

    def lock_reports(self, connection: Connection, transaction_uid: str) -> list[KeptReport]:
        """Return the reports on a request that nobody has acted on, and keep others from it."""
        rows = connection.execute(_SQL["lock_reports"], {"transaction_uid": transaction_uid}).fetchall()
        return [_report(row) for row in rows]

    def reported_objects(self, connection: Connection, report: KeptReport) -> dict[str, tuple[str, int]]:
        """Return what a report can still say something about: SOP Instance UID to digest and rounds."""
        facts = {"transaction_uid": report.transaction_uid, "job_id": report.job_id, "destination": report.destination}
        rows = connection.execute(_SQL["reported_objects"], facts).fetchall()
        return {row["sop_instance_uid"]: (row["digest"], row["commitment_rounds"]) for row in rows}

    def applied_report(self, connection: Connection, report: KeptReport) -> None:
        """Record that a report was acted on."""
        connection.execute(_SQL["applied_reports"], {"number": report.number})

    def send_again(
        self,
        connection: Connection,
        job_id: uuid.UUID,
        digest: str,
        destination: str,
        seconds: float,
        code: str,
        reason: str,
    ) -> datetime | None:
        """Have an object sent again after `seconds`; when. None if the wait for its commitment had ended."""
        facts = {"job_id": job_id, "digest": digest, "destination": destination, "seconds": seconds}
        row = connection.execute(_SQL["send_again"], {**facts, "code": code, "reason": reason}).fetchone()
        return None if row is None else row["next_attempt_at"]

    def end_commitment(
        self,
        connection: Connection,
        job_id: uuid.UUID,
        digest: str,
        destination: str,
        state: DeliveryState,
        code: str = "",
        reason: str = "",
    ) -> None:
        """End the wait for a commitment, if it has not ended: committed, failed, or delivered where none is wanted."""
        facts = {"job_id": job_id, "digest": digest, "destination": destination, "to_state": state}
        connection.execute(_SQL["end_commitment"], {**facts, "code": code, "reason": reason})


def _report(row: DictRow) -> KeptReport:
    return KeptReport(
        number=row["number"],
        transaction_uid=row["transaction_uid"],
        job_id=row["job_id"],
        destination=row["destination"],
        is_latest=row["is_latest"],
        committed=tuple(row["committed"]),
        refused=tuple(zip(row["refused"], row["reasons"], strict=True)),
    )
