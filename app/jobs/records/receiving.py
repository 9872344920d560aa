"""Step 1: instances as they come in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import psycopg

from app.errors import OutOfResources
from app.jobs.connections import Connections, read_statements
from app.jobs.entries import Instance

_SQL = read_statements("receiving.sql")


class ReceiveRecords(Connections):
    """What comes in."""

    def record_instance(self, instance: Instance) -> None:
        """Record a kept instance; committed when this returns. A known one (UID and digest) changes nothing.

        Raises
        ------
        OutOfResources
            If the database can't be reached or has no room: the sender should try again later.
        """
        try:
            with self.transaction() as connection:
                connection.execute(_SQL["record_instance"], asdict(instance))
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise OutOfResources(f"the records can't be written: {type(error).__name__}") from error

    def backlog(self) -> int:
        """Return how many series are undecided and how many jobs are queued, together.

        Raises
        ------
        OutOfResources
            If the database can't be reached.
        """
        try:
            return int(self._rows(_SQL["backlog"], ())[0]["waiting"])
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise OutOfResources(f"the records can't be read: {type(error).__name__}") from error

    def unknown_digests(self, digests: Iterable[str]) -> set[str]:
        """Return those of the spool's digests that have no record."""
        return {row["digest"] for row in self._rows(_SQL["unknown_digests"], (list(digests),))}

    def adopt(self, instances: Iterable[Instance]) -> None:
        """Record instances found in the spool without a record: a crash came between file and record."""
        with self.transaction() as connection, connection.cursor() as cursor:
            cursor.executemany(_SQL["record_instance"], [asdict(one) for one in instances])
