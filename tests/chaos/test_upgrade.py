"""The next version's schema, and its tasks, come while workers of this one are at work; then this one comes back."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest
from procrastinate import App, SyncPsycopgConnector

from app.jobs.migrations import FOLDER, migrate
from app.jobs.queue import SYSTEM_QUEUE
from tests.chaos.figures import Figures
from tests.chaos.workers import (
    FURTHER_TASK,
    NEXT_VERSION,
    WorkerProcess,
    audit_problems,
    create_jobs,
    wait_until,
)
from tests.database_fixture import fresh_database
from tests.job_harness import DESTINATIONS, Bench

_PROMISE = "11. Upgrade and back"
_NAMES = ("a", "b")
_PLANTED = """
ALTER TABLE jobs ADD COLUMN planted text NOT NULL DEFAULT 'of the next version';
ALTER TABLE deliveries ADD COLUMN planted integer;
CREATE TABLE planted (job_id uuid PRIMARY KEY REFERENCES jobs (id), note text NOT NULL);
CREATE INDEX planted_state ON jobs (state);
"""


def _closed(made: Bench) -> int:
    return Counter(one.state for one in made.records.jobs(10_000))["closed"]


@pytest.mark.timeout(900)
def test_an_upgrade_and_the_way_back_strand_nothing(tmp_path: Path, postgres: Any, figures: Figures) -> None:
    jobs = figures.of(short=40, full=600)
    next_schema = tmp_path / "next"
    shutil.copytree(FOLDER, next_schema)
    (next_schema / "900_planted.sql").write_text(_PLANTED)
    with fresh_database(postgres) as url:
        made = Bench(tmp_path, url)
        workers = [WorkerProcess(tmp_path, url, name, 0.2) for name in _NAMES]
        with made.records:
            with made.audit:
                create_jobs(made, jobs)
            try:
                _upgrade_and_go_back(made, workers, next_schema, jobs)
                wait_until(lambda: _closed(made) == jobs and not made.queued_tasks(), 300, "all jobs are closed")
            finally:
                for one in workers:
                    one.end()
            _check(made, tmp_path, jobs, figures)
    assert audit_problems(made, _NAMES) == []


def _upgrade_and_go_back(made: Bench, workers: list[WorkerProcess], next_schema: Path, jobs: int) -> None:
    """One worker after the other, with jobs done at every step."""
    url, new = made.records.url, {NEXT_VERSION: "yes"}
    for one in workers:
        one.start()
    steps = iter(range(1, 6))

    def go_on() -> None:
        least = next(steps) * jobs // 7
        wait_until(lambda: _closed(made) >= least, 240, "work goes on")

    go_on()
    migrate(url, next_schema)
    _put_further_task(url)  # by something of the next version; only workers of this one are there
    go_on()
    assert workers[0].stop() == 0
    workers[0].start(**new)
    go_on()
    assert workers[1].stop() == 0
    workers[1].start(**new)
    go_on()
    for one in workers:  # and back, on the next version's schema
        one.kill()
        one.start()
    go_on()
    assert _closed(made) < jobs, "too late to show anything"


def _put_further_task(url: str) -> None:
    with psycopg.connect(url) as connection:
        App(connector=SyncPsycopgConnector()).configure_task(
            FURTHER_TASK, allow_unknown=True, queue=SYSTEM_QUEUE, connection=connection
        ).defer()


def _check(made: Bench, folder: Path, jobs: int, figures: Figures) -> None:
    found = made.records.jobs(jobs + 1)
    figures.show(_PROMISE, "jobs at work in mid-load", seen=jobs, least=40)
    figures.show(_PROMISE, "jobs stranded", seen=sum(one.state != "closed" for one in found), exactly=0)
    digests = {result.digest for job in found for result in job.results}
    figures.show(_PROMISE, "jobs with other than one result", seen=abs(len(digests) - jobs), exactly=0)
    for destination in DESTINATIONS:
        assert set(made.destinations[destination].got()) == digests
    figures.show(_PROMISE, "tasks of the next version stranded", seen=not (folder / FURTHER_TASK).exists(), exactly=0)
    with psycopg.connect(made.records.url) as connection:
        assert connection.execute("SELECT count(*) FROM planted").fetchone() == (0,)
