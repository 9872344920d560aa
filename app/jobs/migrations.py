"""The numbered migrations in ``app/jobs/sql`` and the tables of the job queue, applied once each, in order.

While processes are upgraded one after the other, and when one goes back, programs of two versions work on one schema,
the newer one's. So a migration only adds (a test reads each): a table, an index, a column that may be left out, a value
that a state may have. A program takes a schema as it is that has migrations which it does not know.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from procrastinate.schema import SchemaManager

from app.errors import ServingError

FOLDER = Path(__file__).with_name("sql")
"""Where the numbered migrations are."""
_LOCK = 0x4C494D4E  # one program at a time: an advisory lock's number, the letters of the project

_TABLE = """
CREATE TABLE IF NOT EXISTS migrations (
    name        text PRIMARY KEY,
    digest      text NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""

_TRIES = 20  # of a change that programs at work are in the way of
_AGAIN_SECONDS = 0.5


def migrate(url: str, folder: Path = FOLDER) -> None:
    """Bring the database at `url` to a folder's schema, in one transaction; programs that start at once take turns.

    Other programs may be at work. A change waits for their transactions a moment only, since theirs wait for it
    meanwhile, and is tried again.

    Raises
    ------
    ServingError
        If the database can't be reached, or a migration that was applied reads differently now.
    """
    for tries in range(1, _TRIES + 1):
        try:
            _migrate(url, folder)
            return
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            if tries == _TRIES:
                raise ServingError(
                    "the database's schema can't be changed: another program holds its tables; end long transactions",
                    code="database-migrations",
                ) from error
            time.sleep(_AGAIN_SECONDS)
        except psycopg.OperationalError as error:
            raise ServingError(f"the database can't be reached: {error}", code="database-unreachable") from error


def _migrate(url: str, folder: Path) -> None:
    with psycopg.connect(url, connect_timeout=30) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute("SET LOCAL lock_timeout = '3s'")
        connection.execute(_TABLE)
        applied: dict[str, str] = dict(connection.execute("SELECT name, digest FROM migrations").fetchall())
        _migrate_queue(connection, set(applied))
        for path in sorted(folder.glob("[0-9]*.sql")):
            _apply(connection, path.name, path.read_text(), applied)


def _migrate_queue(connection: psycopg.Connection, applied: set[str]) -> None:
    """Make procrastinate's tables, or run those of its migrations that came with a newer version of it."""
    found = connection.execute("SELECT to_regclass('procrastinate_jobs') IS NOT NULL").fetchone()
    exists = found is not None and bool(found[0])
    if not exists:
        connection.execute(SchemaManager.get_schema())
    for name, text in _queue_migrations():
        if name not in applied:
            if exists:
                connection.execute(text)  # the text of our own files
            _remember(connection, name, text)


def _queue_migrations() -> Iterator[tuple[str, str]]:
    for path in sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql")):
        yield f"procrastinate/{path.name}", path.read_text()


def _apply(connection: psycopg.Connection, name: str, text: str, applied: dict[str, str]) -> None:
    if name not in applied:
        connection.execute(text)  # the text of our own files
        _remember(connection, name, text)
    elif applied[name] != _digest(text):
        raise ServingError(
            f"the migration {name} was applied to this database with another text; "
            "use the Limner that made it, or a new migration",
            code="database-migrations",
        )


def _remember(connection: psycopg.Connection, name: str, text: str) -> None:
    connection.execute("INSERT INTO migrations (name, digest) VALUES (%s, %s)", (name, _digest(text)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
