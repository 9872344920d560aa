"""Lanes: each runs one graph at a time, and where the settings limit the graphs of all workers, only with a slot.

A slot is an advisory lock of the database, held by a connection of the lane that has it, so that the slot of a process
that dies frees itself. A lane takes its slot before it takes tasks: what waits for a slot stays in the queue, in its
order, and the next slot that is free takes the most urgent of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import psycopg

from app.jobs.connections import connect_alone
from app.jobs.queue import GRAPH_QUEUE
from app.settings import Settings
from app.settings_slots import DEFAULT_SLOTS, SlotsSettings
from app.telemetry import get_logger

SLOT_LOST = "slot_lost"
"""What a lane's tasks find the event by in their context that says that its slot is lost."""
_WAIT_SECONDS = 1.0  # between looks for a free slot
_SETTLE_SECONDS = 2.0  # after a slot was taken: who had it before must have ended its graph
_LOOK_SECONDS = 0.5  # how soon a lost slot is noticed
_AGAIN_SECONDS = 0.2
_NAME = "limner slot"

_log = get_logger(__name__)


@dataclass(frozen=True)
class Lane:
    """One graph at a time, of the pipelines that share a table of slots."""

    name: str = GRAPH_QUEUE
    queue: str = GRAPH_QUEUE
    """The task queue that it works on."""
    slots: str = DEFAULT_SLOTS
    at_once: int | None = None
    """Slots of this table in the whole database; None where it needs none."""


def slots_queue(slots: str) -> str:
    """Return the queue of the graphs of a table of slots."""
    return GRAPH_QUEUE if slots == DEFAULT_SLOTS else f"{GRAPH_QUEUE}-{slots}"


def graph_queues(settings: Settings) -> Mapping[str, str]:
    """Return for each pipeline the queue of its graphs."""
    return {one.name: slots_queue(one.slots) for one in settings.pipeline}


def lanes(settings: Settings) -> tuple[Lane, ...]:
    """Return the lanes that one worker has."""
    tables = {DEFAULT_SLOTS: SlotsSettings(name=DEFAULT_SLOTS), **{one.name: one for one in settings.slots}}
    return tuple(
        Lane(
            slots_queue(one.name) if number == 1 else f"{slots_queue(one.name)}#{number}",
            slots_queue(one.name),
            one.name,
            one.at_once,
        )
        for one in tables.values()
        for number in range(1, min(one.at_once_here, one.at_once or one.at_once_here) + 1)
    )


async def with_slot(lane: Lane, url: str, work: Callable[[threading.Event], Awaitable[None]]) -> None:
    """Do a lane's work, while it has a slot if it needs one; `work` is told by an event once the slot is lost.

    A slot is lost when the connection that holds it is cut and another lane takes it. While the database is away
    nobody can take it, and work goes on. Being cancelled, `work` is too, and keeps its slot to its end.
    """
    lost = threading.Event()
    if lane.at_once is None:
        await work(lost)
        return
    slot = await _Slot.take(url, lane.slots, lane.at_once)
    _log.info("slot.taken", slots=lane.slots, slot=slot.number)
    working = asyncio.ensure_future(work(lost))
    keeping = asyncio.create_task(slot.keep(), name=f"slot {lane.name}")
    try:
        await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            _log.warning("slot.lost", slots=lane.slots, slot=slot.number)
            lost.set()
    finally:
        working.cancel()  # it takes no new task, and waits for the running one
        await asyncio.gather(working, return_exceptions=True)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await slot.give_back()
    with contextlib.suppress(asyncio.CancelledError):
        working.result()


class _Slot:
    """A slot that is held."""

    def __init__(self, url: str, slots: str, number: int, connection: psycopg.AsyncConnection) -> None:
        self.number = number
        self._url = url
        self._slots = slots
        self._connection = connection
        self._process = connection.info.backend_pid

    @classmethod
    async def take(cls, url: str, slots: str, at_once: int) -> _Slot:
        """Wait until one is free, and take it."""
        connection = await connect_alone(url, application_name=_NAME)
        try:
            while True:
                for number in range(at_once):
                    if await _lock(connection, slots, number):
                        await asyncio.sleep(_SETTLE_SECONDS)
                        return cls(url, slots, number, connection)
                await asyncio.sleep(_WAIT_SECONDS)
        except BaseException:
            await connection.close()
            raise

    async def keep(self) -> None:
        """Hold it, through cut connections too; return once another has it."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self._connection.execute("SELECT 1")
            except psycopg.Error:
                if not await self._take_back():
                    return

    async def give_back(self) -> None:
        """Free it."""
        await self._connection.close()

    async def _take_back(self) -> bool:
        while True:
            try:
                connection = await connect_alone(self._url, application_name=_NAME)
                # the database may not have noticed yet that the connection was cut
                await connection.execute(_END_OWN, (self._slots, self.number, self._process))
                taken = await _lock(connection, self._slots, self.number)
            except psycopg.Error:
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            await self._connection.close()
            self._connection, self._process = connection, connection.info.backend_pid
            return taken


_LOCK = "SELECT pg_try_advisory_lock(hashtext('limner slots ' || %s), %s)"
_END_OWN = """
SELECT pg_terminate_backend(pid, 1000) FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 2 AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND classid::bigint = (hashtext('limner slots ' || %s)::bigint & 4294967295) AND objid::bigint = %s AND pid = %s
"""


async def _lock(connection: psycopg.AsyncConnection, slots: str, number: int) -> bool:
    row = await (await connection.execute(_LOCK, (slots, number))).fetchone()
    return row is not None and bool(row[0])
