"""Workers that stand still for longer than they count as living, and then go on: others have their jobs by then."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.chaos.figures import Figures
from tests.chaos.stopping import POINTS, Stop, arm, forget_stops, hold, stopped
from tests.chaos.workers import (
    LIMITS,
    STOPS,
    TAKE_OVER_SECONDS,
    WorkerProcess,
    audit_ends,
    audit_problems,
    create_jobs,
    wait_until,
)
from tests.chaos.written import Written, note_writes, read_writes, sending, sent_by_others
from tests.database_fixture import fresh_database
from tests.job_harness import DESTINATIONS, Bench

_PROMISE = "5. Workers stopped and continued"
_NAMES = ("a", "b", "c", "d")
_GRAPH_SECONDS = 0.5
_JOBS = 4
"""In each round: one for each worker."""
_LANES = 2 + len(DESTINATIONS)
"""Rows that a worker has among those that live: for graphs, for the rest, and for each destination."""
_LATE = "rows of a lost job that they wrote once they went on"
_OVERTAKING = "rows of deliveries that they wrote though another had begun to send"
_ENTRIES = "audit entries of a lost attempt that they wrote once they went on"
_CHANGED = "rows and files that changed where all jobs had ended before they went on"


class _Rounds:
    """Rounds in each of which three of four workers stop, and go on once their work is another's."""

    def __init__(self, made: Bench, folder: Path, workers: Sequence[WorkerProcess]) -> None:
        self._made = made
        self._folder = folder
        self._workers = workers
        self.jobs = 0
        self.stops = Counter[str]()
        """How often workers stopped at each point."""
        self.waited: list[float] = []
        """After how many seconds others began to send what they had been sending."""
        self.counted: dict[str, list[str]] = {_LATE: [], _OVERTAKING: [], _ENTRIES: [], _CHANGED: []}
        """What continued workers must not have done, each time that they did."""

    def run(self, points: Sequence[str], *, until_ended: bool) -> None:
        """Stop workers at these points, and let them go on once their jobs have ended, or while another is at them."""
        for point in points:
            arm(self._folder, point)
        create_jobs(self._made, _JOBS, self.jobs)
        self.jobs += _JOBS
        wait_until(lambda: len(stopped(self._folder)) == len(points), 60, f"stops at {points}")
        stops = {one.name: stopped(self._folder)[one.process] for one in self._stopped_workers()}
        stopping = {one.name: one for one in self._stopped_workers()}
        held = [] if until_ended else self._hold(stopping)
        wait_until(lambda: self._living() == len(self._workers) - len(stopping), 60, "they count as dead")
        if until_ended:
            wait_until(self._nothing_is_left, 60, "others end all jobs")
        elif held:
            wait_until(lambda: len(self._sent_by_others(stops)) >= len(held), 60, "others send what they were sending")
        before = self._written()
        for one in stopping.values():
            one.go_on()
        wait_until(lambda: self._living() == len(self._workers), 60, "all have begun anew")
        for file in held:  # so long another was sending
            file.unlink()
        wait_until(self._nothing_is_left, 60, "all jobs end")
        self.stops.update(one.point for one in stops.values())
        self.waited += self._sent_by_others(stops)
        forget_stops(self._folder)
        self._judge(before, stopping, f"after {points}, {'ended' if until_ended else 'at work'}")
        if until_ended:
            after = self._written()
            self.counted[_CHANGED] += map(str, (before.rows ^ after.rows) | (before.files ^ after.files))

    def _stopped_workers(self) -> list[WorkerProcess]:
        return [one for one in self._workers if one.process in stopped(self._folder)]

    def _hold(self, names: Collection[str]) -> list[Path]:
        """Have whoever sends next what these are sending take no end with it."""
        lost = sending(self._made.records.url, names)
        return [hold(self._folder, digest, destination) for _, digest, destination in lost]

    def _sent_by_others(self, stops: Mapping[str, Stop]) -> list[float]:
        return sent_by_others(self._made.records.url, {name: one.time for name, one in stops.items()})

    def _judge(self, before: Written, stopping: Collection[str], when: str) -> None:
        """Count what those that stopped did since about attempts that had begun before.

        That an object has arrived is true, whoever sent it: who stopped as it sent may record that, and tell of it,
        unless another sends it again.
        """
        began: dict[tuple[tuple[str, ...], int], str] = {}
        for one in read_writes(self._made.records.url):
            began.setdefault((one.subject, one.attempt), one.who)
        for one in before.late_writes(self._made.records.url, stopping):
            if not one.is_of_delivery:
                self.counted[_LATE].append(f"{when}: {one}")
            elif began[one.subject, one.attempt] != one.who:
                self.counted[_OVERTAKING].append(f"{when}: {one}")
        for log in self._logs():
            if log.name in stopping:
                told = before.late_entries(log)
                self.counted[_ENTRIES] += [f"{when}: {entry['event']} {entry['detail']}" for entry in told]

    def _written(self) -> Written:
        return Written.now(self._made.records.url, self._made.settings.results_folder, self._logs())

    def _logs(self) -> list[Path]:
        return [self._made.settings.audit_folder / name for name in _NAMES]

    def _living(self) -> float:
        with psycopg.connect(self._made.records.url) as connection:
            row = connection.execute("SELECT count(*) FROM procrastinate_workers").fetchone()
        assert row is not None
        return int(row[0]) / _LANES

    def _nothing_is_left(self) -> bool:
        return self._made.all_ended() and not self._made.queued_tasks()


@contextmanager
def _workers(folder: Path, url: str) -> Iterator[list[WorkerProcess]]:
    workers = [WorkerProcess(folder, url, name, _GRAPH_SECONDS) for name in _NAMES]
    try:
        for one in workers:
            one.start(**{STOPS: "yes"})
        wait_until(lambda: len(list(folder.glob("started.*"))) == len(_NAMES), 180, "all workers work")
        yield workers
    finally:
        for one in workers:
            one.end()


def _drawn(rounds: int) -> list[tuple[str, ...]]:
    """Draw a point of each stage for each round, all points equally often."""
    drawn = []
    for points in POINTS.values():
        often = -(-rounds // len(points))
        drawn.append([one for _ in range(often) for one in random.sample(list(points), len(points))])
    return list(zip(*drawn, strict=False))[:rounds]


@pytest.mark.timeout(900)
def test_a_worker_that_was_stopped_writes_nothing(tmp_path: Path, postgres: Any, figures: Figures) -> None:
    rounds = _drawn(figures.of(short=1, full=9))
    with fresh_database(postgres) as url:
        made = Bench(tmp_path, url)
        with made.records, made.audit, _workers(tmp_path, url) as workers:
            note_writes(url)
            done = _Rounds(made, tmp_path, workers)
            for number, points in enumerate(rounds, start=random.randrange(2)):
                done.run(points, until_ended=number % 2 == 1)
            _show(figures, made, done)
    assert audit_problems(made, ("", *_NAMES)) == []


def _show(figures: Figures, made: Bench, done: _Rounds) -> None:
    stops, seconds = sum(done.stops.values()), f"{LIMITS.dead_after_seconds:g} s"
    figures.show(
        _PROMISE,
        f"stops of more than {seconds}, in graphs, while recording and while delivering",
        seen=stops,
        least=figures.of(short=3, full=20),
    )
    for what, seen in done.counted.items():
        figures.show(_PROMISE, what, seen=len(seen), exactly=0)
    jobs = made.records.jobs(10_000)
    ends = audit_ends(made, _NAMES)
    wrong = [job for job in jobs if {one.event for one in ends.get(str(job.id), ())} != {"JOB_CLOSED"}]
    figures.show(_PROMISE, "jobs not closed", seen=sum(one.state != "closed" for one in jobs), exactly=0)
    figures.show(
        _PROMISE, "jobs with other than one result", seen=sum(len(one.results) != 1 for one in jobs), exactly=0
    )
    figures.show(_PROMISE, "jobs whose audit entries name another end, or none", seen=len(wrong), exactly=0)
    again = sum(len(said) - 1 for said in ends.values())
    figures.show(_PROMISE, "second entries that a job is closed, at most one a stop", seen=again, most=stops)
    assert len(jobs) == done.jobs
    _show_arrivals(figures, made, {one.digest for job in jobs for one in job.results}, stops)
    if figures.is_full:  # else what is drawn may stop nobody who sends
        figures.show(
            _PROMISE,
            f"longest until another sent it, s, with {seconds} until a worker counts as dead",
            seen=max(done.waited),
            most=TAKE_OVER_SECONDS,
        )


def _show_arrivals(figures: Figures, made: Bench, recorded: set[str], stops: int) -> None:
    """Show how often what a stopped worker had sent, or began to send, went again: the same bytes, which do no harm."""
    again = 0
    for destination in DESTINATIONS:
        got = made.destinations[destination].got()
        assert set(got) == recorded, "never the bytes of another run"
        again += len(got) - len(recorded)
    what = "objects that arrived a second time, at most one a stop and destination"
    figures.show(_PROMISE, what, seen=again, most=stops * len(DESTINATIONS))
