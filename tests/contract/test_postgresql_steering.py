"""A person's word about a job on a real PostgreSQL: cancel it, replay it, put it first; each wherever the job is."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest

from app.audit.log import verify as verify_audit
from app.errors import GraphFailed, JobError
from app.jobs import steering
from app.jobs.records import Job
from app.settings_pipeline import URGENT_PRIORITY, GeneralistSettings
from operators.errors import InferenceFailed
from tests.database_fixture import fresh_database
from tests.job_harness import DISAGREEING, Bench, PlantedGraph, bench, instance


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


def _queue(made: Bench, *series: int) -> None:
    for number in series or (1,):
        made.receive(instance(1, series=number))
        made.create_jobs()


def _say(made: Bench, word: steering.Word, job: Job | None = None) -> None:
    steering.ask(made.records, word, job or made.job(), "erika")


def _said(made: Bench, event: str) -> list[str]:
    lines = [line for path in made.settings.audit_folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    return [line for line in lines if event in line]


def _down(made: Bench, *names: str) -> None:
    for name in names:
        (made.destinations[name].folder / f"{name}.down").touch()


def _up(made: Bench, *names: str) -> None:
    for name in names:
        (made.destinations[name].folder / f"{name}.down").unlink()


def _all_ended_after(made: Bench, runs: int) -> bool:
    return made.graph.runs == runs and made.all_ended()


def _got(made: Bench) -> dict[str, int]:
    return {name: len(one.got()) for name, one in made.destinations.items()}


def test_a_queued_job_is_cancelled_and_never_runs(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _queue(made)
        _say(made, "cancel")
        made.workflow._decisions["cancel"](made.job().id, "erika")
        assert made.queued_tasks() == [("cancel", "todo")]  # the graph's task was taken back
        made.work(lambda: made.queued_tasks() == [])
        job = made.job()
        assert (job.state, job.code, job.attempt) == ("cancelled", "cancelled", 0)
        assert job.reason == "erika cancelled it while it was queued"
        assert made.graph.runs == 0
        (said,) = _said(made, "job-cancelled")  # said twice, done once
        assert "erika" in said


def test_a_running_graph_is_ended_within_two_seconds_and_the_next_job_runs(tmp_path: Path, url: str) -> None:
    graph = PlantedGraph(seconds=30.0)
    with bench(tmp_path, url, graph=graph) as made:
        _queue(made, 1)
        asked = ended = 0.0

        def cancelled_and_ended() -> bool:
            nonlocal asked, ended
            if graph.runs == 1 and not asked:
                _say(made, "cancel")
                asked, graph.seconds = time.monotonic(), 0.0
                _queue(made, 2)
            if asked and not ended and graph.runs == 2:
                ended = time.monotonic()
            return bool(ended) and made.all_ended()

        made.work(cancelled_and_ended, seconds=20)
        assert ended - asked < 2.0
        second, first = made.records.jobs()
        assert (first.state, first.results, second.state) == ("cancelled", (), "closed")
        assert not (made.settings.results_folder / str(first.id) / "1").exists()
        assert len(made.destinations["archive"].got()) == 1
        assert _said(made, "job-failed") == []


def test_an_attempt_of_a_cancelled_job_writes_nothing(tmp_path: Path, url: str) -> None:
    def cancel_and_finish(run: int) -> None:  # too late for the watch to end the graph
        made.workflow._decisions["cancel"](made.job().id, "erika")

    with bench(tmp_path, url, graph=PlantedGraph(plan=cancel_and_finish)) as made:
        _queue(made)
        made.work(lambda: made.graph.runs == 1 and made.queued_tasks() == [])
        assert (made.job().state, made.job().results, _got(made)) == ("cancelled", (), {"archive": 0, "viewer": 0})


def test_deliveries_that_wait_are_cancelled_with_their_job(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _down(made, "archive")
        _queue(made)
        made.work(lambda: [one.state for one in made.job().deliveries] == ["waiting", "delivered"])
        _say(made, "cancel")
        made.work(lambda: made.job().state == "cancelled" and made.queued_tasks() == [])
        assert {one.destination: one.state for one in made.job().deliveries} == {
            "archive": "cancelled",
            "viewer": "delivered",
        }
        _up(made, "archive")
        made.work(lambda: made.queued_tasks() == [])
        assert _got(made) == {"archive": 0, "viewer": 1}


@pytest.mark.parametrize("arrives", [True, False])
def test_a_delivery_that_is_being_sent_ends_as_it_ends(tmp_path: Path, url: str, arrives: bool) -> None:
    with bench(tmp_path, url, seconds=1.0) as made:
        if not arrives:
            _down(made, "archive")
        _queue(made)

        def cancelled_while_sending() -> bool:
            if not (made.job().deliveries and made.job().deliveries[0].state == "sending"):
                return False
            _say(made, "cancel")
            return True

        made.work(cancelled_while_sending)
        made.work(lambda: made.queued_tasks() == [])
        archive = made.job().deliveries[0]
        assert made.job().state == "cancelled"
        assert archive.state == ("delivered" if arrives else "cancelled")


def test_a_sending_whose_worker_was_lost_is_not_repeated_for_a_cancelled_job(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _down(made, "archive", "viewer")
        _queue(made)
        made.work(lambda: made.job().state == "delivering")
        one = made.job().deliveries[0]
        assert (
            made.records.begin_delivery(one.job_id, one.digest, one.destination) is not None
        )  # and then it was killed
        made.workflow._decisions["cancel"](one.job_id, "erika")
        assert made.job().deliveries[0].state == "sending"
        assert made.records.begin_delivery(one.job_id, one.digest, one.destination) is None
        _up(made, "archive", "viewer")
        made.work(lambda: {one.state for one in made.job().deliveries} == {"cancelled"})
        assert _got(made) == {"archive": 0, "viewer": 0}


def test_a_job_that_has_ended_is_not_cancelled(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _queue(made)
        made.work(made.all_ended)
        for word in ("cancel", "urgent"):
            with pytest.raises(JobError, match="the job is closed"):
                _say(made, word)
        with pytest.raises(JobError) as refused:
            _say(made, "replay")
        assert refused.value.code == "job-not-replayable"
        for name in ("cancel", "replay", "put-first"):  # said in time, carried out too late
            made.workflow._decisions[name](made.job().id, "erika")
            made.workflow._decisions[name](uuid.UUID(int=1), "erika")
        assert made.job().state == "closed"
        assert _said(made, "job-cancelled") + _said(made, "job-replayed") + _said(made, "job-put-first") == []


def test_a_dead_letter_is_replayed_with_fresh_tries_and_the_same_uids(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.segmenting._INFERENCE_WAIT_SECONDS", (0.1, 0.1))

    def unreachable(run: int) -> None:
        if run <= 5:
            raise InferenceFailed("no answer", code="triton-unreachable")

    with bench(tmp_path, url, graph=PlantedGraph(plan=unreachable)) as made:
        _queue(made)
        made.work(made.all_ended)
        dead = made.job()
        assert (dead.state, dead.code, dead.reason) == ("dead-letter", "triton-unreachable", "no answer")
        assert made.records.replayable_jobs() == [dead.id]
        _say(made, "replay")
        made.work(lambda: made.job().state == "closed")  # two more fail, the third succeeds
        job = made.job()
        assert (job.id, job.key, job.attempt, job.tries, job.code) == (dead.id, dead.key, 6, 3, "")
        assert len(job.results) == 1
        assert _got(made) == {"archive": 1, "viewer": 1}
        assert made.records.replayable_jobs() == []
        assert "erika" in _said(made, "job-replayed")[0]


def test_a_dead_letter_can_be_replayed_again_and_again(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.segmenting._INFERENCE_WAIT_SECONDS", (0.1, 0.1))

    def unreachable(run: int) -> None:
        raise InferenceFailed("no answer", code="triton-unreachable")

    with bench(tmp_path, url, graph=PlantedGraph(plan=unreachable)) as made:
        _queue(made)
        made.work(made.all_ended)
        for tries in (6, 9):
            _say(made, "replay")
            made.work(partial(_all_ended_after, made, tries))
        assert (made.job().state, made.job().attempt) == ("dead-letter", 9)


def test_a_delivery_that_was_given_up_is_replayed_without_a_second_graph(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        few = [one.model_copy(update={"maximum_attempts": 2}) for one in made.settings.destination]
        made.workflow._delivering._outcomes._settings = made.settings.model_copy(update={"destination": tuple(few)})
        _down(made, "archive")
        _queue(made)
        made.work(made.all_ended)
        assert (made.job().state, made.job().code) == ("failed", "not-delivered")
        assert made.records.replayable_jobs() == [made.job().id]
        _say(made, "replay")
        made.work(lambda: made.job().deliveries[0].attempts == 4 and made.all_ended())  # two fresh tries
        assert (made.job().state, made.job().deliveries[0].tries) == ("failed", 2)
        _up(made, "archive")
        _say(made, "replay")
        made.work(lambda: made.job().state == "closed")
        assert made.graph.runs == 1
        (result,) = made.job().results
        assert [one.got() for one in made.destinations.values()] == [[result.digest], [result.digest]]


def test_a_failed_job_is_replayed_by_its_number_alone(tmp_path: Path, url: str) -> None:
    def crash(run: int) -> None:
        if run == 1:
            raise GraphFailed("it broke", code="graph-crashed")

    with bench(tmp_path, url, graph=PlantedGraph(plan=crash)) as made:
        _queue(made)
        made.work(made.all_ended)
        assert made.records.replayable_jobs() == []
        _say(made, "replay")
        made.work(lambda: made.job().state == "closed")
        assert made.job().attempt == 2


def test_a_job_whose_model_was_replaced_is_not_replayed(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _queue(made)
        with made.records.transaction() as connection:
            connection.execute("UPDATE jobs SET state = 'failed', code = 'model-replaced'")
        with pytest.raises(JobError, match="a new job took its place"):
            _say(made, "replay")


@pytest.mark.parametrize("where", ["queued", "delivering"])
def test_a_cancelled_job_goes_on_where_it_was(tmp_path: Path, url: str, where: str) -> None:
    with bench(tmp_path, url) as made:
        _down(made, "archive", "viewer")
        _queue(made)
        if where == "delivering":
            made.work(lambda: {one.attempts > 0 for one in made.job().deliveries} == {True})
        made.workflow._decisions["cancel"](made.job().id, "erika")
        made.workflow._decisions["replay"](made.job().id, "erika")
        assert made.job().state == where
        _up(made, "archive", "viewer")
        made.work(lambda: made.job().state == "closed" and made.queued_tasks() == [])
        assert (made.graph.runs, _got(made)) == (1, {"archive": 1, "viewer": 1})


def test_a_cancelled_job_that_was_held_is_held_again(tmp_path: Path, url: str) -> None:
    graph = PlantedGraph(agreement=DISAGREEING)
    generalist = GeneralistSettings(model="sam")
    with bench(tmp_path, url, graph=graph, generalist=generalist, on_disagreement="hold") as made:
        _queue(made)
        made.work(lambda: made.job().state == "held")
        made.workflow._decisions["cancel"](made.job().id, "erika")
        assert {one.state for one in made.job().deliveries} == {"cancelled"}
        made.workflow._decisions["replay"](made.job().id, "erika")
        assert (made.job().state, {one.state for one in made.job().deliveries}) == ("held", {"held"})
        made.workflow._decisions["release"](made.job().id, "erika")
        made.work(made.all_ended)
        assert (made.job().state, _got(made)) == ("closed", {"archive": 1, "viewer": 1})


def test_an_urgent_job_goes_before_those_that_came_first(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _queue(made, 1, 2, 3)
        last = made.records.jobs()[0]
        made.workflow._decisions["put-first"](last.id, "erika")  # at once: while it is carried out its task is locked
        with psycopg.connect(url) as connection:
            tasks = connection.execute(
                "SELECT args ->> 'job_id', priority FROM procrastinate_jobs WHERE task_name = 'segment' ORDER BY id"
            ).fetchall()
        assert [priority for _, priority in tasks] == [0, 0, URGENT_PRIORITY]
        made.work(made.all_ended)
        began = {job.id: job.started_at for job in made.records.jobs()}
        assert min(began, key=lambda one: str(began[one])) == last.id
        assert "erika" in _said(made, "job-put-first")[0]


def test_what_a_job_sends_later_is_urgent_too(tmp_path: Path, url: str) -> None:
    told = threading.Event()

    def put_first(run: int) -> None:  # while its graph, the second, runs
        if run == 2:
            made.workflow._decisions["put-first"](made.records.jobs()[0].id, "erika")
            told.set()

    with bench(tmp_path, url, graph=PlantedGraph(plan=put_first)) as made:
        _down(made, "archive", "viewer")
        _queue(made, 1, 2)
        made.work(lambda: all(len(job.deliveries) == 2 for job in made.records.jobs()))
        assert told.is_set()
        urgent, routine = made.records.jobs()
        assert (urgent.priority, routine.priority) == (URGENT_PRIORITY, 0)
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE deliveries SET next_attempt_at = NULL")
        due = [one.sending.job_id for one in made.records.due_deliveries("archive", 2)]
        assert due == [urgent.id, routine.id]


def test_the_jobs_of_one_state_are_listed_alone(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _queue(made, 1, 2)
        made.workflow._decisions["cancel"](made.records.jobs()[0].id, "erika")
        assert [job.state for job in made.records.jobs(state="cancelled")] == ["cancelled"]
        assert [job.state for job in made.records.jobs(state="queued")] == ["queued"]
        assert len(made.records.jobs()) == 2
    report = verify_audit(made.settings.audit_folder)
    assert report.ok, report.problems
