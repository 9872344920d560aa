"""What fails for the host's sake, on a real PostgreSQL: it is waited for; neither a job nor a series is to blame."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pydicom
import pytest
import structlog
from procrastinate.exceptions import ConnectorException

from app.errors import AuditError, StorageError
from app.graph import CompletionRecord
from app.jobs import verification
from app.jobs.probing import DestinationProbing
from app.jobs.queue import TaskQueue
from app.jobs.records import Delivery, Job
from app.jobs.retention import RetentionWatch
from app.jobs.verification import VerifiedObject
from app.routing.completion import CompletionScanner
from app.routing.rules import RuleSet
from app.routing.waiting import explain_waiting
from operators.headers import read_before_pixels
from tests.contract.test_postgresql_completion import receive
from tests.database_fixture import fresh_database
from tests.huge_values import add_private_value
from tests.job_harness import Bench, PlantedDestination, PlantedGraph, bench, instance
from tests.job_harness import verify as planted_verify
from tests.stepped_bench import SteppedBench, stepped_bench


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


def _full_at_first(run: int) -> None:
    if run <= 2:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_without_room_is_waited_for_and_costs_no_attempt(tmp_path: Path, url: str) -> None:
    graph = PlantedGraph(plan=_full_at_first)
    with bench(tmp_path, url, graph=graph) as made:
        made.receive(instance(1))
        made.create_jobs()
        made.work(made.all_ended)
        assert (made.job().state, graph.runs) == ("closed", 3)
        assert made.job().code in ("", None)


@pytest.mark.parametrize("fault", [OSError(errno.ESTALE, os.strerror(errno.ESTALE)), MemoryError()])
def test_a_host_that_can_not_read_results_back_is_waited_for_and_costs_no_attempt(
    fault: Exception, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise fault

    def verified(record: CompletionRecord, folder: Path, files: Sequence[Path]) -> tuple[VerifiedObject, ...]:
        if graph.runs <= 2:
            verification.verify_results(record, folder, files)
        return planted_verify(record, folder, files)

    monkeypatch.setattr(verification, "read_before_pixels", fail)
    graph = PlantedGraph()
    with bench(tmp_path, url, graph=graph, verify=verified) as made:
        made.receive(instance(1))
        made.create_jobs()
        made.work(made.all_ended)
        assert (made.job().state, made.job().code, graph.runs, made.job().tries) == ("closed", "", 3, 1)


def test_instances_of_a_spool_that_is_not_mounted_are_not_missing(tmp_path: Path, url: str) -> None:
    with stepped_bench(tmp_path, url, graph=PlantedGraph()) as made:
        made.receive(instance(1))
        made.create_jobs()
        away = tmp_path / "away"
        shutil.move(made.settings.spool_folder, away)
        until = time.monotonic() + 3
        made.work(lambda: time.monotonic() > until and made.job().state in ("queued", "failed"))
        assert made.job().state == "queued", made.job().reason
        shutil.move(away, made.settings.spool_folder)
        made.work(made.all_ended)
        assert made.job().state == "closed", made.job().reason


def test_a_host_without_its_spool_leaves_the_work_to_the_others(tmp_path: Path, url: str) -> None:
    rule = {"destinations": ()}
    with (
        bench(tmp_path / "well", url, graph=PlantedGraph(seconds=0.5), rule=rule) as well,
        bench(tmp_path / "sick", url, name="sick", rule=rule) as sick,
    ):
        shutil.rmtree(sick.settings.spool_folder)
        for series in range(6):
            well.receive(instance(1, series=series))
            well.create_jobs()
        working = threading.Thread(target=sick.work, args=(well.all_ended,))
        working.start()
        _until(lambda: any(job.attempt for job in well.records.jobs()))
        waiting = [job for job in well.records.jobs() if job.code]
        assert all((job.state, job.code) == ("queued", "disk-failed") for job in waiting)
        well.work(well.all_ended, seconds=15)
        working.join()
        assert {job.state for job in well.records.jobs()} == {"closed"}


def _until(held: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not held():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _scanner(made: Bench, spool: Path) -> CompletionScanner:
    return CompletionScanner(
        settings=made.settings,
        records=made.records,
        audit=made.audit,
        rules=RuleSet(made.settings.rule),
        spool_path_of=lambda digest: spool / f"{digest}.dcm",
        create_job=made.workflow.create_job,
        create_study_job=made.workflow.create_study_job,
    )


def test_a_file_that_the_disk_does_not_give_keeps_only_its_own_series_waiting(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1, series=1)
        receive(made, 2, series=2)
        (first, _) = made.records.undecided_series()
        path = made.spool / f"{first.header_digest}.dcm"
        kept = path.read_bytes()
        path.unlink()
        path.symlink_to(path.name)  # it can't be opened: a loop
        scanner = _scanner(made, made.spool)
        _until(lambda: scanner.scan() == 1)
        (left,) = made.records.undecided_series()
        assert left.series_instance_uid == first.series_instance_uid
        (verdict,) = explain_waiting([left], made.settings).values()
        assert "can't be used" in verdict.waits_for
        path.unlink()
        path.write_bytes(kept)
        _until(lambda: scanner.scan() == 1)
        assert {one.state for one in made.records.series()} == {"routed"}


def test_a_series_that_waits_for_its_study_says_that_its_file_can_not_be_had(tmp_path: Path, url: str) -> None:
    with (
        bench(tmp_path, url, rule={"after": "study"}) as made,
        structlog.testing.capture_logs() as logs,
    ):
        receive(made, 1)
        scanner = _scanner(made, made.spool)
        (seen,) = made.records.undecided_series()
        assert made.records.conclude_series(seen, "waiting-for-study", rule="every")
        (waiting,) = made.records.undecided_series()
        path = made.spool / f"{waiting.header_digest}.dcm"
        kept = path.read_bytes()
        path.unlink()
        path.symlink_to(path.name)  # it can't be opened: a loop
        _until(lambda: scanner.scan() == 0 and any(one["event"] == "completion.put_off" for one in logs))
        assert [scanner.scan() for _ in range(3)] == [0, 0, 0]
        (verdict,) = explain_waiting(made.records.undecided_series(), made.settings).values()
        assert "can't be used" in verdict.waits_for
        assert len([one for one in logs if one["event"] == "completion.put_off"]) == 1
        path.unlink()
        path.write_bytes(kept)
        _until(lambda: scanner.scan() == 1)
        assert [(one.state, one.waits_for) for one in made.records.series_of_study(waiting.study_instance_uid)] == [
            ("routed", None)
        ]


def test_memory_that_is_short_keeps_only_the_series_waiting_that_needs_it(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1, series=1)
        receive(made, 2, series=2)
        (first, _) = made.records.undecided_series()
        original = read_before_pixels

        def read(path: Path, *rest: Any) -> Any:
            if path.stem == first.header_digest:
                raise MemoryError
            return original(path, *rest)

        scanner = _scanner(made, made.spool)
        with monkeypatch.context() as patched:
            patched.setattr("app.routing.rules.read_before_pixels", read)
            _until(lambda: scanner.scan() == 1)
            (left,) = made.records.undecided_series()
            (verdict,) = explain_waiting([left], made.settings).values()
            assert left.series_instance_uid == first.series_instance_uid
            assert "memory" in verdict.waits_for
        _until(lambda: scanner.scan() == 1)
        assert {one.state for one in made.records.series()} == {"routed"}


def test_values_of_gigabytes_are_not_read_to_decide(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1)
        (series,) = made.records.undecided_series()
        add_private_value(made.spool / f"{series.header_digest}.dcm")
        scanner = _scanner(made, made.spool)
        tracemalloc.start()
        try:
            _until(lambda: scanner.scan() == 1)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 64 << 20
        assert [one.state for one in made.records.series()] == ["routed"]


def _sent_at_once(made: SteppedBench) -> tuple[Job, PlantedDestination]:
    """A job whose object is begun to be sent to the archive by hand, as the test wants it."""
    made.receive(instance(1))
    made.create_jobs()
    made.step()
    return made.job(), made.destinations["archive"]


def _is_untouched(made: Bench, before: Delivery) -> bool:
    """Whether a delivery waits as before, but for the number of the attempt, which is a fence."""
    now = made.job().deliveries[0]
    return (now.state, now.tries, now.is_unknown, now.code) == ("waiting", before.tries, before.is_unknown, before.code)


def test_storage_that_is_away_when_an_object_is_to_be_sent_costs_no_attempt(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stepped_bench(tmp_path, url, graph=PlantedGraph(), rule={"destinations": ("archive",)}) as made:
        job, archive = _sent_at_once(made)
        original, calls = made.files.file_of, iter(range(100))

        def file_of(*place: Any) -> Path:
            if next(calls) == 1:  # it went away after the association had been opened
                raise StorageError("the shared storage does not answer")
            return original(*place)

        monkeypatch.setattr(made.files, "file_of", file_of)
        with pytest.raises(StorageError):
            made.workflow._delivering.run("archive", "task 1")
        assert _is_untouched(made, job.deliveries[0])
        made.workflow._delivering.run("archive", "task 1")
        assert archive.got() == [job.results[0].digest]
        assert made.job().deliveries[0].tries == 1


def test_a_disk_that_does_not_give_a_result_costs_no_attempt(tmp_path: Path, url: str) -> None:
    with stepped_bench(tmp_path, url, graph=PlantedGraph(), rule={"destinations": ("archive",)}) as made:
        job, archive = _sent_at_once(made)
        path = Path(job.results[0].path)
        kept = path.read_bytes()
        path.unlink()
        path.symlink_to("/proc/self/mem")  # a file whose first bytes can't be read: EIO
        with pytest.raises(StorageError, match="can't be used"):
            made.workflow._delivering.run("archive", "task 1")
        assert _is_untouched(made, job.deliveries[0])
        path.unlink()
        path.write_bytes(kept)
        made.workflow._delivering.run("archive", "task 1")
        assert archive.got() == [job.results[0].digest]


def test_an_audit_log_that_can_not_be_written_costs_no_attempt(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stepped_bench(tmp_path, url, graph=PlantedGraph(), rule={"destinations": ("archive",)}) as made:
        job, archive = _sent_at_once(made)

        def fail(*_: object, **__: object) -> None:
            raise AuditError("no room", code="audit-unwritable")

        with monkeypatch.context() as patched:
            patched.setattr(made.audit, "append", fail)
            with pytest.raises(AuditError):
                made.workflow._delivering.run("archive", "task 1")
        assert _is_untouched(made, job.deliveries[0])
        made.workflow._delivering.run("archive", "task 1")
        assert archive.got() == [job.results[0].digest]


def test_a_header_that_the_toolkit_stumbles_over_is_unreadable_whatever_it_says(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1, series=1)

        def stumble(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(pydicom, "dcmread", stumble)
        _until(lambda: _scanner(made, made.spool).scan() == 1)
        assert [one.state for one in made.records.series()] == ["unreadable"]


def test_a_database_that_fails_the_queue_ends_no_service(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectorException

    monkeypatch.setattr(TaskQueue, "defer_segment", fail)
    monkeypatch.setattr(TaskQueue, "defer_retain", fail)
    with stepped_bench(tmp_path, url, graph=PlantedGraph()) as made:
        receive(made, 1)
        watch = RetentionWatch(settings=made.settings, records=made.records, retention=made.retention)
        monkeypatch.setattr(made.retention, "is_short_of_room", lambda: True)

        async def run() -> None:
            stop = asyncio.Event()
            services = [
                asyncio.create_task(_scanner(made, made.spool).run(stop)),
                asyncio.create_task(watch.run(stop)),
                asyncio.create_task(
                    DestinationProbing(settings=made.settings, records=made.records, destinations={}).run(stop)
                ),
            ]
            await asyncio.sleep(1)
            assert [one.done() for one in services] == [False, False, False]
            stop.set()
            await asyncio.gather(*services)

        asyncio.run(run())
