"""The signs of life of this process' workers, and what happens when others no longer believe in them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from procrastinate.worker import Worker as QueueWorker

from app.jobs.connections import connect_alone, read_statements
from app.telemetry import get_logger

_SQL = read_statements("rescuing.sql")
_AGAIN_SECONDS = 0.5

_log = get_logger(__name__)


class Heartbeat:
    """Shows that workers live, also while one of them only waits for its last task.

    A worker that others took for dead (its process was stopped, or cut off from the database) is stopped, and starts
    anew under another number: its tasks run elsewhere, and the fences of the records let it write nothing about them.
    While the database can't be reached the tasks go on: nobody can take them over either.

    Parameters
    ----------
    url
        The database's; one connection is held, so that nothing else delays a sign of life.
    seconds
        How often.
    """

    def __init__(self, url: str, seconds: float) -> None:
        self._url = url
        self._seconds = seconds
        self._workers: set[QueueWorker] = set()

    @contextmanager
    def of(self, worker: QueueWorker) -> Iterator[None]:
        """Show that a worker lives, as long as the context lasts."""
        self._workers.add(worker)
        try:
            yield
        finally:
            self._workers.discard(worker)

    @property
    def own(self) -> list[int]:
        """The numbers of the workers that this process has now."""
        return [one.worker_id for one in self._workers if one.worker_id is not None]

    async def run(self) -> None:
        """Show it until cancelled. A database that goes away is waited for."""
        while True:
            try:
                async with await connect_alone(self._url) as connection:
                    while True:
                        async with asyncio.timeout(2 * self._seconds):
                            await self._beat(connection)
                        await asyncio.sleep(self._seconds)
            except (psycopg.Error, OSError) as error:  # a time-out is one
                _log.warning("heartbeat.failed", error=type(error).__name__)
                await asyncio.sleep(min(self._seconds, _AGAIN_SECONDS))

    async def _beat(self, connection: psycopg.AsyncConnection) -> None:
        workers = {one.worker_id: one for one in self._workers if one.worker_id is not None}
        rows = await (await connection.execute(_SQL["beat"], (list(workers),))).fetchall()
        for number in workers.keys() - {row[0] for row in rows}:
            worker = workers[number]
            if worker.worker_id == number:  # else it ended by itself in this moment
                _log.warning("worker.fenced", worker=worker.worker_name)
                worker.stop()
