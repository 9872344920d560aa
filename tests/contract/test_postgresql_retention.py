"""Retention on a real PostgreSQL and a real spool: what goes, what never does, and what a crash or a resend meets."""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from app.audit.events import AuditEvent
from app.audit.log import read_records
from app.cli import app
from app.errors import AuditError, GraphFailed
from app.jobs import connections, presence, steering
from app.jobs.presence import RETENTION, own_turn
from app.jobs.queue import TaskQueue
from app.jobs.retention import Retention, RetentionWatch, ask_for_retention
from app.jobs.retention_plan import Plan
from app.jobs.withdrawing import Order, ask_to_withdraw
from app.listener.adoption import adopt_unrecorded
from operators.errors import SeriesRefused
from operators.object_kinds import NEEDS
from tests.database_fixture import fresh_database
from tests.job_harness import PlantedGraph, instance
from tests.stepped_bench import SteppedBench, stepped_bench

_TIMES = {
    "series": ("first_received_at", "last_received_at", "decided_at"),
    "jobs": ("created_at", "started_at", "finished_at"),
    "deliveries": ("created_at", "last_attempt_at", "finished_at"),
}


@pytest.fixture
def bench(postgres: str, tmp_path: Path) -> Iterator[SteppedBench]:
    with fresh_database(postgres) as url, stepped_bench(tmp_path, url, graph=PlantedGraph()) as made:
        yield made


def _age(bench: SteppedBench, days: int = 40) -> None:
    """Let time pass."""
    with bench.records.transaction() as connection:
        for table, columns in _TIMES.items():
            changed = ", ".join(f"{column} = {column} - interval '{days} days'" for column in columns)
            connection.execute(" ".join(("UPDATE", table, "SET", changed)).encode())


def _closed(bench: SteppedBench, study: int = 1) -> None:
    bench.receive_study(study)
    bench.create_jobs()
    bench.finish()


def _files(bench: SteppedBench) -> int:
    return len(list(bench.kept.all_digests()))


def _audited(bench: SteppedBench, event: AuditEvent) -> list[dict[str, Any]]:
    return [one["detail"] for one in read_records(bench.settings.audit_folder) if one["event"] == event.name]


def _ruled(bench: SteppedBench, **rules: Any) -> Retention:
    """The retention with other settings."""
    retention = bench.settings.retention.model_copy(update=rules)
    committing = rules.get("committing", ())
    destinations = tuple(
        one.model_copy(update={"commitment": "query" if one.name in committing else "none"})
        for one in bench.settings.destination
    )
    return Retention(
        settings=bench.settings.model_copy(update={"retention": retention, "destination": destinations}),
        records=bench.records,
        audit=bench.audit,
        spool=bench.kept,
        results=bench.files,
    )


def test_an_old_study_goes_with_an_audit_line_and_the_account_agrees(bench: SteppedBench) -> None:
    _closed(bench, 1)
    _age(bench)
    _closed(bench, 2)
    assert not bench.retention.run()
    assert _files(bench) == 2
    (told,) = _audited(bench, AuditEvent.INSTANCES_REMOVED)
    assert told == {
        "study_instance_uid": instance(1, study=1).study_instance_uid,
        "instances": 2,
        "bytes": 128,
        "reason": "older than the settings keep it",
    }
    found = bench.account()
    assert found.agrees, found.discrepancies
    assert found.totals["files"] == {"kept": 2, "removed by retention": 2}


def test_old_results_go_and_the_account_agrees(bench: SteppedBench) -> None:
    _closed(bench, 1)
    folder = Path(bench.job().results[0].path).parents[1]
    _age(bench, 100)
    bench.retention.run()
    assert not folder.exists()
    (told,) = _audited(bench, AuditEvent.RESULTS_REMOVED)
    assert (told["job_id"], told["instances"]) == (str(bench.job().id), 1)
    assert bench.account().agrees


def _receiving(bench: SteppedBench) -> None:
    bench.receive_study(1)


def _queued(bench: SteppedBench) -> None:
    bench.receive_study(1)
    bench.create_jobs()


def _delivering(bench: SteppedBench) -> None:
    _queued(bench)
    bench.step()


def _postponed(bench: SteppedBench) -> None:
    (bench.settings.data_folder / "archive.down").touch()
    _delivering(bench)
    bench.step()
    bench.step()


def _held(bench: SteppedBench) -> None:
    _delivering(bench)
    bench.change("UPDATE deliveries SET state = 'held'")
    bench.change("UPDATE jobs SET state = 'held'")


def _state(state: str) -> Callable[[SteppedBench], None]:
    def reach(bench: SteppedBench) -> None:
        _closed(bench)
        bench.change("UPDATE jobs SET state = %s", state)

    return reach


def _committing(bench: SteppedBench) -> None:
    _closed(bench)
    bench.change("UPDATE deliveries SET state = 'committing' WHERE destination = 'archive'")


def _refused(bench: SteppedBench) -> None:
    """A destination never takes the result."""
    bench.destinations["archive"].accepted = ()
    _closed(bench)
    assert (bench.job().state, bench.job().code) == ("failed", "not-delivered")


def _uncommitted(bench: SteppedBench) -> None:
    """A destination has taken the result, and never commits itself."""
    _delivering(bench)
    bench.finish()
    bench.change("UPDATE deliveries SET state = 'failed', code = 'commitment-missing' WHERE destination = 'archive'")
    bench.change("UPDATE jobs SET state = 'failed', code = 'not-committed'")


NEEDED = {
    "receiving": _receiving,
    "queued": _queued,
    "running": _state("running"),
    "delivering": _delivering,
    "a delivery that is tried again": _postponed,
    "held": _held,
    "committing": _committing,
    "a dead letter": _state("dead-letter"),
    "refused by a destination": _refused,
    "never committed": _uncommitted,
}


@pytest.mark.parametrize("reach", NEEDED.values(), ids=NEEDED)
def test_what_is_needed_never_goes(bench: SteppedBench, reach: Callable[[SteppedBench], None]) -> None:
    reach(bench)
    _age(bench, 1000)
    before = _files(bench), [Path(one.path).exists() for job in bench.records.jobs() for one in job.results]
    _ruled(bench, least_free_bytes=1 << 60, largest_spool_bytes=0, least_seconds=0).run()
    assert before == (_files(bench), [Path(one.path).exists() for job in bench.records.jobs() for one in job.results])
    assert _files(bench) == 2


def test_what_a_destination_has_not_committed_itself_to_stays(bench: SteppedBench) -> None:
    _committing(bench)
    _age(bench, 1000)
    _ruled(bench, committing=("archive",)).run()
    assert _files(bench) == 2
    (kept,) = bench.records.kept_studies(["archive"], 0)
    (results,) = bench.records.kept_results(["archive"], 0, [bench.job().id])
    assert (kept.needed_by, results.needed_by) == ("commitment", "commitment")
    bench.change("UPDATE deliveries SET state = 'committed' WHERE destination = 'archive'")
    _ruled(bench, committing=("archive",)).run()
    assert _files(bench) == 0


def _withdrawn(bench: SteppedBench) -> None:
    order = Order("other", "jdoe", datetime.now(UTC), "archive")
    ask_to_withdraw(bench.records, bench.job().id, order)
    bench.finish()


def _delivered_after_all(bench: SteppedBench) -> None:
    bench.destinations["archive"].accepted = tuple(NEEDS)
    steering.ask(bench.records, "replay", bench.job(), "jdoe")
    bench.finish()
    assert bench.job().state == "closed"


def _cancelled(bench: SteppedBench) -> None:
    steering.ask(bench.records, "replay", bench.job(), "jdoe")
    bench.step()
    steering.ask(bench.records, "cancel", bench.job(), "jdoe")
    bench.step(lambda count: count - 1)
    bench.finish()
    assert bench.job().state == "cancelled"


@pytest.mark.parametrize("decide", [_withdrawn, _delivered_after_all, _cancelled])
def test_what_no_destination_took_stays_until_a_person_decides(
    bench: SteppedBench, tmp_path: Path, decide: Callable[[SteppedBench], None]
) -> None:
    _refused(bench)
    folder = Path(bench.job().results[0].path).parents[1]
    _age(bench, 1000)
    bench.retention.run()
    assert folder.exists()
    stays = bench.retention.plan().stays
    assert (list(stays["instances"]), list(stays["results"])) == (["decision"], ["decision"])
    assert "of results: a person is to decide" in " ".join(_command(bench, tmp_path, "--dry-run").split())
    decide(bench)
    _age(bench, 1000)
    bench.retention.run()
    assert not folder.exists()
    assert _files(bench) == 0
    assert bench.account().agrees


def test_a_delivery_that_did_not_fail_its_job_may_be_repeated_for_its_time(bench: SteppedBench) -> None:
    """That of a notice or note: nobody is asked about it."""
    _closed(bench)
    bench.change("UPDATE deliveries SET state = 'failed', code = 'context-refused' WHERE destination = 'archive'")
    (results,) = bench.records.kept_results([], 86_400, [bench.job().id])
    assert results.needed_by == "replay"
    _age(bench, 1000)
    bench.retention.run()
    assert _files(bench) == 0


def test_what_was_delivered_before_commitment_was_asked_for_goes(bench: SteppedBench) -> None:
    _closed(bench)
    _age(bench, 1000)
    (results,) = bench.records.kept_results(["archive"], 0, [bench.job().id])
    assert results.needed_by == ""
    _ruled(bench, committing=("archive",)).run()
    assert _files(bench) == 0


def test_what_failed_may_be_repeated_for_its_time(bench: SteppedBench) -> None:
    assert isinstance(bench.graph, PlantedGraph)

    def fail(run: int) -> None:
        raise GraphFailed("planted", code="graph-crashed")

    bench.graph.plan = fail
    _closed(bench)
    assert bench.job().state == "failed"
    _age(bench, 20)
    rules = {"spool_days": 1, "results_days": 1, "replay_days": 30}
    _ruled(bench, **rules).run()
    assert _files(bench) == 2
    assert _ruled(bench, **rules).plan().stays["instances"] == {"replay": 128}
    _age(bench, 20)
    _ruled(bench, **rules).run()
    assert _files(bench) == 0
    assert bench.account().agrees


def test_what_was_refused_goes_like_what_was_done(bench: SteppedBench) -> None:
    assert isinstance(bench.graph, PlantedGraph)

    def refuse(run: int) -> None:
        raise SeriesRefused("planted", code="planted")

    bench.graph.plan = refuse
    _closed(bench)
    bench.receive_study(2)
    bench.without_job("no-rule")
    _age(bench)
    bench.retention.run()
    assert _files(bench) == 0


def test_old_refused_objects_go(bench: SteppedBench) -> None:
    import os
    import time

    digest = bench.kept.quarantine(b"refused", code="not-dicom")
    path = bench.settings.spool_folder / "quarantine" / f"{digest}.dcm"
    bench.retention.run()
    assert path.exists()
    os.utime(path, (time.time() - 31 * 86_400,) * 2)
    bench.retention.run()
    assert list(path.parent.iterdir()) == []
    assert len(_audited(bench, AuditEvent.REFUSED_REMOVED)) == 1


# --- what comes again -----------------------------------------------------------------------------------------------


def test_a_study_that_comes_again_is_kept_anew_and_already_done(bench: SteppedBench) -> None:
    _closed(bench)
    _age(bench)
    job = bench.job()
    bench.retention.run()
    bench.receive_study(1)
    (series,) = bench.records.undecided_series()
    assert series.revision == 2
    bench.create_jobs()
    bench.finish()
    assert bench.job() == job
    (again,) = bench.records.series()
    assert (again.state, again.reason) == ("routed", f"already-done: job {job.id}")
    assert _files(bench) == 2
    found = bench.account()
    assert found.agrees
    assert found.totals["files"] == {"kept": 2}


def test_a_part_that_comes_again_makes_no_job_of_that_part(bench: SteppedBench) -> None:
    _closed(bench)
    _age(bench)
    bench.retention.run()
    bench.receive(instance(1))
    bench.create_jobs()
    assert len(bench.records.jobs()) == 1
    assert bench.account().agrees


def test_what_is_new_of_a_removed_series_makes_a_job_of_what_is_there(bench: SteppedBench) -> None:
    """And once the whole series is there, of all of it: no job waits for files that are gone."""
    _closed(bench)
    _age(bench)
    bench.retention.run()
    bench.receive(instance(3))
    bench.create_jobs()
    bench.finish()
    first, _ = bench.records.jobs()
    assert (first.state, first.instances) == ("closed", 1)
    bench.receive_study(1)
    bench.create_jobs()
    bench.finish()
    whole = bench.records.jobs()[0]
    assert (whole.state, whole.instances) == ("closed", 3)
    assert bench.account().agrees


def test_a_file_that_came_back_without_its_record_is_adopted(bench: SteppedBench) -> None:
    """The listener was killed between the two."""
    _closed(bench)
    digests = sorted(bench.kept.all_digests())
    _age(bench)
    bench.retention.run()
    uid = instance(1).digest.encode()
    assert bench.kept.keep(uid).digest in digests
    assert [one.code for one in bench.account().discrepancies] == ["file-unrecorded"]
    assert bench.records.unknown_digests(bench.kept.all_digests()) == {bench.kept.keep(uid).digest}


def test_what_is_about_to_be_removed_is_not_adopted(bench: SteppedBench) -> None:
    _closed(bench)
    _age(bench)
    with _killed_before_the_files_go(bench):
        bench.retention.run()
    assert adopt_unrecorded(bench.kept, bench.records, bench.audit) == 0
    assert bench.account().agrees  # recorded as removed, and about to be


# --- crashes --------------------------------------------------------------------------------------------------------


class _Killed(BaseException):
    """The process ended here."""


class _killed_before_the_files_go(suppress):  # noqa: N801 - it reads as a sentence
    def __init__(self, bench: SteppedBench) -> None:
        super().__init__(_Killed)
        self._bench = bench

    def __enter__(self) -> None:
        def remove_all(digests: object, check: object = None) -> None:
            raise _Killed

        self._bench.kept.remove_all = remove_all  # type: ignore[method-assign]

    def __exit__(self, *about: Any) -> bool:
        del self._bench.kept.remove_all
        return bool(super().__exit__(*about))


def test_a_crash_before_the_files_go_is_mended_by_the_next_run(bench: SteppedBench) -> None:
    _closed(bench)
    _age(bench)
    with _killed_before_the_files_go(bench):
        bench.retention.run()
    assert _files(bench) == 2
    bench.retention.run()
    assert _files(bench) == 0
    assert len(_audited(bench, AuditEvent.INSTANCES_REMOVED)) == 1
    assert bench.account().agrees


def test_a_crash_after_the_files_went_is_mended_by_the_next_run(bench: SteppedBench) -> None:
    _closed(bench)
    _age(bench)
    with _killed_before_the_files_go(bench):
        bench.retention.run()
    for digest in list(bench.kept.all_digests()):
        bench.kept.remove(digest)
    assert bench.account().agrees
    bench.retention.run()
    assert bench.records.instances_to_remove(10) == []
    assert bench.account().agrees


def test_what_comes_again_after_a_crash_stays(bench: SteppedBench) -> None:
    _closed(bench)
    _age(bench)
    with _killed_before_the_files_go(bench):
        bench.retention.run()
    bench.receive(instance(1))
    bench.retention.run()
    assert _files(bench) == 1
    assert bench.account().agrees


def test_a_result_of_a_job_that_works_again_stays(bench: SteppedBench) -> None:
    _closed(bench)
    _age(bench, 100)
    with bench.records.transaction() as connection:
        bench.records.mark_results(connection, bench.job().id)
    bench.change("UPDATE jobs SET state = 'queued'")
    bench.retention.run()
    assert Path(bench.job().results[0].path).exists()


def test_nothing_goes_that_can_not_be_audited(bench: SteppedBench) -> None:
    _closed(bench)
    _age(bench)
    bench.audit.close()
    with pytest.raises(AuditError):
        bench.retention.run()
    bench.audit.open()
    assert _files(bench) == 2
    assert bench.account().agrees


def test_one_process_removes_at_a_time(bench: SteppedBench) -> None:
    _closed(bench)
    _age(bench)
    with own_turn(bench.records.url, RETENTION) as has_turn:
        assert has_turn
        assert not bench.retention.run()
        assert _files(bench) == 2
    bench.retention.run()
    assert _files(bench) == 0


def _cut(bench: SteppedBench) -> None:
    """End the transactions that say nothing, as the database does after a while."""
    with bench.records.transaction() as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND state = 'idle in transaction'"
        ).fetchall()
    assert len(ended) == 1


def test_what_comes_again_while_its_file_goes_slowly_is_not_acknowledged(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage may take longer than a transaction may say nothing."""
    monkeypatch.setattr(connections, "_SILENT_SECONDS", 1)
    answers: list[bool] = []
    with fresh_database(postgres) as url, stepped_bench(tmp_path, url, graph=PlantedGraph()) as bench:

        def come_again() -> None:  # as the listener does it
            kept = bench.kept.keep(instance(1).digest.encode())
            bench.records.record_instance(replace(instance(1), digest=kept.digest, size_bytes=kept.size_bytes))
            answers.append(bench.kept.holds(kept))

        sender = threading.Thread(target=come_again)
        remove_all = bench.kept.remove_all

        def slowly(digests: Collection[str], check: Callable[[], None]) -> None:
            sender.start()
            sender.join(4)
            remove_all(digests, check)

        monkeypatch.setattr(bench.kept, "remove_all", slowly)
        _closed(bench)
        _age(bench)
        assert not bench.retention.run()
        sender.join()
        assert answers == [False]  # the sender is told to send it again
        bench.receive(instance(1))
        assert bench.account().agrees


def test_nothing_more_goes_once_the_lock_is_lost(bench: SteppedBench, monkeypatch: pytest.MonkeyPatch) -> None:
    _closed(bench)
    _age(bench)
    remove_all = bench.kept.remove_all

    def cut_between(digests: Collection[str], check: Callable[[], None]) -> None:
        checked: list[None] = []

        def cut() -> None:
            if checked:
                _cut(bench)
            checked.append(None)
            check()

        remove_all(digests, cut)

    with monkeypatch.context() as patched:
        patched.setattr(bench.kept, "remove_all", cut_between)
        with pytest.raises(psycopg.OperationalError):
            bench.retention.run()
    assert _files(bench) == 1
    bench.retention.run()
    assert _files(bench) == 0
    assert bench.account().agrees


class _SlowPlan:
    """A plan that takes as long as `wait` does, as one of very many results."""

    def __init__(self, bench: SteppedBench, wait: Callable[[], None]) -> None:
        self._plan = bench.retention.plan
        self._wait = wait
        bench.retention.plan = self  # type: ignore[method-assign]

    def __call__(self) -> Plan:
        plan = self._plan()
        self._wait()
        return plan


def test_a_plan_that_takes_long_leaves_time_to_remove(bench: SteppedBench, monkeypatch: pytest.MonkeyPatch) -> None:
    for study in range(6):
        _closed(bench, study)
    _age(bench, 100)
    passed = [0.0]
    monkeypatch.setattr("app.jobs.retention.time", SimpleNamespace(monotonic=lambda: passed[0]))
    _SlowPlan(bench, lambda: passed.__setitem__(0, passed[0] + 60.0))
    assert len(bench.retention.plan().removals) == 12
    assert not bench.retention.run(seconds=5.0)
    assert _files(bench) == 0
    assert bench.account().agrees


def test_a_plan_outlasts_what_the_database_allows_an_idle_transaction(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else removes meanwhile, and whoever does says so."""
    monkeypatch.setattr(presence, "_SILENT_SECONDS", 2)
    monkeypatch.setattr(connections, "_SILENT_SECONDS", 1)
    others: list[bool] = []
    with fresh_database(postgres) as url, stepped_bench(tmp_path, url, graph=PlantedGraph()) as bench:

        def wait() -> None:
            time.sleep(4)
            with own_turn(bench.records.url, RETENTION) as has_turn:
                others.append(has_turn)

        _closed(bench)
        _age(bench, 100)
        _SlowPlan(bench, wait)
        assert not bench.retention.run()
        assert others == [False]
        assert _files(bench) == 0
        with own_turn(bench.records.url, RETENTION) as has_turn:
            assert has_turn


# --- the task, and room ---------------------------------------------------------------------------------------------


def _unrecorded(bench: SteppedBench, days: float, job_id: uuid.UUID | None = None) -> Path:
    """A folder of results of which no job is recorded: who wrote it died before."""
    folder = bench.settings.results_folder / str(job_id or uuid.uuid4())
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "specialist-segmentation.dcm").write_bytes(b"written")
    then = time.time() - days * 86400
    for path in (folder / "1" / "specialist-segmentation.dcm", folder / "1", folder):
        os.utime(path, (then, then))
    return folder


def test_old_results_that_no_job_knows_go_with_an_audit_line(bench: SteppedBench) -> None:
    _closed(bench)
    old, young = _unrecorded(bench, 91), _unrecorded(bench, 89)
    not_ours = bench.settings.results_folder / "somebody's own"
    not_ours.mkdir()
    plan = bench.retention.plan()
    assert [(one.what, one.why, one.count, one.bytes) for one in plan.removals] == [("unrecorded", "age", 1, 7)]
    assert plan.stays["results"]["unrecorded"] == 7
    bench.retention.run()
    assert not old.exists()
    assert young.is_dir()
    assert not_ours.is_dir()
    (said,) = _audited(bench, AuditEvent.RESULTS_REMOVED)
    assert said["job_id"] == old.name
    assert said["reason"] == "older than the settings keep it, and no job knows it"
    assert bench.account().agrees
    bench.retention.run()
    assert len(_audited(bench, AuditEvent.RESULTS_REMOVED)) == 1


@pytest.mark.parametrize("comes", ["job", "files"])
def test_results_that_a_job_comes_for_after_the_plan_stay(bench: SteppedBench, comes: str) -> None:
    bench.receive_study(1)
    folder = _unrecorded(bench, 91)
    plan = bench.retention.plan()
    if comes == "job":
        bench.create_jobs()
        shutil.rmtree(folder)
        folder = _unrecorded(bench, 91, bench.job().id)
        plan = replace(plan, removals=tuple(replace(one, job_id=bench.job().id) for one in plan.removals))
    else:
        (folder / "1" / "specialist-segmentation.dcm").write_bytes(b"written anew")
    (removal,) = plan.removals
    bench.retention._remove(removal)
    bench.retention.run()
    assert folder.is_dir()
    assert _audited(bench, AuditEvent.RESULTS_REMOVED) == []


def test_want_of_room_takes_nothing_that_no_job_knows(bench: SteppedBench) -> None:
    folder = _unrecorded(bench, 1)
    _ruled(bench, least_free_bytes=1 << 60, least_seconds=0.0).run()
    assert folder.is_dir()


def test_a_request_is_one_task_that_goes_on_until_all_is_removed(bench: SteppedBench) -> None:
    for study in range(5):
        _closed(bench, study)
    _age(bench)
    ask_for_retention(bench.records)
    ask_for_retention(bench.records)
    assert bench.queued_tasks() == [("retain", "todo")]
    assert bench.records.retention_is_asked_for()
    bench.finish()
    assert _files(bench) == 0
    assert not bench.records.retention_is_asked_for()


def _queued_first(bench: SteppedBench) -> tuple[int, bool]:
    """Priority of the task that a worker takes first, and whether it may start now."""
    with bench.records.transaction() as connection:
        row = connection.execute(
            "SELECT priority, coalesce(scheduled_at <= now(), true) AS is_due FROM procrastinate_jobs "
            "WHERE status = 'todo' ORDER BY scheduled_at > now() NULLS FIRST, priority DESC, id LIMIT 1"
        ).fetchone()
    assert row is not None
    return row["priority"], row["is_due"]


@pytest.mark.parametrize("how", ["watch", "command"])
def test_an_urgent_request_does_not_wait_behind_the_hourly_one(bench: SteppedBench, tmp_path: Path, how: str) -> None:
    _closed(bench, 1)
    _age(bench)
    ask_for_retention(bench.records)  # it waits: behind all else, or for a storage that was away
    bench.change("UPDATE procrastinate_jobs SET scheduled_at = now() + interval '1 minute' WHERE status = 'todo'")
    for _ in range(2):
        if how == "watch":
            ask_for_retention(bench.records, is_urgent=True)
        else:
            _command(bench, tmp_path, "--now")
    assert bench.queued_tasks() == [("retain", "todo"), ("retain", "todo")]
    priority, is_due = _queued_first(bench)
    assert priority > 0
    assert is_due
    bench.finish()
    assert _files(bench) == 0


def _next_task(bench: SteppedBench) -> str:
    """Take the task from the queue that a worker takes first."""
    with bench.records.transaction() as connection:
        row = connection.execute(
            "DELETE FROM procrastinate_jobs WHERE id = (SELECT id FROM procrastinate_jobs WHERE status = 'todo' "
            "ORDER BY priority DESC, id LIMIT 1) RETURNING task_name"
        ).fetchone()
    return "" if row is None else str(row["task_name"])


def test_what_waits_has_its_turn_between_the_runs_of_an_urgent_removal(bench: SteppedBench) -> None:
    watch = RetentionWatch(settings=bench.settings, records=bench.records, retention=bench.retention)
    bench.retention.is_short_of_room = lambda: True  # type: ignore[method-assign]
    bench.retention.run = lambda seconds=0.0: True  # type: ignore[method-assign]
    with bench.records.transaction() as connection:
        for _ in range(2):
            TaskQueue().defer_close(connection, uuid.uuid4())
    watch.look()
    assert _next_task(bench) == "retain"  # at once
    watch.look()  # while it runs
    bench.retention.run_and_go_on()
    assert [_next_task(bench) for _ in range(4)] == ["close", "close", "retain", ""]


def test_room_that_lacks_anew_is_urgent_anew(bench: SteppedBench) -> None:
    watch = RetentionWatch(settings=bench.settings, records=bench.records, retention=bench.retention)
    with bench.records.transaction() as connection:
        TaskQueue().defer_close(connection, uuid.uuid4())
    for _ in range(2):
        for is_short in (False, True):
            bench.retention.is_short_of_room = lambda short=is_short: short  # type: ignore[method-assign, misc]
            watch.look()
        assert _next_task(bench) == "retain"


def test_a_run_that_takes_too_long_goes_on_later(bench: SteppedBench) -> None:
    for study in range(3):
        _closed(bench, study)
    _age(bench)
    runs = 1
    while bench.retention.run(seconds=0):
        runs += 1
        assert runs < 50
    assert _files(bench) == 0


def test_for_room_the_study_goes_that_was_left_alone_longest(bench: SteppedBench) -> None:
    for study in range(4):
        _closed(bench, study)
        _age(bench, 1)
    bench.receive_study(4)
    kept = [path for study in (2, 3, 4) for path in bench.spooled(study)]
    _ruled(bench, largest_spool_bytes=6 * 64).run()
    assert sorted(bench.kept.all_digests()) == sorted(path.stem for path in kept)
    assert bench.account().agrees


@pytest.mark.parametrize("seed", range(3))
def test_nothing_that_lives_is_ever_touched(bench: SteppedBench, seed: int) -> None:
    """Random work, and a retention that would remove everything if it could."""
    chance = random.Random(seed)
    greedy = _ruled(bench, largest_spool_bytes=0, least_seconds=0, least_free_bytes=1 << 60)
    for turn in range(40):
        match chance.randrange(4):
            case 0:
                bench.receive_study(chance.randrange(6))
            case 1:
                bench.create_jobs()
            case 2:
                bench.step(chance.randrange)
            case _:
                greedy.run()
        assert bench.account().discrepancies == (), turn
    bench.create_jobs()
    bench.finish()
    assert {one.state for one in bench.records.jobs()} <= {"closed"}
    assert replace(bench.account(), totals={}).agrees


# --- the command ----------------------------------------------------------------------------------------------------


def _command(bench: SteppedBench, tmp_path: Path, *arguments: str) -> str:
    path = tmp_path / "limner.toml"
    path.write_text(f'data_folder = "."\n[database]\nurl = "{bench.records.url}"\n[listener]\nlow_water_bytes = 0\n')
    ran = CliRunner().invoke(app, ["retention", "--settings", str(path), *arguments])
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def test_the_command_says_what_would_go_and_why_the_rest_stays(bench: SteppedBench, tmp_path: Path) -> None:
    _closed(bench, 1)
    _age(bench)
    bench.receive_study(2)
    plan = json.loads(_command(bench, tmp_path, "--json"))
    assert [(one["what"], one["why"], one["count"]) for one in plan["removals"]] == [("instances", "age", 2)]
    assert plan["stays"]["instances"] == {"receiving": 128}
    said = _command(bench, tmp_path, "--dry-run")
    assert "would go: 1 entries, 128 bytes" in said
    assert "stays: 128 bytes of instances: being received or decided" in said
    assert _files(bench) == 4
    assert bench.queued_tasks() == []


def test_the_command_has_the_server_remove_it(bench: SteppedBench, tmp_path: Path) -> None:
    _closed(bench, 1)
    _age(bench)
    assert "no worker runs" in _command(bench, tmp_path, "--now")
    bench.finish()
    assert _files(bench) == 0
