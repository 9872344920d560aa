"""Tasks whose worker died go back to the queue: when its heartbeat stands still, or no other Limner is there.

A heartbeat is not compared with any clock: a worker is dead when its heartbeat has not moved while this process watched
it for long enough. So neither a clock that jumps, nor a process that was stopped itself, nor a database that was away
(nobody could show anything) lets a living worker look dead. A heartbeat at the last moment keeps the worker.

What a worker that was taken for dead still does is fenced: its attempt is no longer its job's, its task has another
number, and its own row is gone, by which it knows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Hashable
from typing import Any

import psycopg
from procrastinate.job_context import JobContext
from procrastinate.middleware import AsyncCallNext
from procrastinate.worker import Worker as QueueWorker

from app.jobs.connections import connect_alone, read_statements
from app.jobs.heartbeat import Heartbeat
from app.jobs.presence import WORKERS, Presence
from app.settings_worker import WorkerSettings
from app.telemetry import get_logger

LOOK_SECONDS = 0.5
"""How often to look."""
_LONGEST_LOOK_SECONDS = 2.0  # of the time between two looks no more counts: this process may have been stopped
_ANSWER_SECONDS = 10.0
_LOST_SECONDS = 4.0  # a task that a living worker does not run: its end may be being written
_UNKNOWN_SECONDS = 5.0  # how often tasks are brought back that another version did not know

_SQL = read_statements("rescuing.sql")
_log = get_logger(__name__)


class Rescuer:
    """Puts abandoned tasks back into the queue.

    Parameters
    ----------
    url
        The database's; two connections are held.
    heartbeat
        This process' own.
    known
        The names of the tasks that this version knows and that may be repeated.
    limits
        The workers' settings.
    shares_database
        Whether other processes may use the database: with an embedded one, what another worker left is taken at once.
    """

    def __init__(
        self,
        url: str,
        heartbeat: Heartbeat,
        known: Collection[str],
        limits: WorkerSettings,
        *,
        shares_database: bool,
    ) -> None:
        self._url = url
        self._heartbeat = heartbeat
        self._known = list(known)
        self._dead_after = limits.dead_after_seconds
        self._shares_database = shares_database
        self._presence = Presence(url, WORKERS)
        self._connection: psycopg.AsyncConnection | None = None
        self._running: set[int] = set()
        self._silence: dict[Hashable, float] = {}
        self._looked = time.monotonic()
        self._brought_back = 0.0

    async def track(self, call_next: AsyncCallNext, context: JobContext, worker: QueueWorker) -> Any:
        """Note which tasks really run here: a middleware of every worker of this process."""
        task = context.job.id
        if task is None:  # it is there once a task was fetched
            return await call_next()
        self._running.add(task)
        try:
            return await call_next()
        finally:
            self._running.discard(task)

    async def start(self) -> None:
        """Show that this process lives; if it is the only one, every task that counts as running is abandoned.

        Call it before this process' first worker starts.
        """
        await self._presence.enter(self._take_all)

    async def look(self) -> None:
        """Put back what has looked abandoned for long enough."""
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, _LONGEST_LOOK_SECONDS), now
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._presence.keep()
                await self._look(await self._open(), passed)
        except (psycopg.Error, OSError):
            self._silence.clear()  # nobody could show a sign of life
            raise

    async def stop(self) -> None:
        """Give up the connection that shows that this process lives."""
        await self._presence.leave()
        if self._connection is not None:
            await self._connection.close()

    async def _look(self, connection: psycopg.AsyncConnection, passed: float) -> None:
        own = self._heartbeat.own
        workers = await _rows(connection, "other_workers", (own,))
        tasks = await _rows(connection, "unowned_tasks", {"own": own, "running": list(self._running)})
        signs: list[Hashable] = [*workers, *tasks]
        self._silence = {sign: self._silence[sign] + passed if sign in self._silence else 0.0 for sign in signs}
        for worker, seen in workers:
            if self._silence[worker, seen] >= self._dead_after:
                await self._take_over(connection, worker, seen)
        lost = [task for (task,) in tasks if self._silence[task,] >= min(_LOST_SECONDS, self._dead_after)]
        if lost:
            async with connection.transaction():
                await self._put_back(connection, lost)
        if self._looked - self._brought_back > _UNKNOWN_SECONDS:
            self._brought_back = self._looked
            for name, _ in await _rows(connection, "bring_back", (self._known,)):
                _log.warning("task.brought_back", task=name)

    async def _take_all(self) -> None:
        """Take over everything: no other worker is there."""
        connection = await self._open()
        if self._shares_database:  # after its own start others may not be back yet
            ((fresh,),) = await _rows(connection, "is_database_fresh", (self._dead_after,))
            if fresh:
                return
        for worker, seen in await _rows(connection, "other_workers", ([],)):
            await self._take_over(connection, worker, seen)
        async with connection.transaction():
            await self._put_back(connection, [task for (task,) in await _rows(connection, "running_tasks", ())])

    async def _take_over(self, connection: psycopg.AsyncConnection, worker: int, seen: Any) -> None:
        """Take the tasks of a worker, unless it shows a sign of life in this moment or another process takes them."""
        await connection.execute(_SQL["end_silent_transactions"], (self._dead_after / 2,))
        async with connection.transaction():
            if not await _rows(connection, "lock_silent_worker", {"worker": worker, "seen": seen}):
                return
            await self._put_back(
                connection, [task for (task,) in await _rows(connection, "tasks_of_worker", (worker,))]
            )
            await connection.execute(_SQL["forget_worker"], (worker,))
        _log.warning("worker.taken_over", worker=worker)

    async def _put_back(self, connection: psycopg.AsyncConnection, tasks: list[int]) -> None:
        await connection.execute(_SQL["fence_attempts"], (tasks,))
        await connection.execute(_SQL["free_turns"], (tasks,))
        for name, queue, job_id in await _rows(connection, "put_back", (tasks,)):
            _log.warning("task.rescued", task=name, queue=queue, arguments=job_id)

    async def _open(self) -> psycopg.AsyncConnection:
        if self._connection is None or self._connection.closed or self._connection.broken:
            self._connection = await connect_alone(self._url)
        return self._connection


async def _rows(connection: psycopg.AsyncConnection, statement: str, facts: Any) -> list[tuple[Any, ...]]:
    return await (await connection.execute(_SQL[statement], facts)).fetchall()
