"""Which queues the workers that are there serve: what waits in one that nobody serves would wait for ever.

Queues follow from the settings: each destination has one, and each table of slots. The settings change while tasks wait
in the queues that they named, and while processes are started anew one after the other those of two may differ. So each
process shows what it serves, by locks in the database that are given up when it dies, and what has waited for a while
where nobody serves is put where it is run or ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Protocol

import psycopg

from app.jobs.connections import connect_alone, read_statements
from app.jobs.presence import WORKERS

LOOK_SECONDS = 2.0
"""How often to look."""
_LONGEST_LOOK_SECONDS = 2 * LOOK_SECONDS
"""Of the time between two looks no more counts: this process may have stood still."""
_PATIENCE_SECONDS = 60.0  # whoever serves it may only be starting again
_ANSWER_SECONDS = 10.0

_SQL = read_statements("serving.sql")


class WaitingTasks(Protocol):
    """What waits in the queues: `app.jobs.workflow.Workflow`."""

    def wanted_queues(self) -> set[str]:
        """Return the queues that what waits belongs into."""
        ...

    def move(self, served: Collection[str], unserved: Collection[str]) -> None:
        """Put what belongs into queues that are served there, and what belongs into unserved ones elsewhere."""
        ...


class ServedQueues:
    """Shows what this process serves, and sees to what waits where no process serves.

    Nothing is moved while a worker is there that does not show what it serves, as one of an earlier version does not.

    Parameters
    ----------
    url
        The database's; one connection is held.
    queues
        What this process serves.
    shares_database
        Whether other processes may use the database, and be about to start again.
    """

    def __init__(self, url: str, queues: Collection[str], tasks: WaitingTasks, *, shares_database: bool) -> None:
        self._url = url
        self._queues = list(queues)
        self._tasks = tasks
        self._patience = _PATIENCE_SECONDS if shares_database else 0.0
        self._connection: psycopg.AsyncConnection | None = None
        self._unserved: dict[str, float] = {}
        self._looked = time.monotonic()

    async def show(self) -> None:
        """Show what this process serves. Call it before its workers start."""
        await self._open()

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Move what has waited for long enough where nobody serves, and bring back what somebody serves now."""
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, _LONGEST_LOOK_SECONDS), now
        try:
            wanted = await asyncio.to_thread(self._tasks.wanted_queues)
            async with asyncio.timeout(_ANSWER_SECONDS):
                connection = await self._open()
                facts = {"queues": list(wanted), "workers": WORKERS}
                found = await (await connection.execute(_SQL["are_served"], facts)).fetchall()
        except (psycopg.Error, OSError):
            self._unserved.clear()  # nobody could show anything
            raise
        unserved = [queue for queue, is_served in found if not is_served]
        self._unserved = {one: self._unserved[one] + passed if one in self._unserved else 0.0 for one in unserved}
        forsaken = {queue for queue, seconds in self._unserved.items() if seconds >= self._patience}
        await asyncio.to_thread(self._tasks.move, {queue for queue, is_served in found if is_served}, forsaken)

    async def leave(self) -> None:
        """Show nothing any more."""
        if self._connection is not None:
            await self._connection.close()

    async def _open(self) -> psycopg.AsyncConnection:
        if self._connection is None or self._connection.closed or self._connection.broken:
            connection = await connect_alone(self._url)
            try:
                await connection.execute(_SQL["show"], (self._queues,))
            except BaseException:  # it would count as one that shows nothing
                await connection.close()
                raise
            self._connection = connection
        return self._connection
