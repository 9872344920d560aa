"""Step 1: instances as they come in."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import fields

import psycopg
from psycopg.errors import QueryCanceled, ReadOnlySqlTransaction
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolClosed

from app.errors import OutOfResources
from app.jobs.connections import LINE, RECONNECT_SECONDS, Connection, Connections, read_statements
from app.jobs.entries import Instance

_SQL = read_statements("receiving.sql")


_FACTS = tuple(one.name for one in fields(Instance))
_RECEIVING_CONNECTIONS = 8
_CONNECTION_SECONDS = 10.0


class ReceiveRecords(Connections):
    """What comes in."""

    def __init__(
        self, url: str, *, maximum_connections: int = 16, timeout_seconds: float = _CONNECTION_SECONDS
    ) -> None:
        super().__init__(url, maximum_connections=maximum_connections, timeout_seconds=timeout_seconds)
        self._receiving_lock = threading.Lock()
        self._receiving: ConnectionPool[Connection] | None = None
        self._is_closed = False

    def record_instance(self, instance: Instance, *, is_told: bool = False) -> bool:
        """Record a kept instance; committed when this returns. A known one (UID and digest) changes nothing.

        Parameters
        ----------
        is_told
            Whether the audit log was told that the instance has other content than before.

        Returns
        -------
        bool
            Whether that is to be told first: then nothing was recorded.

        Raises
        ------
        OutOfResources
            If the database can't be reached, is locked, has no room or only reads, as a standby does: the sender should
            try again later.
        """
        try:
            try:
                return self._commit(instance, is_told)
            except QueryCanceled:  # somebody holds a lock: another try would wait as long
                raise
            except (psycopg.OperationalError, psycopg.InterfaceError):
                # a connection may be one that the database has ended since; what is recorded twice is recorded once
                self._receiving_pool().drain()
                return self._commit(instance, is_told)
        except (psycopg.OperationalError, psycopg.InterfaceError, ReadOnlySqlTransaction) as error:
            raise OutOfResources(f"the records can't be written: {type(error).__name__}") from error

    def close(self) -> None:
        """Close the connections."""
        with self._receiving_lock:
            pool, self._receiving = self._receiving, None
            self._is_closed = True
        if pool is not None:
            pool.close()
        super().close()

    def _commit(self, instance: Instance, is_told: bool) -> bool:
        with self._receiving_pool().connection() as connection:
            return self._record(connection, instance, is_told)

    @staticmethod
    def _record(connection: Connection, instance: Instance, is_told: bool) -> bool:
        """Record an instance, unless it is to be told first; return whether it is."""
        facts = {name: getattr(instance, name) for name in _FACTS} | {"is_told": is_told}
        row = connection.execute(_SQL["record_instance"], facts).fetchone()
        return row is not None and bool(row["is_to_be_told"])

    def _receiving_pool(self) -> ConnectionPool[Connection]:
        """Return connections on which a statement is its own transaction: one message there and back an instance.

        A transaction of `Connections` takes four, one of them to see that the connection lives. Those who record
        nothing open none.
        """
        with self._receiving_lock:
            if self._is_closed:
                raise PoolClosed("the records are closed")
            if self._receiving is None:
                self._receiving = ConnectionPool(
                    self.url,
                    kwargs={"row_factory": dict_row, **LINE, "autocommit": True},
                    min_size=1,
                    max_size=_RECEIVING_CONNECTIONS,
                    timeout=self.answer_seconds,
                    reconnect_timeout=RECONNECT_SECONDS,
                    configure=self._limit_statements,
                    num_workers=1,
                    name="receiving",
                    open=True,
                )
            return self._receiving

    def _limit_statements(self, connection: Connection) -> None:
        """Have a sender be answered where a statement waits for somebody's lock, before it takes us for dead."""
        connection.execute(f"SET statement_timeout = '{self.answer_seconds}s'")

    def backlog(self) -> int:
        """Return how many series are undecided and how many jobs are queued, together.

        Raises
        ------
        OutOfResources
            If the database can't be reached.
        """
        try:
            with self.answered_transaction() as connection:
                (row,) = connection.execute(_SQL["backlog"]).fetchall()
            return int(row["waiting"])
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise OutOfResources(f"the records can't be read: {type(error).__name__}") from error

    def unknown_digests(self, digests: Iterable[str]) -> set[str]:
        """Return those of the spool's digests that have no record."""
        return {row["digest"] for row in self._rows(_SQL["unknown_digests"], (list(digests),))}

    def adopt(self, instances: Iterable[Instance], *, is_told: bool = False) -> list[Instance]:
        """Record instances found in the spool without a record: a crash came between file and record.

        Returns those that are to be told first, as `record_instance` does; these were not recorded.
        """
        with self.transaction() as connection:
            return [one for one in instances if self._record(connection, one, is_told)]
