"""What fails for the host's sake, on a real PostgreSQL: it is waited for; neither a job nor a series is to blame."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from procrastinate.exceptions import ConnectorException

from app.jobs.probing import DestinationProbing
from app.jobs.queue import TaskQueue
from app.jobs.retention import RetentionWatch
from app.routing.completion import CompletionScanner
from app.routing.rules import RuleSet
from app.routing.waiting import explain_waiting
from tests.contract.test_postgresql_completion import receive
from tests.database_fixture import fresh_database
from tests.job_harness import Bench, PlantedGraph, bench, instance
from tests.stepped_bench import stepped_bench


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
        path = made.spool / f"{first.lowest_digest}.dcm"
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
