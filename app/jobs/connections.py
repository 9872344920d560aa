"""Connections to the PostgreSQL that keeps the records, and the SQL files' statements by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.errors import IdleInTransactionSessionTimeout
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool

from app.jobs.migrations import migrate

RECONNECT_SECONDS = 5.0
"""A pool that can't connect gives up after this time, and tries anew when it is asked. Else its tries would become ever
rarer, and a database that is back not be noticed for minutes."""

LINE: Mapping[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""For every connection (of TCP alone): a line that is cut without a word is missed within half a minute. By the
operating system's own limits whoever asked would wait for a quarter of an hour, and whoever listens for ever."""

UNPREPARED: Mapping[str, Any] = {"prepare_threshold": None}
"""For connections that last: a prepared statement fails, each time, once a newer program has added a column."""

_KEEP_ALIVE = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
"""So soon, in seconds and tries, the database frees what a connection held whose machine is gone without a word."""

LOST_OR_FULL = (psycopg.OperationalError, psycopg.InterfaceError, IdleInTransactionSessionTimeout)
"""What a database says, or a line to one, that may be right again soon. What was committed last is then not known."""

Connection = psycopg.Connection[DictRow]
"""A connection in a transaction of `Connections.transaction`."""


def read_statements(file_name: str) -> dict[str, str]:
    """Return the statements of a file of the ``sql`` folder by the names in its ``-- name:`` lines."""
    sections = Path(__file__).with_name("sql").joinpath(file_name).read_text().split("-- name: ")[1:]
    return {name.strip(): text.strip().rstrip(";") for name, text in (one.split("\n", 1) for one in sections)}


async def connect_alone(url: str, **facts: Any) -> psycopg.AsyncConnection:
    """Open a connection outside of any pool, each statement a transaction of its own; its locks end with it."""
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True, **LINE, **facts)
    await connection.execute(_KEEP_ALIVE)
    return connection


_SILENT_SECONDS = 30


def _limit_silence(connection: Connection) -> None:
    """Have the database end a transaction in which nobody says anything: its process hangs, or its machine is gone.

    It would hold its locks for as long; others wait for them.
    """
    connection.execute(f"SET idle_in_transaction_session_timeout = '{_SILENT_SECONDS}s'")
    connection.commit()


class Connections:
    """A pool of connections. Thread-safe: the listener's threads and the workers' threads share it.

    Parameters
    ----------
    url
        The PostgreSQL's.
    maximum_connections, timeout_seconds
        Connections held at most, and the longest wait for one.
    """

    def __init__(self, url: str, *, maximum_connections: int = 16, timeout_seconds: float = 10.0) -> None:
        self.url = url
        self.answer_seconds = timeout_seconds
        """Longest wait for a statement, where a peer waits for what it says."""
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            url,
            kwargs={"row_factory": dict_row, **LINE, **UNPREPARED},
            min_size=1,
            max_size=maximum_connections,
            timeout=timeout_seconds,
            reconnect_timeout=RECONNECT_SECONDS,
            check=ConnectionPool.check_connection,
            configure=_limit_silence,
            name="records",
            open=False,
        )

    def open(self) -> None:
        """Bring the schema up to date and open the connections; ServingError if the database can't be reached."""
        migrate(self.url)
        self._pool.open()

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Give a connection whose work is committed at the end, or rolled back by an exception."""
        with self._pool.connection() as connection:
            yield connection

    @contextmanager
    def answered_transaction(self) -> Iterator[Connection]:
        """The same for a peer that waits for an answer: a statement that meets somebody's lock gives up in time."""
        with self.transaction() as connection:
            connection.execute(f"SET LOCAL statement_timeout = '{self.answer_seconds}s'")
            yield connection

    def _move_alone(self, connection: Connection) -> None:
        """Be the only one that moves many tasks until the transaction ends: two at once could wait for each other."""
        connection.execute("SELECT pg_advisory_xact_lock(1279872321)")

    def _rows(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any]) -> list[DictRow]:
        with self.transaction() as connection:
            return connection.execute(statement, parameters).fetchall()

    def _happened(self, statement: str, facts: Mapping[str, Any], connection: Connection | None = None) -> bool:
        """Whether a statement that ends in RETURNING changed a row; in its own transaction where none is given."""
        if connection is not None:
            return connection.execute(statement, facts).fetchone() is not None
        with self.transaction() as own:
            return own.execute(statement, facts).fetchone() is not None
