"""Tasks whose worker died go back to the queue: at once when no other Limner is there, else when its heartbeat is old.

A repeated task does no harm, because the records' fences let only the latest attempt write; a rescue that comes too
early costs time, so a task must look abandoned twice before it is taken.
"""

from __future__ import annotations

import asyncio
from typing import Any

import procrastinate
import psycopg
from procrastinate.exceptions import ConnectorException
from procrastinate.job_context import JobContext
from procrastinate.jobs import Job as QueuedTask
from procrastinate.middleware import AsyncCallNext
from procrastinate.worker import Worker as QueueWorker

from app.telemetry import get_logger

_PRESENCE = 0x4C494D57  # advisory locks: held, shared, by every process that works on the queue
_RESCUING = 0x4C494D52  # held by the one that rescues now
_ALONE_TRIES = 10  # a killed process' connections end in milliseconds; so many looks, 0.1 s apart

_log = get_logger(__name__)


class Rescuer:
    """Puts abandoned tasks back into the queue.

    Parameters
    ----------
    app
        The open queue.
    url
        The database's; one connection is held to show that this process lives.
    stalled_seconds
        A heartbeat older than this counts as a dead worker.
    """

    def __init__(self, app: procrastinate.App, url: str, *, stalled_seconds: float) -> None:
        self._app = app
        self._url = url
        self._stalled_seconds = stalled_seconds
        self._presence: psycopg.AsyncConnection | None = None
        self._running: set[int] = set()
        self._own_workers: set[int] = set()
        self._suspects: set[int] = set()

    async def track(self, call_next: AsyncCallNext, context: JobContext, worker: QueueWorker) -> Any:
        """Note which tasks really run here: a middleware of every worker of this process."""
        task_id = context.job.id
        if task_id is None or worker.worker_id is None:  # both are there once a task was fetched
            return await call_next()
        self._own_workers.add(worker.worker_id)
        self._running.add(task_id)
        try:
            return await call_next()
        finally:
            self._running.discard(task_id)

    async def start(self) -> None:
        """Show that this process lives; if it is the only one, every task that counts as running is abandoned.

        Call it before this process' first worker starts.
        """
        connection = await self._connection()
        for _ in range(_ALONE_TRIES):
            if await _ask(connection, "SELECT pg_try_advisory_lock(%s)", _PRESENCE):
                await self._app.job_manager.prune_stalled_workers(0)
                for task in await self._app.job_manager.get_stalled_jobs(seconds_since_heartbeat=0):
                    await self._put_back(task)
                await _ask(connection, "SELECT pg_advisory_lock_shared(%s)", _PRESENCE)
                await _ask(connection, "SELECT pg_advisory_unlock(%s)", _PRESENCE)
                return
            await asyncio.sleep(0.1)
        await _ask(connection, "SELECT pg_advisory_lock_shared(%s)", _PRESENCE)

    async def look(self) -> None:
        """Put back what looked abandoned now and at the last look."""
        connection = await self._connection()
        if not await _ask(connection, "SELECT pg_try_advisory_lock(%s)", _RESCUING):
            return  # another process looks
        try:
            abandoned = {task.id: task for task in await self._abandoned() if task.id is not None}
            for task_id in self._suspects & abandoned.keys():
                await self._put_back(abandoned[task_id])
            self._suspects = set(abandoned)
        finally:
            await _ask(connection, "SELECT pg_advisory_unlock(%s)", _RESCUING)

    async def stop(self) -> None:
        """Give up the connection that shows that this process lives."""
        if self._presence is not None:
            await self._presence.close()
            self._presence = None

    async def _abandoned(self) -> list[QueuedTask]:
        stalled = list(await self._app.job_manager.get_stalled_jobs(seconds_since_heartbeat=self._stalled_seconds))
        # an end that could not be written while the database was away leaves a task "running" by a worker that lives
        doing = await self._app.job_manager.list_jobs_async(status="doing")
        return stalled + [
            task for task in doing if task.worker_id in self._own_workers and task.id not in self._running
        ]

    async def _put_back(self, task: QueuedTask) -> None:
        try:
            await self._app.job_manager.retry_job(task)
        except ConnectorException:  # it ended in this moment
            return
        _log.warning("task.rescued", task=task.task_name, queue=task.queue, arguments=task.task_kwargs.get("job_id"))

    async def _connection(self) -> psycopg.AsyncConnection:
        if self._presence is None or self._presence.closed or self._presence.broken:
            again = self._presence is not None
            self._presence = await psycopg.AsyncConnection.connect(self._url, autocommit=True, connect_timeout=5)
            if again:
                await _ask(self._presence, "SELECT pg_advisory_lock_shared(%s)", _PRESENCE)
        return self._presence


async def _ask(connection: psycopg.AsyncConnection, question: str, number: int) -> bool:
    row = await (await connection.execute(question, (number,))).fetchone()
    return row is not None and row[0] is not False
