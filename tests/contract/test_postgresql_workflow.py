"""The durable tasks on a real PostgreSQL and its queue, in one process: each way a job can end."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.audit.log import verify as verify_audit
from app.errors import AuditError, GraphFailed, VerificationFailed
from app.jobs import queue
from app.jobs.connections import Connection
from app.jobs.queue import DELIVER, TaskQueue
from app.jobs.records import Records, describe_way
from app.jobs.verification import VerifiedObject
from operators.errors import InferenceFailed, ModelPackageError, PromptRefused, SeriesRefused
from tests.database_fixture import fresh_database
from tests.job_harness import DESTINATIONS, Bench, PlantedGraph, bench, instance


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


def _queue(made: Bench, *numbers: int) -> None:
    made.receive(*(instance(number) for number in numbers or (1, 2)))
    made.create_jobs()


def _events(made: Bench) -> list[str]:
    lines = [line for path in made.settings.audit_folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    return [json.dumps(json.loads(line)) for line in lines]


def test_a_job_is_segmented_delivered_and_closed(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _queue(made)
        made.work(made.all_ended)
        job = made.job()
        assert (job.state, job.attempt, job.code, job.instances) == ("closed", 1, "", 2)
        assert (job.progress_step, job.progress_done, job.progress_total) == ("infer", 1, 2)
        (result,) = job.results
        assert {one.name: one.got() for one in made.destinations.values()} == dict.fromkeys(
            DESTINATIONS, [result.digest]
        )
        assert [(one.destination, one.state, one.attempts) for one in job.deliveries] == [
            (name, "delivered", 1) for name in DESTINATIONS
        ]
        steps = [step for step, _ in describe_way(job)]
        own = ["start", "read", "infer", "write", "verify"]
        assert steps == ["receive", "wait", "queue", *own, "deliver:archive", "deliver:viewer"]
        assert made.queued_tasks() == []
    report = verify_audit(made.settings.audit_folder)
    assert report.ok, report.problems


def test_the_same_instances_make_no_second_job(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _queue(made)
        made.work(made.all_ended)
        _queue(made)  # sent again: known
        assert made.records.undecided_series() == []
        with made.records.transaction() as connection:  # even if it were decided again
            connection.execute("UPDATE series SET state = 'receiving'")
        made.create_jobs()
        assert len(made.records.jobs()) == 1
        (series,) = made.records.series()
        assert (series.state, series.reason) == ("routed", f"already-done: job {made.job().id}")
        assert made.queued_tasks() == []


def test_late_instances_make_a_job_of_the_whole_series(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _queue(made, 1, 2)
        _queue(made, 3)
        newest, first = made.records.jobs()
        assert (first.instances, first.series_revision) == (2, 1)
        assert (newest.instances, newest.series_revision) == (3, 2)


def test_a_refused_series_ends_the_job_as_refused(tmp_path: Path, url: str) -> None:
    def refuse(run: int) -> None:
        raise SeriesRefused("slice 3 is missing", code="slice-missing")

    with bench(tmp_path, url, graph=PlantedGraph(plan=refuse)) as made:
        _queue(made)
        made.work(made.all_ended)
        job = made.job()
        assert (job.state, job.code, job.reason, job.attempt) == ("refused", "slice-missing", "slice 3 is missing", 1)
        assert any("job-refused" in event for event in _events(made))


@pytest.mark.parametrize("code", ["graph-crashed", "graph-timed-out", "graph-out-of-memory", "graph-no-record"])
def test_a_graph_that_breaks_fails_its_job_and_not_the_next(tmp_path: Path, url: str, code: str) -> None:
    def break_first(run: int) -> None:
        if run == 1:
            raise GraphFailed("it broke", code=code)

    with bench(tmp_path, url, graph=PlantedGraph(plan=break_first)) as made:
        made.receive(instance(1, series=1))
        made.create_jobs()
        made.receive(instance(1, series=2))
        made.create_jobs()
        made.work(made.all_ended)
        second, first = made.records.jobs()
        assert (first.state, first.code, first.attempt) == ("failed", code, 1)
        assert second.state == "closed"


def test_a_defect_fails_the_job_without_its_text(tmp_path: Path, url: str) -> None:
    def break_down(run: int) -> None:
        raise ZeroDivisionError("Doe^Jane")

    with bench(tmp_path, url, graph=PlantedGraph(plan=break_down)) as made:
        _queue(made)
        made.work(made.all_ended)
        job = made.job()
        assert (job.state, job.code) == ("failed", "internal-error")
        assert "Doe" not in job.reason
        assert "ZeroDivisionError" in job.reason


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (PromptRefused("it shows nothing", code="prompt-empty"), "refused"),
        (ModelPackageError("plans.json is missing", code="package-incomplete"), "failed"),
        (GraphFailed("an operator raised", code="graph-failed"), "failed"),
    ],
)
def test_what_would_go_wrong_again_is_not_tried_again(tmp_path: Path, url: str, error: Exception, state: str) -> None:
    def refuse(run: int) -> None:
        raise error

    with bench(tmp_path, url, graph=PlantedGraph(plan=refuse)) as made:
        _queue(made)
        made.work(made.all_ended)
        assert (made.job().state, made.job().attempt, made.job().results) == (state, 1, ())


def test_a_result_that_is_not_what_was_computed_is_neither_sent_nor_tried_again(tmp_path: Path, url: str) -> None:
    def find_wrong(*_: object) -> tuple[VerifiedObject, ...]:
        raise VerificationFailed("segment 1 has 3 voxels more than were computed")

    with bench(tmp_path, url) as made:
        made.workflow._segmenting._verify = find_wrong
        _queue(made)
        made.work(made.all_ended)
        assert (made.job().state, made.job().code, made.job().attempt) == ("failed", "verification-failed", 1)
        assert [one.got() for one in made.destinations.values()] == [[], []]


def test_a_pipeline_that_is_no_more_fails_its_job(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _queue(made)
        del made.models["liver"]
        made.work(made.all_ended)
        assert (made.job().state, made.job().code) == ("failed", "pipeline-unknown")


def test_a_task_whose_audit_line_could_not_be_written_is_repeated_and_nothing_is_given_up(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench(tmp_path, url) as made:
        _queue(made)
        append, failures = made.audit.append, iter(range(2))

        def fail_twice(*arguments: Any, **detail: Any) -> None:
            if next(failures, None) is not None:
                raise AuditError("no room")
            append(*arguments, **detail)

        monkeypatch.setattr(made.audit, "append", fail_twice)
        made.work(made.all_ended)
        assert (made.job().state, made.graph.runs) == ("closed", 1)


def test_failed_inference_is_repeated_up_to_the_maximum(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.segmenting._INFERENCE_WAIT_SECONDS", (0.1, 0.1))

    def unreachable(run: int) -> None:
        if run <= 5:
            raise InferenceFailed("no answer", code="triton-unreachable")

    with bench(tmp_path, url, graph=PlantedGraph(plan=unreachable)) as made:
        _queue(made)
        made.work(made.all_ended)
        job = made.job()
        assert (job.state, job.code, job.attempt) == ("dead-letter", "triton-unreachable", 3)
        made.receive(instance(3))
        made.create_jobs()
        made.work(made.all_ended)  # the fourth and fifth run fail, the sixth succeeds
        newest = made.records.jobs()[0]
        assert (newest.state, newest.attempt) == ("closed", 3)


def test_a_shutdown_gives_the_attempt_back(tmp_path: Path, url: str) -> None:
    graph = PlantedGraph()

    def until_cancelled(run: int) -> None:
        if run <= 4 and graph.cancelled.wait(20):
            raise GraphFailed("ended", code="graph-crashed")

    def has_run(run: int) -> bool:
        return graph.runs == run

    graph.plan = until_cancelled
    for run in range(1, 5):  # more shutdowns than the maximum of attempts
        with bench(tmp_path / str(run), url, graph=graph) as made:
            graph.cancelled.clear()
            if run == 1:
                _queue(made)
            else:
                made.receive(instance(1), instance(2))
            made.work(partial(has_run, run), stop_seconds=0.2)
            assert (made.job().state, made.job().tries) == ("queued", 0)
    with bench(tmp_path / "last", url, graph=graph) as made:
        made.receive(instance(1), instance(2))
        made.work(made.all_ended)
        assert (made.job().state, made.job().attempt, made.job().tries) == ("closed", 5, 1)


def test_a_dead_destination_holds_up_no_other_and_gets_its_objects_later(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        down = tmp_path / "archive.down"
        down.touch()
        for series in range(4):
            made.receive(instance(1, series=series))
        made.create_jobs()
        made.work(lambda: len(made.destinations["viewer"].got()) == 4)
        assert made.destinations["archive"].got() == []
        assert {job.state for job in made.records.jobs()} == {"delivering"}
        down.unlink()
        made.work(made.all_ended)
        digests = sorted(result.digest for job in made.records.jobs() for result in job.results)
        assert sorted(made.destinations["archive"].got()) == digests
        assert sorted(made.destinations["viewer"].got()) == digests
        assert {job.state for job in made.records.jobs()} == {"closed"}


def test_a_delivery_that_is_given_up_fails_the_job(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        (tmp_path / "archive.down").touch()
        few = made.settings.destination[0].model_copy(update={"maximum_attempts": 2})
        made.workflow._delivering._outcomes._settings = made.settings.model_copy(
            update={"destination": (few, made.settings.destination[1])}
        )
        _queue(made)
        made.work(made.all_ended)
        job = made.job()
        assert (job.state, job.code, job.reason) == ("failed", "not-delivered", "not delivered to archive")
        assert {one.destination: (one.state, one.attempts) for one in job.deliveries} == {
            "archive": ("failed", 2),
            "viewer": ("delivered", 1),
        }


def test_a_result_that_changed_on_disk_is_not_sent(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        (tmp_path / "archive.down").touch()
        (tmp_path / "viewer.down").touch()
        _queue(made)
        made.work(lambda: made.job().state == "delivering")
        Path(made.job().results[0].path).write_bytes(b"other")
        (tmp_path / "archive.down").unlink()
        (tmp_path / "viewer.down").unlink()
        made.work(made.all_ended)
        assert {one.code for one in made.job().deliveries} == {"result-changed"}
        assert made.job().state == "failed"
        assert made.destinations["archive"].got() == []


def test_missing_inputs_fail_the_job(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _queue(made)
        (made.spool / f"{instance(1).digest}.dcm").unlink()
        made.work(made.all_ended)
        assert (made.job().state, made.job().code) == ("failed", "input-missing")
        assert "1 of the job's 2" in made.job().reason


def test_a_replaced_model_gets_a_new_job(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _queue(made)
        made.models["liver"] = replace(made.models["liver"], version="2.0")
        made.work(made.all_ended)
        assert (made.job().state, made.job().code) == ("failed", "model-replaced")
        made.create_jobs()
        made.work(made.all_ended)
        newest = made.records.jobs()[0]
        assert (newest.state, newest.model_version) == ("closed", "2.0")


def test_an_attempt_that_was_overtaken_writes_nothing(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _queue(made)
        job = made.job()
        assert made.records.begin_attempt(job.id) == (1, 1)
        assert made.records.begin_attempt(job.id) == (2, 2)
        with made.records.transaction() as connection:
            assert not made.records.end_attempt(connection, job.id, 1, "failed", "late", "")
            assert not made.records.record_results(connection, job, 1, [], {}, [])
        assert made.job().state == "running"


def test_a_poison_job_ends_after_its_attempts(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        _queue(made)
        for _ in range(3):  # as if the server had been killed in each
            made.records.begin_attempt(made.job().id)
        made.work(made.all_ended)
        assert (made.job().state, made.job().code) == ("dead-letter", "attempts-exhausted")
        assert made.job().reason.endswith("the last: attempt 3 was lost with its worker")
        assert any("job-given-up" in event for event in _events(made))
        assert made.graph.runs == 0


def test_work_goes_on_after_the_database_dropped_every_connection(tmp_path: Path, url: str, postgres: str) -> None:
    with bench(tmp_path, url, graph=PlantedGraph(seconds=0.5)) as made:
        for series in range(3):
            made.receive(instance(1, series=series))
        made.create_jobs()
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        dropped: list[int] = []

        def drop_once_then_wait() -> bool:
            if made.graph.runs == 2 and not dropped:
                with psycopg.connect(postgres, autocommit=True) as connection:
                    ended = connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
                    )
                    dropped.append(len(ended.fetchall()))
            return bool(dropped) and made.all_ended()

        made.work(drop_once_then_wait, seconds=60)
        assert {job.state for job in made.records.jobs()} == {"closed"}
        assert dropped[0] > 3


@pytest.mark.parametrize("before", ["the deliveries are counted", "a delivery is put into the queue"])
def test_what_was_computed_is_not_computed_again_for_a_line_that_broke(
    tmp_path: Path, url: str, postgres: str, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """As where PostgreSQL takes a clock that was set for time in which nobody spoke, and ends the connection."""
    with bench(tmp_path, url) as made:
        record, defer, ended = made.records.record_results, TaskQueue.defer, list[bool]()

        def end(connection: Connection) -> None:
            if not ended:
                with psycopg.connect(postgres) as other:
                    pid = connection.info.backend_pid
                    ended.extend(row[0] for row in other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,)))

        def record_results(connection: Connection, *arguments: Any, **named: Any) -> bool:
            is_recorded = record(connection, *arguments, **named)
            if before == "the deliveries are counted":
                end(connection)
            return is_recorded

        def deferred(queue: TaskQueue, connection: Connection, task: str, *arguments: Any, **named: Any) -> None:
            if before == "a delivery is put into the queue" and task == DELIVER:
                end(connection)
            defer(queue, connection, task, *arguments, **named)

        monkeypatch.setattr(made.records, "record_results", record_results)
        monkeypatch.setattr(TaskQueue, "defer", deferred)
        _queue(made)
        made.work(made.all_ended)
        assert ended == [True]
        _assert_done_once(made)


def test_what_was_recorded_without_an_answer_is_sent_once(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench(tmp_path, url) as made:
        transaction, recorded, lost = made.records.transaction, list[bool](), list[Connection]()

        def record_results(connection: Connection, *arguments: Any, **named: Any) -> bool:
            recorded.append(Records.record_results(made.records, connection, *arguments, **named))
            lost.append(connection)
            return recorded[-1]

        @contextmanager
        def without_answer() -> Iterator[Connection]:
            with transaction() as connection:
                yield connection
            if lost == [connection]:
                lost.append(connection)
                raise psycopg.OperationalError("server closed the connection unexpectedly")

        monkeypatch.setattr(made.records, "record_results", record_results)
        monkeypatch.setattr(made.records, "transaction", without_answer)
        _queue(made)
        made.work(made.all_ended)
        assert recorded == [True, False]
        _assert_done_once(made)


def _assert_done_once(made: Bench) -> None:
    job = made.job()
    assert (job.state, job.attempt, job.tries, made.graph.runs) == ("closed", 1, 1, 1)
    sent = [made.destinations[name].got() for name in DESTINATIONS]
    assert sent[0] == sent[1]
    assert len(sent[0]) == 1


def test_a_database_without_room_uses_up_no_attempts(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outcome that can't be recorded is no fault of the job, however often that happens."""
    with bench(tmp_path, url) as made:
        pipeline = made.settings.pipeline[0].model_copy(update={"maximum_attempts": 1})
        made.settings.__dict__["pipeline"] = (pipeline,)
        record, full = made.records.record_results, [2]

        def record_results(*arguments: Any, **named: Any) -> bool:
            if full[0]:
                full[0] -= 1
                raise psycopg.errors.DiskFull("no space left on device")
            return record(*arguments, **named)

        monkeypatch.setattr(made.records, "record_results", record_results)
        _queue(made)
        made.work(made.all_ended)
        job = made.job()
        assert (job.state, job.code, job.attempt, job.tries) == ("closed", "", 1, 1)
        assert made.graph.runs == 1
        assert full == [0]


def test_a_defect_in_a_task_sets_it_aside_until_a_start(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is not closed meanwhile, the account says so, and others go on."""
    monkeypatch.setattr(queue, "_LONGEST_WAIT_SECONDS", 0.0)
    tries = []

    def fail(job_id: uuid.UUID) -> None:
        tries.append(job_id)
        raise TypeError

    def given_up(made: Bench) -> list[uuid.UUID]:
        with made.records.snapshot(datetime(2000, 1, 1, tzinfo=UTC)) as snapshot:
            return [one["job_id"] for one in snapshot.broken("task_given_up")]

    with bench(tmp_path, url) as made:
        made.receive(instance(1))
        made.create_jobs()
        (first,) = made.records.jobs()
        with monkeypatch.context() as patched:
            patched.setattr(made.workflow._withdrawing, "withdraw_earlier", fail)

            def is_given_up() -> bool:
                if given_up(made) and len(made.records.jobs()) == 1:
                    patched.undo()
                    made.receive(instance(1, series=2))
                    made.create_jobs()
                return any(one.state == "closed" for one in made.records.jobs())

            made.work(is_given_up, seconds=60)
        assert tries == [first.id] * 10
        assert given_up(made) == [first.id]
        assert {one.id: one.state for one in made.records.jobs()}[first.id] == "delivering"
        made.work(made.all_ended)
        assert [one.state for one in made.records.jobs()] == ["closed", "closed"]
        assert given_up(made) == []
