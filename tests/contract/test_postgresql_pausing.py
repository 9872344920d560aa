"""Pauses on a real PostgreSQL and its queue: nothing new starts, what runs ends, what waits keeps its place."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from app.cli import app
from app.jobs.pausing import ask_for_pause
from app.jobs.records.pausing import PauseKind
from app.jobs.return_entries import WaitingTurn
from tests.database_fixture import fresh_database
from tests.job_harness import Bench, PlantedGraph, bench, instance


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


def _queue(made: Bench, *series: int) -> None:
    for number in series:
        made.receive(instance(1, series=number))
        made.create_jobs()


def _queues(made: Bench) -> list[str]:
    with psycopg.connect(made.records.url) as connection:
        rows = connection.execute(
            "SELECT queue_name FROM procrastinate_jobs WHERE task_name IN ('segment', 'deliver') ORDER BY id"
        )
        return [row[0] for row in rows.fetchall()]


def _pause(made: Bench, kind: PauseKind = "everything", name: str = "") -> None:
    made.workflow._pausing.pause(kind, name, "erika")


def _resume(made: Bench, kind: PauseKind = "everything", name: str = "") -> None:
    made.workflow._pausing.resume(kind, name, "erika")


def _stays(made: Bench, seconds: float = 2.5) -> None:
    """Work for some time, in which no job may end."""
    over = time.monotonic() + seconds
    made.work(lambda: time.monotonic() > over)


@pytest.mark.parametrize(("kind", "name"), [("everything", ""), ("pipeline", "liver")])
def test_what_waits_and_what_comes_is_set_aside_and_goes_on_in_its_order(
    tmp_path: Path, url: str, kind: PauseKind, name: str
) -> None:
    with bench(tmp_path, url) as made:
        _queue(made, 1, 2)
        _pause(made, kind, name)
        assert _queues(made) == ["paused-graph"] * 2
        _queue(made, 3)  # received and decided as ever
        _stays(made)
        assert (made.graph.runs, _queues(made)) == (0, ["paused-graph"] * 3)
        assert [(one.kind, one.name, one.person) for one in made.records.pauses()] == [(kind, name, "erika")]
        assert made.records.work().graphs_waiting == 3
        _resume(made, kind, name)
        assert (_queues(made), made.records.pauses()) == (["graph"] * 3, [])
        made.work(made.all_ended)
        jobs = made.records.jobs()
        assert sorted(jobs, key=lambda job: str(job.started_at)) == jobs[::-1]
        audited = "".join(path.read_text() for path in made.settings.audit_folder.glob("*.jsonl"))
        assert ("work-paused" in audited, "work-resumed" in audited) == (True, True)


def test_what_runs_ends_and_what_it_puts_into_the_queue_waits(tmp_path: Path, url: str) -> None:
    graph = PlantedGraph()
    with bench(tmp_path, url, graph=graph) as made:
        graph.plan = lambda run: _pause(made)
        _queue(made, 1, 2)
        made.work(lambda: {job.state for job in made.records.jobs()} == {"queued", "delivering"})
        _stays(made)
        assert made.records.work() == (0, 0, 1, 2)  # drained
        assert graph.runs == 1
        graph.plan = lambda run: None
        _resume(made)
        made.work(made.all_ended)
        assert {job.state for job in made.records.jobs()} == {"closed"}


def test_a_paused_destination_holds_up_no_other(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _pause(made, "destination", "archive")
        _queue(made, 1, 2)
        made.work(lambda: len(made.destinations["viewer"].got()) == 2)
        _stays(made)
        assert made.destinations["archive"].got() == []
        assert {one.attempts for job in made.records.jobs() for one in job.deliveries} == {0, 1}
        _resume(made, "destination", "archive")
        made.work(made.all_ended)
        assert len(made.destinations["archive"].got()) == 2


def test_a_pause_that_is_over_leaves_those_that_are_not(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _queue(made, 1)
        _pause(made)
        _pause(made, "pipeline", "liver")
        _pause(made, "pipeline", "other")
        _resume(made)
        assert _queues(made) == ["paused-graph"]
        _resume(made, "pipeline", "liver")
        assert _queues(made) == ["graph"]


def test_a_task_that_was_fetched_before_it_was_set_aside_goes_back_unbegun(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _queue(made, 1)
        with made.records.transaction() as connection:  # as if the pause came between fetching and start
            connection.execute("INSERT INTO pauses (kind, name, person) VALUES ('everything', '', 'erika')")
        told = threading.Event()
        follow = made.records.follow_pauses
        made.records.follow_pauses = told.set  # type: ignore[method-assign]
        _stays(made)
        assert told.is_set()
        assert (made.job().state, made.job().attempt, made.graph.runs) == ("queued", 0, 0)
        made.records.follow_pauses = follow  # type: ignore[method-assign]
        _resume(made)
        made.work(made.all_ended)


def test_a_pause_goes_through_the_queue_to_the_server(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        ask_for_pause(made.records, "destination", "archive", "erika")
        made.work(lambda: [one.what for one in made.records.pauses()] == ["destination archive"])
        ask_for_pause(made.records, "destination", "archive", "erika", resume=True)
        made.work(lambda: made.records.pauses() == [])


def test_what_a_sender_that_died_was_sending_waits(tmp_path: Path, url: str) -> None:
    """Else a server whose sender died would never be drained: while everything is paused nobody takes its turn."""
    with bench(tmp_path, url) as made:
        _queue(made, 1)
        made.work(made.all_ended)
        with psycopg.connect(url, autocommit=True) as connection:  # what a killed sender leaves
            connection.execute(
                "UPDATE deliveries SET state = 'sending', is_unknown = true, finished_at = NULL "
                "WHERE destination = 'archive'"
            )
        _pause(made)
        assert made.records.work() == (0, 0, 0, 1)
        address = made.settings.destination_named("archive").address
        turn = made.records.take_turn("archive", address, "task 1", lease_seconds=60.0)
        assert turn is not None
        assert made.records.work() == (0, 1, 0, 0)  # its holder lives, as far as anybody knows
        with made.records.transaction() as connection:
            connection.execute("UPDATE destination_windows SET leased_until = clock_timestamp()")
        assert made.records.work() == (0, 0, 0, 1)


@pytest.mark.parametrize("move", ["the start's", "the queues' watch's"])
def test_who_moves_many_tasks_waits_for_another_that_does(tmp_path: Path, url: str, move: str) -> None:
    # two at once, each with tasks that the other wants next, would be a deadlock: PostgreSQL ends one of them
    with bench(tmp_path, url) as made:
        moves = {
            "the start's": made.workflow.prepare,
            "the queues' watch's": lambda: made.records.move_turns(WaitingTurn("archive", "deliver-archive"), "system"),
        }
        mover = threading.Thread(target=moves[move])
        with made.records.transaction() as connection:
            made.records.pause(connection, "pipeline", "liver", "erika")
            mover.start()
            mover.join(1.0)
            assert mover.is_alive()
        mover.join(30.0)
        assert not mover.is_alive()


def test_a_command_waits_for_workers_of_another_host(tmp_path: Path, url: str) -> None:
    """The database tells whether any is there, not this machine: else it is left before anything is paused."""
    settings = tmp_path / "limner.toml"
    settings.write_text(f'data_folder = "here"\n[database]\nurl = "{url}"\n[listener]\nlow_water_bytes = 0\n')

    def run(*words: str) -> str:
        ran = CliRunner().invoke(app, [*words, "--settings", str(settings)])
        assert ran.exit_code == 0, ran.output
        return ran.stdout

    with bench(tmp_path / "other", url) as made:
        assert "no worker runs" in run("pause")
        assert made.records.pauses() == []
        said: list[str] = []
        working = threading.Thread(target=made.work, args=(lambda: len(said) == 2,))
        working.start()
        try:
            _until(made.records.has_workers)
            said.append(run("drain"))
            assert [one.kind for one in made.records.pauses()] == ["everything"]
            said.append(run("resume"))
            assert made.records.pauses() == []
        finally:
            said += ["", ""][len(said) :]
            working.join()
        assert "everything is paused" in said[0]
        assert "everything goes on" in said[1]
        assert not made.records.has_workers()


def _until(held: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not held():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _listed(made: Bench, tmp_path: Path) -> list[str]:
    """What the command line says that the jobs wait for: in its list, and each by itself."""
    destinations = "".join(
        f'[[destination]]\nname = "{one.name}"\nae_title = "{one.ae_title}"\nhost = "{one.host}"\nport = {one.port}\n'
        for one in made.settings.destination
    )
    path = tmp_path / "settings.toml"
    path.write_text(f'data_folder = "."\n[database]\nurl = "{made.records.url}"\n{destinations}')

    def said(*arguments: str) -> Any:
        result = CliRunner().invoke(app, ["jobs", *arguments, "--settings", str(path), "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    waits = {one["id"]: one["waits_for"] for one in said()}
    assert all(said("show", job)["waits_for"] == waits[job] for job in waits)
    return list(waits.values())


def test_what_waits_for_a_pause_or_for_a_destination_that_is_down_says_so(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        (tmp_path / "archive.down").touch()
        _queue(made, 1)
        made.work(lambda: (one := made.records.windows().get("archive")) is not None and one.failures > 0)
        with psycopg.connect(url) as connection:  # as a delivery is that came to wait since
            connection.execute("UPDATE deliveries SET next_attempt_at = NULL WHERE destination = 'archive'")
        [waits] = _listed(made, tmp_path)
        assert "waits for archive, which has been down since" in waits
        _pause(made, "destination", "archive")
        [waits] = _listed(made, tmp_path)
        assert "waits for archive: destination archive was paused at" in waits
        _pause(made, "pipeline", "liver")
        _queue(made, 2)
        waits, _ = _listed(made, tmp_path)
        assert waits.startswith("pipeline liver was paused at")
        assert waits.endswith("by erika; 0 before it")
