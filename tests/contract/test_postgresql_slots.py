"""Slots as advisory locks of a real PostgreSQL: held, waited for, cut off and taken by another."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from app.jobs import slots
from app.jobs.queue import GRAPH_QUEUE
from app.jobs.slots import Lane, lanes, with_slot
from app.settings_slots import SlotsSettings
from tests.database_fixture import fresh_database
from tests.job_harness import PlantedGraph, bench, instance, settings_for

_ONE = Lane(slots="gpu", at_once=1)


@pytest.fixture
def url(postgres: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(slots, "_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(slots, "_SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(slots, "_LOOK_SECONDS", 0.1)
    with fresh_database(postgres) as made:
        yield made


class _Work:
    """Notes when it has a slot."""

    def __init__(self) -> None:
        self.has_slot = asyncio.Event()
        self.lost: threading.Event | None = None

    async def __call__(self, lost: threading.Event) -> None:
        self.lost = lost
        self.has_slot.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.has_slot.clear()


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _cut(url: str) -> int:
    """End the connections that hold or want slots; return how many."""
    with psycopg.connect(url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = 'limner slot' AND datname = current_database()"
        )
        return len(ended.fetchall())


def _asyncio(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(), 30)

    asyncio.run(limited())


def test_the_second_lane_waits_until_the_first_has_given_its_slot_back(url: str) -> None:
    async def test() -> None:
        first, second, other = _Work(), _Work(), _Work()
        holding = asyncio.create_task(with_slot(_ONE, url, first))
        await first.has_slot.wait()
        waiting = asyncio.create_task(with_slot(_ONE, url, second))
        elsewhere = asyncio.create_task(with_slot(Lane(slots="other", at_once=1), url, other))
        await other.has_slot.wait()  # another table's
        await asyncio.sleep(0.5)
        assert not second.has_slot.is_set()
        await _ended(holding)
        await second.has_slot.wait()
        await _ended(waiting)
        await _ended(elsewhere)

    _asyncio(test)


def test_a_lane_without_a_limit_needs_no_slot(url: str) -> None:
    async def test() -> None:
        works = [_Work(), _Work()]
        tasks = [asyncio.create_task(with_slot(Lane(), url, work)) for work in works]
        for work in works:
            await work.has_slot.wait()
        assert await asyncio.to_thread(_cut, url) == 0
        for task in tasks:
            await _ended(task)

    _asyncio(test)


def test_a_slot_whose_connection_is_cut_is_taken_back_and_work_goes_on(url: str) -> None:
    async def test() -> None:
        work = _Work()
        holding = asyncio.create_task(with_slot(_ONE, url, work))
        await work.has_slot.wait()
        for _ in range(3):
            assert await asyncio.to_thread(_cut, url) == 1
            await asyncio.sleep(0.6)
            assert work.has_slot.is_set()
            assert work.lost is not None
            assert not work.lost.is_set()
        await _ended(holding)

    _asyncio(test)


def test_a_slot_that_another_took_ends_the_work(url: str) -> None:
    async def test() -> None:
        work = _Work()
        holding = asyncio.create_task(with_slot(_ONE, url, work))
        await work.has_slot.wait()
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as thief:
            waiting = asyncio.create_task(thief.execute("SELECT pg_advisory_lock(hashtext('limner slots gpu'), 0)"))
            await asyncio.sleep(0.3)  # whoever waits gets it at once
            await asyncio.to_thread(_cut, url)
            await waiting
            await holding  # it returns, to wait for a slot again
            assert work.lost is not None
            assert work.lost.is_set()
            assert not work.has_slot.is_set()

    _asyncio(test)


def test_a_worker_has_as_many_lanes_as_its_settings_say(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, slots=(SlotsSettings(name="gpu", at_once=2, at_once_here=4),))
    assert lanes(settings) == (
        Lane("graph", "graph", "graph", None),
        Lane("graph-gpu", "graph-gpu", "gpu", 2),
        Lane("graph-gpu#2", "graph-gpu", "gpu", 2),
    )
    one = settings_for(tmp_path, slots=(SlotsSettings(name="graph", at_once=3, at_once_here=2),))
    assert [(lane.name, lane.queue, lane.at_once) for lane in lanes(one)] == [
        ("graph", GRAPH_QUEUE, 3),
        ("graph#2", GRAPH_QUEUE, 3),
    ]


def test_one_worker_runs_several_graphs_at_once(tmp_path: Path, url: str) -> None:
    together = threading.Barrier(2)

    def meet(run: int) -> None:
        together.wait(20)

    here = (SlotsSettings(name="graph", at_once_here=2),)
    with bench(tmp_path, url, graph=PlantedGraph(plan=meet), slots=here) as made:
        for series in range(4):
            made.receive(instance(1, series=series))
        made.create_jobs()
        made.work(made.all_ended)
        assert [job.state for job in made.records.jobs()] == ["closed"] * 4


def test_a_graph_whose_slot_another_took_is_ended_and_its_attempt_does_not_count(tmp_path: Path, url: str) -> None:
    graph = PlantedGraph(seconds=20.0)
    with (
        bench(tmp_path, url, graph=graph, slots=(SlotsSettings(name="graph", at_once=1),)) as made,
        psycopg.connect(url, autocommit=True) as thief,
    ):
        made.receive(instance(1))
        made.create_jobs()
        stolen: list[float] = []

        def stolen_and_given_back() -> bool:
            if graph.runs == 1 and not stolen:
                lock = "SELECT pg_advisory_lock(hashtext('limner slots graph'), 0)"
                waiting = threading.Thread(target=thief.execute, args=(lock,))
                waiting.start()
                time.sleep(0.3)  # whoever waits gets it at once
                graph.seconds = 0.0
                _cut(url)
                waiting.join()
                stolen.append(time.monotonic())
            job = made.job()  # read once: its next attempt begins as soon as the slot is free
            if len(stolen) == 1 and job.state == "queued":
                stolen.append(time.monotonic())
                assert (job.attempt, job.tries) == (1, 0)
                thief.execute("SELECT pg_advisory_unlock_all()")
            return job.state == "closed"

        made.work(stolen_and_given_back)
        assert stolen[1] - stolen[0] < 5.0
        job = made.job()
        assert (job.attempt, job.tries) == (2, 1)


def test_tasks_that_wait_follow_their_pipelines_slots(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        made.receive(instance(1))
        made.create_jobs()
        made.records.requeue_graphs({"liver": "graph-gpu"}, GRAPH_QUEUE)
        assert _queues(url) == ["graph-gpu"]
        made.records.requeue_graphs({"spleen": "graph-gpu"}, GRAPH_QUEUE)  # the settings know the pipeline no more
        assert _queues(url) == [GRAPH_QUEUE]
        made.records.requeue_graphs({"liver": "graph-gpu"}, GRAPH_QUEUE)
        made.work(made.all_ended)  # a worker brings them where it looks
        assert made.job().state == "closed"


def _queues(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT queue_name FROM procrastinate_jobs WHERE task_name = 'segment'").fetchall()
    return [row[0] for row in rows]
