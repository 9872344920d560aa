"""The next version's schema and tasks come while this one receives, decides and works; then this one comes back."""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from procrastinate import App, SyncPsycopgConnector

from app.jobs.migrations import FOLDER, migrate
from app.jobs.queue import SYSTEM_QUEUE
from tests.chaos.figures import Figures
from tests.chaos.receiving import Sender, receiving
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
from tests.listening import make_ct

_PROMISE = "11. Upgrade and back"
_NAMES = ("a", "b")
_PLANTED = """
ALTER TABLE jobs ADD COLUMN planted text NOT NULL DEFAULT 'of the next version';
ALTER TABLE deliveries ADD COLUMN planted integer;
CREATE TABLE planted (job_id uuid PRIMARY KEY REFERENCES jobs (id), note text NOT NULL);
CREATE INDEX planted_state ON jobs (state);
"""


class _Receiver:
    """A listener that decides what is complete, with a sender that sends to it also once it was started anew."""

    def __init__(self, made: Bench, folder: Path) -> None:
        self._made, self._folder = made, folder
        self._stack = ExitStack()
        self.sender = Sender(self._open(), pause_seconds=0.5, may_send=self._workers_keep_up)

    def start_anew(self) -> None:
        """Stop it in order, while the sender sends, and start it at another port."""
        self.close()
        self.sender.port = self._open()

    def close(self) -> None:
        """Stop it."""
        self._stack.close()

    def _workers_keep_up(self) -> bool:
        """On a busy machine the sender would leave more behind than they do in time."""
        return self.sender.acknowledged < _closed(self._made) // 2 + 5

    def _open(self) -> int:
        return self._stack.enter_context(receiving(self._made, self._folder)).port


def _closed(made: Bench) -> int:
    return Counter(one.state for one in made.records.jobs(10_000))["closed"]


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # pynetdicom's, of a connection refused
def test_an_upgrade_and_the_way_back_strand_nothing(tmp_path: Path, postgres: Any, figures: Figures) -> None:
    jobs = figures.of(short=40, full=600)
    next_schema = tmp_path / "next"
    shutil.copytree(FOLDER, next_schema)
    (next_schema / "900_planted.sql").write_text(_PLANTED)
    with fresh_database(postgres) as url:
        made = Bench(tmp_path, url)
        workers = [WorkerProcess(tmp_path, url, name, 0.2) for name in _NAMES]
        with made.records:
            with ExitStack() as stack:
                stack.enter_context(made.audit)
                create_jobs(made, jobs)
                receiver = _Receiver(made, tmp_path)
                stack.callback(receiver.close)
                for one in workers:
                    stack.callback(one.end)
                with receiver.sender.sending() as sender:
                    _upgrade_and_go_back(made, workers, receiver, next_schema, jobs)
                every = jobs + sender.acknowledged
                with suppress(AssertionError):  # what is not done by then is in the figures
                    wait_until(lambda: _closed(made) == every and not made.queued_tasks(), 300, "all jobs are closed")
            _check(made, tmp_path, jobs, sender, figures)
    assert audit_problems(made, _NAMES) == []


def _upgrade_and_go_back(
    made: Bench, workers: list[WorkerProcess], receiver: _Receiver, next_schema: Path, jobs: int
) -> None:
    """One process after the other, with jobs done, and made of what is received, at every step."""
    url, new = made.records.url, {NEXT_VERSION: "yes"}
    for one in workers:
        one.start()

    def go_on() -> None:
        least, known = _closed(made) + jobs // 7, len(made.records.jobs(10_000))
        wait_until(lambda: _closed(made) >= least, 240, "work goes on")
        wait_until(lambda: len(made.records.jobs(10_000)) > known, 60, "what is received becomes jobs")

    go_on()
    migrate(url, next_schema)
    _put_further_task(url)  # by something of the next version; only processes of this one are there
    go_on()
    receiver.start_anew()
    assert workers[0].stop() == 0
    workers[0].start(**new)
    go_on()
    assert workers[1].stop() == 0
    workers[1].start(**new)
    go_on()
    for one in workers:  # and back, on the next version's schema
        one.kill()
        one.start()
    receiver.start_anew()
    go_on()
    assert _closed(made) < len(made.records.jobs(10_000)), "too late to show anything"


def _put_further_task(url: str) -> None:
    with psycopg.connect(url) as connection:
        App(connector=SyncPsycopgConnector()).configure_task(
            FURTHER_TASK, allow_unknown=True, queue=SYSTEM_QUEUE, connection=connection
        ).defer()


def _check(made: Bench, folder: Path, jobs: int, sender: Sender, figures: Figures) -> None:
    found = made.records.jobs(10_000)
    figures.show(_PROMISE, "jobs at work in mid-load", seen=jobs, least=40)
    received = [make_ct(1, study=study, series=f"{study}.1") for study in sender.studies()]
    figures.show(_PROMISE, "objects acknowledged meanwhile", seen=len(received), least=figures.of(short=5, full=50))
    with psycopg.connect(made.records.url) as connection:
        assert connection.execute("SELECT count(*) FROM planted").fetchone() == (0,)
        rows = connection.execute("SELECT sop_instance_uid, digest FROM instances").fetchall()
    kept = {uid for uid, digest in rows if (made.spool / f"{digest}.dcm").exists()}
    lost = sum(one.SOPInstanceUID not in kept for one in received)
    figures.show(_PROMISE, "acknowledged objects lost", seen=lost, exactly=0)
    series = Counter(job.series_instance_uid for job in found)
    undecided = sum(series[one.SeriesInstanceUID] != 1 for one in received)
    figures.show(_PROMISE, "acknowledged series with other than one job", seen=undecided, exactly=0)
    figures.show(_PROMISE, "jobs stranded", seen=sum(one.state != "closed" for one in found), exactly=0)
    results = {result.digest for job in found for result in job.results}
    many = abs(len(results) - jobs - len(received))
    figures.show(_PROMISE, "jobs with other than one result", seen=many, exactly=0)
    for destination in DESTINATIONS:
        assert set(made.destinations[destination].got()) == results
    figures.show(_PROMISE, "tasks of the next version stranded", seen=not (folder / FURTHER_TASK).exists(), exactly=0)
