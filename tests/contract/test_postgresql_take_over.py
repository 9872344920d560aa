"""When a worker counts as dead, on a real PostgreSQL: never by a clock, and what it then still does harms nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from app.audit.log import read_records
from app.errors import GraphFailed
from app.jobs import rescue
from app.jobs.heartbeat import Heartbeat
from app.jobs.records import Records
from app.jobs.rescue import Rescuer
from app.settings_worker import WorkerSettings
from tests.database_fixture import fresh_database
from tests.job_harness import PlantedGraph, bench, instance

_HOUR_OFF = {
    "behind": "UPDATE procrastinate_workers SET last_heartbeat = clock_timestamp() - interval '1 hour'",
    "ahead": "UPDATE procrastinate_workers SET last_heartbeat = clock_timestamp() + interval '1 hour'",
}
_LIMITS = WorkerSettings(heartbeat_seconds=0.2, dead_after_seconds=1.0)


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


def _taken_by_somebody(folder: Path, url: str) -> int:
    """Make a job whose task a worker runs that is not of this process; return that worker's number."""
    with bench(folder, url) as made:
        made.receive(instance(1))
        made.create_jobs()
        job = made.job()
        assert made.records.begin_attempt(job.id) == (1, 1)
    worker, _ = _fetched(url)
    return worker


def _fetched(url: str) -> tuple[int, int]:
    """Have a worker that is not of this process take what waits; return its number and the task's."""
    with psycopg.connect(url, autocommit=True) as connection:
        (worker,) = connection.execute("SELECT worker_id FROM procrastinate_register_worker_v1()").fetchone() or (0,)
        (task,) = connection.execute(
            "SELECT id FROM procrastinate_fetch_job_v2(ARRAY['graph'], %s)", (worker,)
        ).fetchone() or (0,)
    return int(worker), int(task)


async def _watch(url: str, seconds: float, *, each_look: str = "SELECT 1") -> None:
    """Look as a worker process does, with something done to the database before each look."""
    rescuer = Rescuer(url, Heartbeat(url, 0.2), ["segment"], _LIMITS, shares_database=True)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for _ in range(int(seconds / 0.25)):
            await connection.execute(each_look)
            await rescuer.look()
            await asyncio.sleep(0.25)
    await rescuer.stop()


def _tasks(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT id, status::text, worker_id FROM procrastinate_jobs").fetchall()


def test_a_silent_workers_task_is_put_back_and_its_attempt_fenced(tmp_path: Path, url: str) -> None:
    _taken_by_somebody(tmp_path, url)
    ((task, _, _),) = _tasks(url)
    asyncio.run(_watch(url, 2.5))
    ((again, status, worker),) = _tasks(url)
    assert (status, worker) == ("todo", None)
    assert again < 0
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM procrastinate_workers").fetchone() == (0,)
        with pytest.raises(psycopg.errors.RaiseException, match="not found"):  # what the stopped worker would do
            connection.execute("SELECT procrastinate_finish_job_v1(%s, 'succeeded', true)", (task,))
    assert [status for _, status, _ in _tasks(url)] == ["todo"]
    with Records(url) as records:
        (job,) = records.jobs()
        with records.transaction() as connection:
            assert not records.end_attempt(connection, job.id, 1, "failed", "late", "of a stopped worker")
        assert records.begin_attempt(job.id) == (3, 2)  # 2 is the fence; it is no try


def test_a_worker_that_was_taken_over_before_it_began_begins_nothing(tmp_path: Path, url: str) -> None:
    late, may_end = PlantedGraph(), threading.Event()
    graph = PlantedGraph(plan=lambda run: None if may_end.wait(60) else pytest.fail("the late one did not come"))
    with bench(tmp_path, url, graph=late) as stopped, bench(tmp_path, url, name="heir", graph=graph) as heir:
        stopped.receive(instance(1))
        stopped.create_jobs()
        _, task = _fetched(url)  # and it stands still, with the task in its hand

        def goes_on_while_the_heir_runs() -> bool:
            if graph.runs and not may_end.is_set():
                stopped.workflow._segment(stopped.job().id, task, threading.Event())
                may_end.set()
            return heir.all_ended()

        heir.work(goes_on_while_the_heir_runs)
        assert (late.runs, graph.runs) == (0, 1)
        assert (heir.job().state, heir.job().attempt) == ("closed", 1)
        assert heir.queued_tasks() == []


def test_an_attempt_begins_only_with_its_task(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        made.receive(instance(1))
        made.create_jobs()
        job = made.job().id
        ((waiting, _, _),) = _tasks(url)
        assert made.records.begin_attempt(job, waiting) is None
        _, task = _fetched(url)
        assert made.records.begin_attempt(job, task) == (1, 1)
        assert made.records.begin_attempt(job, -task) is None


def test_the_turn_of_a_silent_workers_task_is_free_at_once(tmp_path: Path, url: str) -> None:
    """Under its new number the task would wait for the lease of its old one."""
    _taken_by_somebody(tmp_path, url)
    ((task, _, _),) = _tasks(url)
    with Records(url) as records:
        lost = records.take_turn("archive", "", f"task {task}", 3600)
        assert lost is not None
        assert records.take_turn("archive", "", "another task", 3600) is None
        asyncio.run(_watch(url, 2.5))
        assert records.take_turn("archive", "", "another task", 3600) is not None
        with records.transaction() as connection:
            assert not records.keep_turn(connection, lost)


def test_a_worker_that_stopped_in_a_transaction_is_taken_over_too(tmp_path: Path, url: str) -> None:
    _taken_by_somebody(tmp_path, url)
    with psycopg.connect(url) as stopped:
        stopped.execute("SELECT 1 FROM jobs FOR UPDATE")  # and nothing more comes
        asyncio.run(_watch(url, 2.5))
        assert [status for _, status, _ in _tasks(url)] == ["todo"]
        with pytest.raises(psycopg.OperationalError):
            stopped.execute("UPDATE jobs SET state = 'closed'")
        stopped.close()


def test_a_heartbeat_that_moves_keeps_the_worker(tmp_path: Path, url: str) -> None:
    worker = _taken_by_somebody(tmp_path, url)
    asyncio.run(_watch(url, 2.5, each_look=f"SELECT procrastinate_update_heartbeat_v1({worker})"))
    ((_, status, owner),) = _tasks(url)
    assert (status, owner) == ("doing", worker)


@pytest.mark.parametrize("heartbeats", _HOUR_OFF)
def test_a_database_whose_clock_jumps_ends_nobody(heartbeats: str, tmp_path: Path, url: str) -> None:
    """Heartbeats are an hour off from what the database's clock says, and move."""
    worker = _taken_by_somebody(tmp_path, url)
    asyncio.run(_watch(url, 2.5, each_look=_HOUR_OFF[heartbeats]))
    ((_, status, owner),) = _tasks(url)
    assert (status, owner) == ("doing", worker)


def test_a_watcher_that_was_stopped_itself_ends_nobody(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _taken_by_somebody(tmp_path, url)
    clock = iter(range(0, 10**6, 3600))  # an hour between two looks

    async def look_twice() -> None:
        monkeypatch.setattr(rescue, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
        rescuer = Rescuer(url, Heartbeat(url, 0.2), [], WorkerSettings(dead_after_seconds=10), shares_database=True)
        await rescuer.look()
        await rescuer.look()
        monkeypatch.undo()
        await rescuer.stop()

    asyncio.run(look_twice())
    assert [status for _, status, _ in _tasks(url)] == ["doing"]


def test_a_task_that_another_version_did_not_know_comes_back(tmp_path: Path, url: str) -> None:
    _taken_by_somebody(tmp_path, url)
    ((task, _, _),) = _tasks(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT procrastinate_finish_job_v1(%s, 'failed', false)", (task,))
    asyncio.run(_watch(url, 0.5))
    assert [status for _, status, _ in _tasks(url)] == ["todo"]


@pytest.mark.parametrize("failure", [None, GraphFailed("its time is over", code="graph-timeout"), FileNotFoundError()])
def test_an_attempt_that_was_taken_over_tells_the_audit_log_nothing(
    failure: Exception | None, tmp_path: Path, url: str
) -> None:
    """A worker that was stopped in its graph goes on when another has the job: the folder of its attempt is gone."""

    def overtake(run: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE jobs SET attempt = attempt + 1")
        if failure is not None:
            raise failure

    with bench(tmp_path, url, graph=PlantedGraph(plan=overtake)) as made:
        made.receive(instance(1))
        made.create_jobs()
        made.workflow._segment(made.job().id, None, threading.Event())
        assert [one["event"] for one in read_records(made.audit.folder)] == ["JOB_CREATED", "GRAPH_STARTED"]
        assert (made.job().state, made.job().results) == ("running", ())
        assert not (made.settings.results_folder / str(made.job().id) / "1").exists()
