"""Slots for graphs over several workers are never exceeded, and what is urgent gets the next free one."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Container, Sequence
from functools import partial
from pathlib import Path

import pytest

from app.jobs import queue
from tests.chaos.figures import Figures
from tests.chaos.planted_worker import Run, running, runs, workers
from tests.database_fixture import fresh_database
from tests.job_harness import Bench, bench, instance

PROMISE = "6. Three workers share two slots; urgent jobs come behind routine ones"
_WORKERS, _SLOTS = 3, 2
_JOB_SECONDS = 0.4


def _wait(until: Callable[[], bool], seconds: float = 900.0) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.2)


class _Samples:
    """How many graphs run, looked at again and again by a thread."""

    def __init__(self, folder: Path) -> None:
        self.counts: list[int] = []
        self._folder = folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.005):
            self.counts.append(running(self._folder))


def _most_at_once(noted: Sequence[Run]) -> int:
    """The most graphs that ran at one moment, by what they noted of themselves; those that were killed left out."""
    whole = [(run.began, run.ended) for run in noted if run.ended is not None]
    changes = sorted([(began, 1) for began, _ in whole] + [(ended, -1) for _, ended in whole])
    return max(itertools.accumulate(change for _, change in changes))


def _has_begun(folder: Path, key: str) -> bool:
    return any(run.key == key for run in runs(folder))


def _kill_one_that_works(folder: Path, spared: set[str]) -> None:
    """Kill a worker at a job that lost no attempt so before: a third one would make it a dead letter, and rightly."""
    while True:
        _wait(lambda: running(folder) > 0)
        for name in os.listdir(folder / "running"):
            process, _, key = name.partition(".")
            if key not in spared:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
                    spared.add(key)
                    return


def _urgent(made: Bench, series: int, *, by_person: bool) -> tuple[str, float]:
    """Have an urgent job made; give its key and when that was."""
    made.receive(instance(1, series=series))
    (seen,) = made.records.undecided_series()
    rule = made.settings.rule[0]
    made.workflow.create_job(seen, rule if by_person else rule.put_first())
    job = made.records.jobs(1)[0]
    if by_person:
        made.workflow._decisions[queue.PUT_FIRST](job.id, "erika")
    return job.key, time.clock_gettime(time.CLOCK_MONOTONIC)


def _routine_ones_waiting(made: Bench, urgent: Container[str]) -> int:
    return sum(job.state == "queued" and job.key not in urgent for job in made.records.jobs(10_000))


@pytest.mark.timeout(1300)
def test_slots_are_never_exceeded_and_urgent_jobs_come_next(tmp_path: Path, postgres: str, figures: Figures) -> None:
    routine, urgent, kills = figures.of(short=40, full=560), figures.of(short=2, full=20), figures.of(short=0, full=5)
    with fresh_database(postgres) as url, bench(tmp_path, url) as made:
        for series in range(routine):
            made.receive(instance(1, series=series))
        made.create_jobs()
        with workers(tmp_path, url, _WORKERS, seconds=_JOB_SECONDS, slots=(_SLOTS, 1)) as deaths:
            samples = _Samples(tmp_path)
            try:
                _wait(lambda: len(list(tmp_path.glob("started.*"))) == _WORKERS and len(runs(tmp_path)) >= 4)
                asked: dict[str, float] = {}
                waiting: list[int] = []
                for number in range(urgent):  # one after the other: they would wait for each other
                    key, at = _urgent(made, routine + number, by_person=number % 2 == 1)
                    asked[key] = at
                    waiting.append(_routine_ones_waiting(made, asked))
                    _wait(partial(_has_begun, tmp_path, key))
                killed: set[str] = set()
                for _ in range(kills):
                    _kill_one_that_works(tmp_path, killed)
                    time.sleep(5.0)
                _wait(lambda: all(job.ended for job in made.records.jobs(10_000)))
            finally:
                samples.end()
        noted = runs(tmp_path)
        waited = [min(run.began for run in noted if run.key == key) - at for key, at in asked.items()]
        length = max(run.ended - run.began for run in noted if run.ended is not None)
        states = [job.state for job in made.records.jobs(10_000)]
        show = partial(figures.show, PROMISE)
        show(
            "routine jobs that waited when an urgent one was made, at least",
            seen=min(waiting),
            least=figures.of(short=10, full=500),
        )
        show("workers killed that had a slot", seen=len(deaths), exactly=kills)
        show("samples of the graphs that run", seen=len(samples.counts), least=figures.of(short=500, full=10_000))
        show("graphs at once, at most, in those samples", seen=max(samples.counts), most=_SLOTS)
        show("graphs at once, at most, by their own notes", seen=_most_at_once(noted), exactly=_SLOTS)
        show(
            "seconds until an urgent job began, at most",
            seen=max(waited),
            most=length + (1.0 if figures.is_full else 10.0),
        )
        show("jobs closed", seen=states.count("closed"), exactly=routine + urgent)
