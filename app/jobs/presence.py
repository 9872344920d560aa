"""Which processes are there: locks in the database that they share, given up by it when a process dies.

`Presence` tells a process that starts whether it is the only one of its kind. `Turn` lets a service run in one process
at a time, whichever of them gets there first; `own_turn` does so for work that blocks its thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator

import psycopg

from app.jobs.connections import LINE, connect_alone
from app.telemetry import get_logger

LISTENERS = 0x4C494D4C  # numbers of advisory locks: the letters of the project and one for the kind (`A`: pausing.sql)
WORKERS = 0x4C494D57
COMPLETION = 0x4C494D43
RETENTION = 0x4C494D50

_ALONE_TRIES = 10  # a killed process' connections end in milliseconds; so many looks, 0.1 s apart
_LOOK_SECONDS = 1.0
_SILENT_SECONDS = 10  # whoever has the turn and says nothing for so long hangs, or its machine is gone

_LIMIT_SILENCE = "SELECT set_config('idle_session_timeout', %s, false)"

_log = get_logger(__name__)

Service = Callable[[asyncio.Event], Awaitable[None]]
"""Runs until the event is set."""


class Presence:
    """Shows that a process of a kind is there; also a service that goes on showing it.

    Parameters
    ----------
    url
        The database's; one connection is held.
    kind
        `LISTENERS` or `WORKERS`.
    """

    def __init__(self, url: str, kind: int) -> None:
        self._url = url
        self._kind = kind
        self._connection: psycopg.AsyncConnection | None = None

    async def enter(self, when_alone: Callable[[], Awaitable[None]]) -> bool:
        """Show it; if no other process of the kind is there, do first what only the first may. Whether that was so."""
        connection = await self._connect()
        alone = False
        for _ in range(_ALONE_TRIES):
            alone = await ask(connection, "SELECT pg_try_advisory_lock(%s)", self._kind)
            if alone:
                await when_alone()
                break
            await asyncio.sleep(0.1)
        await ask(connection, "SELECT pg_advisory_lock_shared(%s)", self._kind)
        if alone:
            await ask(connection, "SELECT pg_advisory_unlock(%s)", self._kind)
        return alone

    async def keep(self) -> None:
        """Show it anew if the database went away in between."""
        if self._connection is None or self._connection.broken or self._connection.closed:
            await ask(await self._connect(), "SELECT pg_advisory_lock_shared(%s)", self._kind)
        elif not self._connection.closed:
            await self._connection.execute("SELECT 1")

    async def run(self, stop: asyncio.Event) -> None:
        """Keep it until `stop` is set."""
        while not await _waited(stop):
            try:
                await self.keep()
            except (psycopg.Error, OSError) as error:
                _log.warning("presence.lost", error=type(error).__name__)
        await self.leave()

    async def leave(self) -> None:
        """Give it up."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _connect(self) -> psycopg.AsyncConnection:
        self._connection = await connect_alone(self._url)
        return self._connection


class Turn:
    """Runs a service in one process at a time, of all that share a database.

    A process that dies gives the turn up at once, one that hangs, or whose machine is gone, after ten seconds; another
    that waits has it within a second. For a moment after that two may run the service, if the one that hung goes on:
    what the service writes must stand that.

    Parameters
    ----------
    url
        The database's; one connection is held.
    number
        The advisory lock's.
    """

    def __init__(self, url: str, number: int, service: Service) -> None:
        self._url = url
        self._number = number
        self._service = service

    async def run(self, stop: asyncio.Event) -> None:
        """Wait for the turn and run the service, again and again, until `stop` is set. A database is waited for."""
        while not stop.is_set():
            try:
                async with await connect_alone(self._url) as connection:
                    await self._take_turns(connection, stop)
            except (psycopg.Error, OSError) as error:
                _log.warning("turn.lost", error=type(error).__name__)
            await _waited(stop)

    async def _take_turns(self, connection: psycopg.AsyncConnection, stop: asyncio.Event) -> None:
        with contextlib.suppress(psycopg.errors.UndefinedObject):  # before PostgreSQL 14
            await connection.execute(_LIMIT_SILENCE, (f"{_SILENT_SECONDS}s",))
        while not await ask(connection, "SELECT pg_try_advisory_lock(%s)", self._number):
            if await _waited(stop):
                return
        own_stop = asyncio.Event()
        running = asyncio.ensure_future(self._service(own_stop))
        try:
            while not running.done() and not await _waited(stop):
                await connection.execute("SELECT 1")
        finally:
            own_stop.set()
            await running


@contextlib.contextmanager
def own_turn(url: str, number: int) -> Iterator[bool]:
    """Hold a turn for as long as the context lasts; False if another process has it.

    No transaction holds it, so that no limit on an idle one ends it, whatever the thread waits for. A process that dies
    or hangs gives it up as with `Turn`, and what the thread does must stand as much.
    """
    with contextlib.closing(psycopg.connect(url, autocommit=True, **LINE)) as connection:
        with contextlib.suppress(psycopg.errors.UndefinedObject):  # before PostgreSQL 14
            connection.execute(_LIMIT_SILENCE, (f"{_SILENT_SECONDS}s",))
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (number,)).fetchone()
        if row is None or not row[0]:
            yield False
            return
        over = threading.Event()
        keeping = threading.Thread(target=_keep, args=(connection, over), name="keep turn", daemon=True)
        keeping.start()
        try:
            yield True
        finally:
            over.set()
            keeping.join()


def _keep(connection: psycopg.Connection, over: threading.Event) -> None:
    """Show that this process lives until `over` is set."""
    while not over.wait(_LOOK_SECONDS):
        try:
            connection.execute("SELECT 1")
        except psycopg.Error as error:
            _log.warning("turn.lost", error=type(error).__name__)
            return


async def ask(connection: psycopg.AsyncConnection, question: str, number: int) -> bool:
    """Return the answer to a question about an advisory lock; True where it gives none."""
    row = await (await connection.execute(question, (number,))).fetchone()
    return row is not None and row[0] is not False


async def _waited(stop: asyncio.Event) -> bool:
    """Wait for a look's time, or until `stop` is set; whether it is."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), _LOOK_SECONDS)
    return stop.is_set()
