"""Three worker processes on one database, killed again and again, one of them for good; one stopped and continued."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.chaos.figures import Figures
from tests.chaos.workers import (
    LIMITS,
    TAKE_OVER_SECONDS,
    WorkerProcess,
    audit_problems,
    create_jobs,
    read_history,
    wait_until,
)
from tests.database_fixture import fresh_database
from tests.job_harness import DESTINATIONS, Bench, instance

_PROMISE = "5. Workers killed"
_GRAPH_SECONDS = 0.2
_NAMES = ("a", "b", "c")


@contextmanager
def _workers(folder: Path, url: str, seconds: float) -> Iterator[list[WorkerProcess]]:
    workers = [WorkerProcess(folder, url, name, seconds) for name in _NAMES]
    try:
        for one in workers:
            one.start()
        wait_until(lambda: len(list(folder.glob("started.*"))) == len(_NAMES), 180, "all workers work")
        yield workers
    finally:
        for one in workers:
            one.end()


def _closed(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM jobs WHERE state = 'closed'").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.timeout(1800)
def test_each_job_ends_once_whatever_dies(tmp_path: Path, postgres: Any, figures: Figures) -> None:
    jobs, kills = figures.of(short=60, full=2000), figures.of(short=4, full=50)
    with fresh_database(postgres) as url:
        made = Bench(tmp_path, url)
        with made.records:
            with made.audit:
                create_jobs(made, jobs)
            with _workers(tmp_path, url, _GRAPH_SECONDS) as workers:
                killed = _kill_again_and_again(tmp_path, url, workers, jobs, kills)
                wait_until(lambda: _closed(url) == jobs, 300, "all jobs are closed")
                # while workers live: what the last one killed held is taken over, and a task ends after what it records
                with contextlib.suppress(AssertionError):
                    wait_until(lambda: not made.queued_tasks(), 60, "no task is left")
                assert made.queued_tasks() == []
            figures.show(_PROMISE, "workers killed, one of three for good", seen=len(killed), exactly=kills)
            figures.show(_PROMISE, "jobs that ended closed", seen=_closed(url), exactly=jobs)
            _check_once(made, figures, jobs, kills)
            _check_take_over(tmp_path, killed, figures)
    assert audit_problems(made, _NAMES) == []


def _kill_again_and_again(
    folder: Path, url: str, workers: Sequence[WorkerProcess], jobs: int, kills: int
) -> list[tuple[int, float]]:
    """Kill one after another, each time some jobs were done; in the middle one is not started again."""
    killed, alive = [], list(workers)
    for number in range(kills):
        least = (number + 1) * jobs // (kills + 2)
        wait_until(lambda: _closed(url) >= least, 240, "work goes on")  # noqa: B023 - it is called in this turn
        time.sleep(random.uniform(0, 0.3))
        busy = {one.process for one in read_history(folder) if one.ended is None}
        victims = [one for one in alive if one.running]
        victim = random.choice([one for one in victims if one.process in busy] or victims)
        killed.append((victim.process, victim.kill()))
        if number == kills // 2:
            alive.remove(victim)
        else:
            victim.start()
    assert _closed(url) < jobs, "killed too late to show anything"
    return killed


def _check_once(made: Bench, figures: Figures, jobs: int, kills: int) -> None:
    found = made.records.jobs(jobs + 1)
    results = Counter(one.job_id for job in found for one in job.results)
    figures.show(_PROMISE, "jobs with other than one result", seen=sum(n != 1 for n in results.values()), exactly=0)
    digests = {one.digest for job in found for one in job.results}
    assert len(digests) == jobs
    for destination in DESTINATIONS:
        recorded = [one for job in found for one in job.deliveries if one.destination == destination]
        assert [one.state for one in recorded] == ["delivered"] * jobs
        got = made.destinations[destination].got()
        assert set(got) == digests, "never the bytes of another run"
        assert len(got) <= jobs + kills  # at most the one whose outcome a kill hid goes again


def _check_take_over(folder: Path, killed: Sequence[tuple[int, float]], figures: Figures) -> None:
    runs = read_history(folder)
    waited = []
    for process, moment in killed:
        for lost in (one for one in runs if one.process == process and one.ended is None and one.began <= moment):
            again = [one.began for one in runs if one.job == lost.job and one.began > moment]
            waited.append(min(again) - moment)
    assert waited, "no run was interrupted"
    figures.show(_PROMISE, "runs lost with their worker and taken over", seen=len(waited), least=1)
    figures.show(
        _PROMISE,
        f"longest take-over, s, with {LIMITS.dead_after_seconds:g} s until a worker counts as dead",
        seen=max(waited),
        most=TAKE_OVER_SECONDS if figures.is_full else 10 * TAKE_OVER_SECONDS,  # every run may be a busy one
    )
    figures.show(_PROMISE, "take-overs before that time", seen=_early(runs, killed), exactly=0)


def _early(runs: Sequence[Any], killed: Sequence[tuple[int, float]]) -> int:
    """Count the runs that began while an earlier one of the same job was under way in a process that lived."""
    died = dict(killed)
    early = 0
    for one in runs:
        others = [other for other in runs if other.job == one.job and other.began < one.began]
        early += any(
            (other.ended is None or other.ended > one.began) and died.get(other.process, one.began + 1) > one.began
            for other in others
        )
    return early


@pytest.mark.timeout(120)
def test_a_worker_that_was_stopped_writes_nothing(tmp_path: Path, postgres: Any, figures: Figures) -> None:
    with fresh_database(postgres) as url:
        made = Bench(tmp_path, url)
        with made.records, _workers(tmp_path, url, 2.0) as workers:
            with made.audit:
                create_jobs(made, 1)
            wait_until(lambda: len(read_history(tmp_path)) == 1, 20, "the graph runs")
            (lost,) = read_history(tmp_path)
            (zombie,) = (one for one in workers if one.process == lost.process)
            zombie.pause()
            took = wait_until(lambda: len(read_history(tmp_path)) == 2, 30, "the job runs elsewhere")
            zombie.go_on()
            wait_until(lambda: read_history(tmp_path)[0].ended is not None or made.all_ended(), 20, "it went on")
            wait_until(made.all_ended, 20, "the job ends")
            job = made.job()
            by_zombie = [one for one in job.results if one.attempt == lost.attempt]
            figures.show(_PROMISE, "results of a worker that was stopped and went on", seen=len(by_zombie), exactly=0)
            assert (job.state, len(job.results)) == ("closed", 1)
            assert took <= (1 if figures.is_full else 10) * TAKE_OVER_SECONDS
            with made.audit:
                _create_more_jobs(made)
            wait_until(lambda: zombie.process in {one.process for one in read_history(tmp_path)[2:]}, 30, "it works on")
            wait_until(made.all_ended, 30, "all end")
    assert audit_problems(made, _NAMES) == []


def _create_more_jobs(made: Bench) -> None:
    """Give every worker something to do."""
    for series in range(10, 16):
        made.receive(instance(1, series=series))
    made.create_jobs()
