"""Jobs that a worker ended since it has another model than theirs, on a real PostgreSQL: none is stranded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from app.settings_pipeline import URGENT_PRIORITY
from tests.database_fixture import fresh_database
from tests.job_harness import DESTINATIONS, Bench, bench, instance


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


def _has(made: Bench, version: str) -> None:
    """Give a host another version of the model."""
    made.models["liver"] = replace(made.models["liver"], version=version, weights_digest=version[0] * 64)


def _seconds_ahead(url: str) -> float:
    """How long the only graph that waits is not to start yet."""
    with psycopg.connect(url) as connection:
        ((seconds,),) = connection.execute(
            "SELECT extract(epoch FROM scheduled_at - clock_timestamp())::float8 FROM procrastinate_jobs "
            "WHERE task_name = 'segment' AND status = 'todo'"
        ).fetchall()
    return float(seconds)


def _be_due(url: str) -> None:
    """Let the time pass that graphs wait for."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE procrastinate_jobs SET scheduled_at = NULL WHERE status = 'todo'")


def _replaced_by(worker: Bench) -> None:
    """Have a worker take what waits, and end it since its model is another one."""
    worker.work(lambda: all(one.code == "model-replaced" for one in worker.records.jobs() if one.state != "closed"))


@pytest.fixture
def hosts(tmp_path: Path, url: str) -> Iterator[tuple[Bench, Bench]]:
    """A listener, and a worker whose copy of the model is older."""
    with ExitStack() as opened:
        listener = opened.enter_context(bench(tmp_path, url, name="listener"))
        stale = opened.enter_context(bench(tmp_path, url, name="stale"))
        _has(listener, "2.0")
        yield listener, stale


def test_a_worker_with_an_older_model_strands_nothing(hosts: tuple[Bench, Bench], url: str) -> None:
    listener, stale = hosts
    for series in (1, 2):
        listener.receive(instance(1, series=series))
    listener.create_jobs()
    _replaced_by(stale)
    listener.create_jobs()
    assert [one.state for one in listener.records.jobs()] == ["queued"] * 2
    _be_due(url)
    listener.work(listener.all_ended)  # as a worker that has the listener's model
    assert [(one.state, one.code, one.model_version) for one in listener.records.jobs()] == [("closed", "", "2.0")] * 2
    assert (listener.graph.runs, stale.graph.runs) == (2, 0)
    assert {len(one.got()) for one in listener.destinations.values()} == {2}
    assert {one.state for one in listener.records.series()} == {"routed"}
    assert listener.queued_tasks() == []


def test_what_a_person_put_first_stays_first_with_another_model(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        made.receive(instance(1))
        made.create_jobs()
        with made.records.transaction() as connection:
            made.records.prioritise(connection, made.job().id, URGENT_PRIORITY)
        _has(made, "2.0")
        _replaced_by(made)
        made.create_jobs()
        assert {(one.model_version, one.priority) for one in made.records.jobs()} == {
            ("1.0", URGENT_PRIORITY),
            ("2.0", URGENT_PRIORITY),
        }


def test_it_waits_longer_each_time(hosts: tuple[Bench, Bench], url: str) -> None:
    listener, stale = hosts
    listener.receive(instance(1))
    listener.create_jobs()
    waits = []
    for _ in range(3):
        _replaced_by(stale)
        listener.create_jobs()
        waits.append(_seconds_ahead(url))
        _be_due(url)
    assert waits[0] > 1
    assert waits == sorted(waits)
    assert (stale.job().state, stale.job().tries) == ("queued", 0)
    begun_again = [line for line in _audited(listener) if "job-replayed" in line]
    assert len(begun_again) == 3
    assert not any("person" in line for line in begun_again)


def _audited(made: Bench) -> list[str]:
    (file,) = (made.settings.audit_folder / "listener").glob("*.jsonl")
    return file.read_text().splitlines()


def test_a_model_that_is_put_back_runs_the_job_that_was_made_for_it(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        first_model = made.models["liver"]
        made.receive(instance(1))
        made.create_jobs()
        _has(made, "2.0")
        _replaced_by(made)
        made.create_jobs()
        made.models["liver"] = first_model
        _replaced_by(made)
        made.create_jobs()
        _be_due(url)
        made.work(made.all_ended)
        other, first = made.records.jobs()
        assert (first.model_version, first.state, first.superseded_by) == ("1.0", "closed", None)
        assert (other.model_version, other.state, other.superseded_by) == ("2.0", "failed", first.id)
        assert [(one.destination, one.state) for one in first.deliveries] == [
            (name, "delivered") for name in DESTINATIONS
        ]
        assert [one.state for one in made.records.series()] == ["routed"]


def test_it_goes_on_as_its_rule_says_now(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made, bench(tmp_path, url, name="stale") as stale:
        made.receive(instance(1))
        made.create_jobs()
        _has(stale, "0.9")
        _replaced_by(stale)
        (series,) = made.records.undecided_series()
        rule = made.settings.rule[0].model_copy(update={"name": "mended", "destinations": ("viewer",), "priority": 3})
        made.workflow.create_job(series, rule)
        _be_due(url)
        made.work(made.all_ended)
        assert (made.job().rule, made.job().destinations, made.job().priority) == ("mended", ("viewer",), 3)
        assert {name: len(one.got()) for name, one in made.destinations.items()} == {"archive": 0, "viewer": 1}


def test_nothing_else_begins_again(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        made.receive(instance(1))
        made.create_jobs()
        for state, code in (("failed", "internal-error"), ("cancelled", "cancelled"), ("closed", "")):
            with made.records.transaction() as connection:
                connection.execute("UPDATE jobs SET state = %s, code = %s", (state, code))
                connection.execute("UPDATE series SET state = 'receiving'")
            made.create_jobs()
            assert (made.job().state, made.records.series()[0].reason) == (state, f"already-done: job {made.job().id}")
