"""What waits where nobody serves is run or ended, on a real PostgreSQL; what another process serves is left to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from app.jobs import served_queues, steering
from app.jobs.presence import WORKERS
from app.jobs.queue import GRAPH_QUEUE, SYSTEM_QUEUE
from app.jobs.served_queues import ServedQueues
from tests.database_fixture import fresh_database
from tests.job_harness import Bench, bench, instance
from tests.listening import wait_until

OLD = "deliver-old-pacs"


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


def _execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def _queue_for_old_pacs(made: Bench) -> None:
    """Make a job as the settings had it when the archive was called old-pacs."""
    made.receive(instance(1))
    made.create_jobs()
    _execute(made.records.url, "UPDATE jobs SET destinations = '{old-pacs,viewer}'")


def _tasks(url: str) -> list[tuple[str, str]]:
    """The tasks that wait, but for what the clock put there, each with its queue."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT task_name, queue_name FROM procrastinate_jobs WHERE status = 'todo' "
            "AND task_name IN ('segment', 'deliver', 'turn') ORDER BY id"
        ).fetchall()


def _wait_for_holders(url: str, number: int) -> None:
    """Until so many connections hold locks: the database hears a little later that one was closed."""

    def are_so_many() -> bool:
        with psycopg.connect(url) as connection:
            found = connection.execute(
                "SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            ).fetchone()
        return found == (number,)

    wait_until(are_so_many)


def _ended(made: Bench) -> tuple[str, str, dict[str, tuple[str, str]]]:
    job = made.job()
    return job.state, job.code, {one.destination: (one.state, one.code) for one in job.deliveries}


def test_a_job_whose_destination_was_renamed_while_it_waited_ends(tmp_path: Path, url: str) -> None:
    as_renamed = {"old-pacs": ("failed", "destination-unknown"), "viewer": ("delivered", "")}
    with bench(tmp_path, url) as made:
        _queue_for_old_pacs(made)
        made.work(made.all_ended)
        assert _ended(made) == ("failed", "not-delivered", as_renamed)
        steering.ask(made.records, "replay", made.job(), "erika")  # nobody has put the destination back
        made.work(lambda: made.job().state != "failed")
        made.work(made.all_ended)
        assert _ended(made) == ("failed", "not-delivered", as_renamed)
        assert _tasks(url) == []


def test_a_graph_runs_whose_slots_the_settings_name_no_more(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:

        def put_there_by_an_older_process() -> bool:
            if not made.records.jobs():  # the worker has looked at its start
                made.workflow._creation._queue._graph_queues = {"liver": "graph-old"}
                made.receive(instance(1))
                made.create_jobs()
            return made.all_ended()

        made.work(put_there_by_an_older_process)
        assert made.job().state == "closed"


def test_what_another_process_serves_stays_until_it_is_gone(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_queues, "_PATIENCE_SECONDS", 0.0)

    async def test(made: Bench) -> None:
        here = ServedQueues(url, [SYSTEM_QUEUE, GRAPH_QUEUE], made.workflow, shares_database=True)
        there = ServedQueues(url, [SYSTEM_QUEUE, OLD, "graph-old"], made.workflow, shares_database=True)
        await there.show()
        await here.look()
        assert _tasks(url) == [("segment", "graph-old"), ("turn", OLD)]
        await there.leave()
        _wait_for_holders(url, 1)
        await here.look()
        assert _tasks(url) == [("segment", GRAPH_QUEUE), ("turn", SYSTEM_QUEUE)]
        await there.show()  # whoever knows the destination is back: it is not for others to end what goes there
        await here.look()
        assert _tasks(url) == [("segment", GRAPH_QUEUE), ("turn", OLD)]
        await there.leave()
        await here.leave()

    with bench(tmp_path, url) as made:
        _queue_for_old_pacs(made)
        _execute(url, "UPDATE procrastinate_jobs SET queue_name = 'graph-old'")
        with made.records.transaction() as connection:
            made.workflow._delivering._queue.defer_turn(connection, "old-pacs")
        asyncio.run(test(made))


def test_processes_that_share_a_database_have_time_to_start_again(tmp_path: Path, url: str) -> None:
    async def test(made: Bench) -> None:
        here = ServedQueues(url, [SYSTEM_QUEUE], made.workflow, shares_database=True)
        for _ in range(3):
            await here.look()
        assert _tasks(url) == [("turn", OLD)]
        await here.leave()

    with bench(tmp_path, url) as made:
        with made.records.transaction() as connection:
            made.workflow._delivering._queue.defer_turn(connection, "old-pacs")
        asyncio.run(test(made))


def test_nothing_is_moved_while_a_worker_does_not_show_what_it_serves(tmp_path: Path, url: str) -> None:
    """One of an earlier version."""

    async def test(made: Bench) -> None:
        here = ServedQueues(url, [SYSTEM_QUEUE], made.workflow, shares_database=False)
        with psycopg.connect(url, autocommit=True) as own, psycopg.connect(url, autocommit=True) as earlier:
            own.execute("SELECT pg_advisory_lock_shared(%s)", (WORKERS,))
            earlier.execute("SELECT pg_advisory_lock_shared(%s)", (WORKERS,))
            await here.look()
            assert _tasks(url) == [("turn", OLD)]
            earlier.close()
            _wait_for_holders(url, 2)
            await here.look()
            assert _tasks(url) == [("turn", SYSTEM_QUEUE)]
        await here.leave()

    with bench(tmp_path, url) as made:
        with made.records.transaction() as connection:
            made.workflow._delivering._queue.defer_turn(connection, "old-pacs")
        asyncio.run(test(made))


def test_what_is_paused_is_left_aside(tmp_path: Path, url: str) -> None:
    async def test(made: Bench) -> None:
        here = ServedQueues(url, [SYSTEM_QUEUE], made.workflow, shares_database=False)
        await here.look()
        assert _tasks(url) == [("turn", f"paused-{OLD}")]
        made.workflow._pausing.resume("everything", "", "erika")
        await here.look()
        assert _tasks(url) == [("turn", SYSTEM_QUEUE)]
        await here.leave()

    with bench(tmp_path, url) as made:
        with made.records.transaction() as connection:
            made.workflow._delivering._queue.defer_turn(connection, "old-pacs")
        made.workflow._pausing.pause("everything", "", "erika")
        asyncio.run(test(made))


def test_a_destination_that_waits_for_its_turn_is_given_no_other(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _queue_for_old_pacs(made)
        made.work(lambda: bool(made.job().deliveries))
        _execute(url, "DELETE FROM procrastinate_jobs")  # as if the tasks were lost
        _execute(url, "UPDATE deliveries SET state = 'waiting', finished_at = NULL, code = '', next_attempt_at = NULL")
        for _ in range(3):
            made.workflow._delivering.attend()
        assert _tasks(url) == [("turn", OLD), ("turn", "deliver-viewer")]
