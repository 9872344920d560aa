"""Step 2, before the decision: what an archive says that a study has, and which associations bring it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime

import psycopg
from psycopg.errors import ReadOnlySqlTransaction

from app.errors import OutOfResources
from app.jobs.arrival_entries import QueuePlace, Transfer
from app.jobs.connections import Connections, read_statements

_SQL = read_statements("completing.sql")


class CompleteRecords(Connections):
    """What is known of a series' being complete beside its quiet time."""

    def begin_question(self, study_instance_uid: str, archive: str) -> datetime:
        """Record that an archive is being asked about a study; return when, which names the question."""
        facts = {"study_instance_uid": study_instance_uid, "archive": archive}
        with self.transaction() as connection:
            row = connection.execute(_SQL["begin_question"], facts).fetchone()
        assert row is not None  # noqa: S101 - the statement always returns its row
        asked_at: datetime = row["asked_at"]
        return asked_at

    def answer_question(self, study_instance_uid: str, asked_at: datetime, instances: Mapping[str, int]) -> None:
        """Record how many instances the archive has of each series; an answer to an older question is dropped."""
        facts = {"study_instance_uid": study_instance_uid, "asked_at": asked_at, "code": ""}
        with self.transaction() as connection, connection.cursor() as cursor:
            if not self._happened(_SQL["end_question"], facts, connection):
                return
            connection.execute(_SQL["forget_expected"], (study_instance_uid,))
            cursor.executemany(_SQL["insert_expected"], [(study_instance_uid, *one) for one in instances.items()])

    def fail_question(self, study_instance_uid: str, asked_at: datetime, code: str) -> None:
        """Record why there was no answer; what was answered before stays."""
        facts = {"study_instance_uid": study_instance_uid, "asked_at": asked_at, "code": code}
        self._happened(_SQL["end_question"], facts)

    def queue_places(self, job_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, QueuePlace]:
        """Return where those of the jobs stand that are queued."""
        found = [QueuePlace(**row) for row in self._rows(_SQL["queue_places"], (list(job_ids),))]
        return {one.job_id: one for one in found}

    def begin_transfer(self, transfer: Transfer) -> None:
        """Record that an association is about to bring a series.

        Raises
        ------
        OutOfResources
            If the database can't be reached, is locked, has no room or only reads, as a standby does: the sender should
            try again later.
        """
        try:
            with self.answered_transaction() as connection:
                connection.execute(_SQL["begin_transfer"], transfer._asdict())
        except (psycopg.OperationalError, psycopg.InterfaceError, ReadOnlySqlTransaction) as error:
            raise OutOfResources(f"the records can't be written: {type(error).__name__}") from error

    def end_transfers(self, association: uuid.UUID, *, released: bool) -> None:
        """Record that an association has ended; if it was the source's last of a study, its whole series are released.

        Parameters
        ----------
        released
            False if it was aborted or broke: what it brought waits for its quiet time, or for a later association.
        """
        facts = {"association": association, "to_state": "released" if released else "broken"}
        with self.transaction() as connection:
            ended = connection.execute(_SQL["end_transfers"], facts).fetchall()
            studies = sorted({row["study_instance_uid"] for row in ended})
            connection.execute(_SQL["lock_series_of_source"], (studies,))
            for row in {one["study_instance_uid"]: one for one in ended}.values():
                connection.execute(_SQL["release_series"], row)
                connection.execute(_SQL["forget_transfers"], row)

    def break_left_open(self, listener: str) -> None:
        """Have associations count as broken that a listener left open; called before it listens again."""
        with self.transaction() as connection:
            connection.execute(_SQL["break_left_open"], (listener,))

    def end_left_open(self, seconds: float | None) -> int:
        """Have associations count as broken that have brought nothing for so long, or all of them; return how many.

        A listener ends its own. What one that vanished left open nobody else would.
        """
        left = [row["association"] for row in self._rows(_SQL["left_open"], {"seconds": seconds})]
        for association in left:
            self.end_transfers(association, released=False)
        return len(left)
