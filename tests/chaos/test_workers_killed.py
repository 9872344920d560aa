"""Three worker processes on one database, killed again and again, one of them for good."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from tests.chaos.figures import Figures
from tests.chaos.workers import (
    LIMITS,
    TAKE_OVER_SECONDS,
    End,
    Run,
    WorkerProcess,
    audit_ends,
    audit_problems,
    create_jobs,
    read_history,
    wait_until,
)
from tests.database_fixture import fresh_database
from tests.job_harness import DESTINATIONS, Bench

_PROMISE = "5. Workers killed"
_GRAPH_SECONDS = 0.2
_NAMES = ("a", "b", "c")
_AUDITED_BEFORE = timedelta(seconds=3)
"""So long before its death a worker may have written that a job is closed without having closed it."""


class _Kill(NamedTuple):
    """A worker's death, by the monotonic clock and by the one that audit entries have."""

    worker: str
    process: int
    moment: float
    time: datetime


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
            audited = audit_ends(made, _NAMES)
            ids = {str(one.id) for one in made.records.jobs(jobs + 1)}
            _check_audit(ids, audited, killed, figures)
    assert audit_problems(made, _NAMES) == []


def _kill_again_and_again(
    folder: Path, url: str, workers: Sequence[WorkerProcess], jobs: int, kills: int
) -> list[_Kill]:
    """Kill one after another, each time some jobs were done; in the middle one is not started again."""
    killed, alive = [], list(workers)
    for number in range(kills):
        least = (number + 1) * jobs // (kills + 2)
        wait_until(lambda: _closed(url) >= least, 240, "work goes on")  # noqa: B023 - it is called in this turn
        time.sleep(random.uniform(0, 0.3))
        victims = [one for one in alive if one.running]
        if number % 2 == 0:  # else whatever it is at
            wait_until(lambda: bool(_busy(folder, victims)), 60, "a graph runs")  # noqa: B023 - it is called in this turn
        victim = random.choice(_busy(folder, victims) or victims)
        killed.append(_Kill(victim.name, victim.process, victim.kill(), datetime.now(UTC)))
        if number == kills // 2:
            alive.remove(victim)
        else:
            victim.start()
    assert _closed(url) < jobs, "killed too late to show anything"
    return killed


def _busy(folder: Path, workers: Sequence[WorkerProcess]) -> list[WorkerProcess]:
    running = {one.process for one in read_history(folder) if one.ended is None}
    return [one for one in workers if one.process in running]


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


def _check_audit(jobs: set[str], ends: Mapping[str, Sequence[End]], killed: Sequence[_Kill], figures: Figures) -> None:
    """Each job is closed by one entry; a second follows where a worker was killed between its entry and the record."""
    other = [one for one in jobs if {end.event for end in ends.get(one, ())} != {"JOB_CLOSED"}]
    figures.show(
        _PROMISE, "jobs that the audit log does not call closed, or also ended otherwise", seen=len(other), exactly=0
    )
    unexplained = 0
    for said in ends.values():
        *earlier, _ = sorted(said, key=lambda end: end.time)
        unexplained += sum(not any(_is_cut_off(end, kill) for kill in killed) for end in earlier)
    figures.show(
        _PROMISE, "second closing entries of a job, but where a kill came upon the first", seen=unexplained, exactly=0
    )
    assert ends.keys() == jobs


def _is_cut_off(end: End, kill: _Kill) -> bool:
    return end.worker == kill.worker and timedelta(0) <= kill.time - end.time < _AUDITED_BEFORE


def _check_take_over(folder: Path, killed: Sequence[_Kill], figures: Figures) -> None:
    runs = read_history(folder)
    waited = []
    for _, process, moment, _ in killed:
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
    if figures.is_full:  # a worker that other tests keep from its beats is rightly taken for dead soon after its kill
        beats = 2 * LIMITS.heartbeat_seconds  # the last sign of life was before the kill, by one on an idle machine
        figures.show(
            _PROMISE,
            "shortest take-over, s, with that less two heartbeats",
            seen=min(waited),
            least=LIMITS.dead_after_seconds - beats,
        )
    figures.show(_PROMISE, "runs begun while a living worker ran the job", seen=_doubled(runs, killed), exactly=0)


def _doubled(runs: Sequence[Run], killed: Sequence[_Kill]) -> int:
    """Count the runs that began while an earlier one of the same job was under way in a process that lived."""
    died = {one.process: one.moment for one in killed}
    doubled = 0
    for one in runs:
        others = [other for other in runs if other.job == one.job and other.began < one.began]
        doubled += any(
            (other.ended is None or other.ended > one.began) and died.get(other.process, one.began + 1) > one.began
            for other in others
        )
    return doubled
