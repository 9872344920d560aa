"""What must agree, asked in one snapshot: instances, series, jobs and deliveries, with the queue's tasks."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import NamedTuple, TypeVar

from psycopg.rows import DictRow

from app.identifiers import UID
from app.jobs.connections import Connection, Connections, read_statements

_SQL = read_statements("accounting.sql")
_BATCH = 10_000
_Item = TypeVar("_Item")

RULES = tuple(name.removeprefix("rule_") for name in _SQL if name.startswith("rule_"))
"""The rules that the records must keep; each is also the code of what breaks it, with '_' for '-'."""
TOTALS = ("instances", "files", "series", "jobs", "deliveries")
"""What is counted by state."""


class LedgerEntry(NamedTuple):
    """An instance whose file must be in the spool."""

    digest: str
    size_bytes: int
    sop_instance_uid: UID
    series_instance_uid: UID
    study_instance_uid: UID


class NamedDelivery(NamedTuple):
    """What names a delivery."""

    job_id: str
    digest: str
    destination: str


class Snapshot:
    """The records as they were at one moment, from `since` on. Live jobs and deliveries count whatever their age."""

    def __init__(self, connection: Connection, since: datetime) -> None:
        self._connection = connection
        self._facts = {"since": since}

    def totals(self) -> dict[str, dict[str, int]]:
        """Return how many there are of each of `TOTALS`, by state."""
        found = {}
        for kind in TOTALS:
            rows = self._connection.execute(_SQL[f"{kind}_by_state"], self._facts).fetchall()
            found[kind] = {row["state"]: row["count"] for row in rows}
        return found

    def ledger(self) -> Iterator[LedgerEntry]:
        """Yield the instances whose files must be there; of a large ledger, not all are in memory at once."""
        with self._connection.cursor(name="ledger") as cursor:
            cursor.itersize = 10_000
            for row in cursor.execute(_SQL["ledger"], self._facts):
                yield LedgerEntry(**row)

    def results(self) -> list[DictRow]:
        """Return job, digest, path and study of each result whose file must be there."""
        return self._connection.execute(_SQL["results_kept"], self._facts).fetchall()

    def jobs(self) -> list[DictRow]:
        """Return number, state, time and study of each job."""
        return self._connection.execute(_SQL["jobs_and_states"], self._facts).fetchall()

    def deliveries(self) -> dict[NamedDelivery, str]:
        """Return the state of each delivery."""
        rows = self._connection.execute(_SQL["deliveries_of_since"], self._facts).fetchall()
        return {_named(row): row["state"] for row in rows}

    def broken(self, rule: str) -> list[DictRow]:
        """Return what breaks one of `RULES`: UIDs, job, destination and digest, as far as the rule is about them."""
        return self._connection.execute(_SQL[f"rule_{rule}"], self._facts).fetchall()


class AccountRecords(Connections):
    """Whether all of it agrees."""

    @contextmanager
    def snapshot(self, since: datetime) -> Iterator[Snapshot]:
        """Give the records as they are at this moment; nothing can be changed through it."""
        with self.transaction() as connection:
            connection.execute(_SQL["begin_snapshot"])
            yield Snapshot(connection, since)

    def kept_of(self, digests: Iterable[str]) -> set[str]:
        """Return those of `digests` whose files must be in the spool now."""
        return {row["digest"] for row in self._rows(_SQL["kept_of"], {"digests": list(digests)})}

    def known_of(self, digests: Iterable[str]) -> set[str]:
        """Return those of `digests` whose files may be in the spool now."""
        return {row["digest"] for row in self._rows(_SQL["known_of"], {"digests": list(digests)})}

    def jobs_of(self, jobs: Iterable[str]) -> set[str]:
        """Return those of these jobs that are recorded now."""
        return {str(row["id"]) for row in self._rows(_SQL["jobs_of"], {"jobs": list(jobs)})}

    def deliveries_of(self, jobs: Iterable[str]) -> set[NamedDelivery]:
        """Return each delivery of these jobs, as they are now."""
        return {_named(row) for row in self._rows(_SQL["deliveries_of"], {"jobs": list(jobs)})}

    def studies_without_instances(self, studies: Iterable[str]) -> list[str]:
        """Return those of these studies of which no instance is recorded now."""
        return [row["study"] for row in self._rows(_SQL["studies_without_instances"], {"studies": list(studies)})]

    def result_is_kept(self, job_id: uuid.UUID, digest: str) -> bool:
        """Whether the file of a result must be there now."""
        return bool(self._rows(_SQL["result_is_kept"], {"job_id": job_id, "digest": digest}))

    def seen_series(self, study_instance_uid: str) -> set[str]:
        """Return the series of a study that came here or were made here."""
        return {row["series_instance_uid"] for row in self._rows(_SQL["seen_series"], {"study": study_instance_uid})}

    def delivered(self, since: datetime) -> list[DictRow]:
        """Return job, digest, destination and UIDs of what destinations have got of the jobs since a moment.

        What was withdrawn from them, and the notes that say so, they need not show any more.
        """
        return self._rows(_SQL["delivered"], {"since": since})


def batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Yield as many at a time as one statement is asked about."""
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _named(row: DictRow) -> NamedDelivery:
    return NamedDelivery(str(row["job_id"]), row["digest"], row["destination"])
