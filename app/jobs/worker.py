"""The workers of one process: one or several for graphs, one for each destination, one for the rest, and the rescue."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import procrastinate
import psycopg
from procrastinate import PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.middleware import WorkerMiddleware
from procrastinate.worker import Worker as QueueWorker

from app.jobs.connections import LINE, RECONNECT_SECONDS, UNPREPARED
from app.jobs.heartbeat import Heartbeat
from app.jobs.queue import SYSTEM_QUEUE, delivery_queue
from app.jobs.records import Records
from app.jobs.rescue import LOOK_SECONDS, Rescuer
from app.jobs.resting import Rest
from app.jobs.served_queues import ServedQueues, WaitingTasks
from app.jobs.slots import SLOT_LOST, Lane, with_slot
from app.settings_worker import WorkerSettings
from app.telemetry import get_logger

_POLL_SECONDS = 1.0  # new tasks are announced; this is for those that wait for their time
_NEVER_SECONDS = 1e9  # the queue's own heartbeats and pruning: `heartbeat` and `rescue` do it
_RESTART_SECONDS = 1.0
_FOLLOW_SECONDS = 1.0
_INTERRUPT_SECONDS = 15.0

_log = get_logger(__name__)


class Tasks(WaitingTasks, Protocol):
    """What runs in the workers: `app.jobs.workflow.Workflow`."""

    def register(self, app: procrastinate.App) -> None:
        """Give the tasks to the queue."""
        ...

    def prepare(self) -> None:
        """Bring what waits in the queue in line with the settings."""
        ...

    def interrupt(self) -> None:
        """End the long-running task for a shutdown."""
        ...


class Worker:
    """Works on the queue until it is told to stop.

    Parameters
    ----------
    destinations
        The names of the destinations; each has its own worker, so that one that is down holds up no other.
    stop_seconds
        Time that running tasks get at a stop; then the graph is interrupted and its attempt given back.
    limits
        The settings of the workers.
    shares_database
        Whether other processes may use the database.
    lanes
        How many graphs it runs at once, and of which queues (`app.jobs.slots.lanes`).
    """

    def __init__(
        self,
        *,
        records: Records,
        tasks: Tasks,
        destinations: Collection[str],
        stop_seconds: float = 20.0,
        limits: WorkerSettings = WorkerSettings(),  # noqa: B008 - it is frozen
        shares_database: bool = False,
        lanes: Collection[Lane] = (Lane(),),
    ) -> None:
        self._records = records
        self._tasks = tasks
        self._destinations = tuple(destinations)
        self._stop_seconds = stop_seconds
        self._limits = limits
        self._shares_database = shares_database
        self._lanes = tuple(lanes)

    async def run(self, stop: asyncio.Event, *, started: Callable[[], None] = lambda: None) -> None:
        """Work until `stop` is set, then finish what runs, within limits. What is left is rescued at the next start.

        No signal handler is installed. A database that goes away is waited for.
        """
        queues = [SYSTEM_QUEUE, *map(delivery_queue, self._destinations)]
        await asyncio.to_thread(self._tasks.prepare)
        app = procrastinate.App(
            connector=PsycopgConnector(
                conninfo=self._records.url,
                min_size=1,
                max_size=len(queues) + len(self._lanes) + 4,
                reconnect_timeout=RECONNECT_SECONDS,
                kwargs={**LINE, **UNPREPARED},
            )
        )
        self._tasks.register(app)
        async with app.open_async():
            heartbeat = Heartbeat(self._records.url, self._limits.heartbeat_seconds)
            known = [name for name, task in app.tasks.items() if task.retry_strategy is not None]
            rescuer = Rescuer(self._records.url, heartbeat, known, self._limits, shares_database=self._shares_database)
            await rescuer.start()
            shown = {*queues, *(lane.queue for lane in self._lanes)}
            served = ServedQueues(self._records.url, shown, self._tasks, shares_database=self._shares_database)
            await served.show()
            stopping = asyncio.Event()
            beating = asyncio.create_task(heartbeat.run(), name="heartbeat")
            services = [
                asyncio.create_task(
                    _keep_up(queue, _serving(app, heartbeat, rescuer, queue, queue), stopping), name=f"worker {queue}"
                )
                for queue in queues
            ]
            services += [
                asyncio.create_task(
                    _keep_up(lane.name, self._in_lane(app, heartbeat, rescuer, lane), stopping),
                    name=f"worker {lane.name}",
                )
                for lane in self._lanes
            ]
            pauses = _keep_up("pauses", self._follow_pauses, stopping)
            services.append(asyncio.create_task(pauses, name="pauses"))
            services.append(asyncio.create_task(_keep_up("rescue", _looking(rescuer), stopping), name="rescue"))
            services.append(asyncio.create_task(_keep_up("queues", served.run, stopping), name="queues"))
            started()
            try:
                await stop.wait()
            finally:
                stopping.set()
                await self._end(services)
                beating.cancel()
                await rescuer.stop()
                await served.leave()

    def _in_lane(
        self, app: procrastinate.App, heartbeat: Heartbeat, rescuer: Rescuer, lane: Lane
    ) -> Callable[[], Awaitable[None]]:
        rest = Rest(lane.name)

        async def work(lost: threading.Event) -> None:
            await _serving(app, heartbeat, rescuer, lane.name, lane.queue, {SLOT_LOST: lost}, [rest.watch])()

        async def serve() -> None:
            await rest.take()
            await with_slot(lane, self._records.url, work)

        return serve

    async def _follow_pauses(self) -> None:
        while True:
            await asyncio.to_thread(self._records.follow_pauses)
            await asyncio.sleep(_FOLLOW_SECONDS)

    async def _end(self, services: list[asyncio.Task[None]]) -> None:
        for service in services:
            service.cancel()  # procrastinate's workers take no new task and wait for the running one
        _, running = await asyncio.wait(services, timeout=self._stop_seconds)
        if running:
            _log.warning("worker.interrupting", tasks=[one.get_name() for one in running])
            await asyncio.to_thread(self._tasks.interrupt)
            _, running = await asyncio.wait(running, timeout=_INTERRUPT_SECONDS)
        if running:
            _log.warning("worker.left", tasks=[one.get_name() for one in running])


def _serving(
    app: procrastinate.App,
    heartbeat: Heartbeat,
    rescuer: Rescuer,
    name: str,
    queue: str,
    context: Mapping[str, Any] = MappingProxyType({}),
    middleware: Collection[WorkerMiddleware] = (),
) -> Callable[[], Awaitable[None]]:
    async def serve() -> None:
        worker = QueueWorker(
            app,
            queues=[queue],
            name=name,
            additional_context=dict(context),
            concurrency=1,
            fetch_job_polling_interval=_POLL_SECONDS,
            install_signal_handlers=False,
            delete_jobs="successful",
            update_heartbeat_interval=_NEVER_SECONDS,
            stalled_worker_timeout=_NEVER_SECONDS,
            worker_middleware=[rescuer.track, *middleware],
        )
        with heartbeat.of(worker):
            await worker.run()

    return serve


def _looking(rescuer: Rescuer) -> Callable[[], Awaitable[None]]:
    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await rescuer.look()

    return look


async def _keep_up(name: str, service: Callable[[], Awaitable[None]], stopping: asyncio.Event) -> None:
    """Run a service, again and again: it ends when the database goes away, and the database comes back."""
    while not stopping.is_set():
        try:
            await service()
        except (psycopg.Error, ConnectorException, OSError) as error:
            _log.warning("worker.ended", worker=name, error=type(error).__name__)
        else:
            _log.warning("worker.ended", worker=name)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stopping.wait(), _RESTART_SECONDS)
