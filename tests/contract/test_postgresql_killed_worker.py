"""kill -9 of the worker process, again and again: every job ends once, every delivery is recorded once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from app.audit.log import AuditLog
from app.audit.log import verify as verify_audit
from app.jobs.records import Records
from tests.database_fixture import fresh_database
from tests.job_harness import DESTINATIONS, Bench, instance

_JOBS = 20
_KILLS = 3


def _start(folder: Path, url: str) -> subprocess.Popen[bytes]:
    before = set(folder.glob("started.*"))
    process = subprocess.Popen([sys.executable, "-m", "tests.job_harness", str(folder), url])
    deadline = time.monotonic() + 30
    while set(folder.glob("started.*")) == before:
        assert process.poll() is None, "the worker ended at its start"
        assert time.monotonic() < deadline, "the worker did not start"
        time.sleep(0.02)
    return process


def test_no_job_is_lost_or_doubled(tmp_path: Path, postgres: str) -> None:
    with fresh_database(postgres) as url:
        made = Bench(tmp_path, url)
        with made.records:
            with made.audit:
                for series in range(_JOBS):
                    made.receive(instance(1, series=series))
                made.create_jobs()
            worker = _start(tmp_path, url)
            try:
                for _ in range(_KILLS):
                    time.sleep(random.uniform(0.4, 0.9))
                    worker.kill()
                    worker.wait()
                    assert not made.all_ended(), "killed too late to show anything"
                    worker = _start(tmp_path, url)
                deadline = time.monotonic() + 60
                while not made.all_ended() and time.monotonic() < deadline:
                    time.sleep(0.1)
            finally:
                worker.kill()
                worker.wait()
            _check(made, made.records)
    with AuditLog(made.settings.audit_folder):  # a line cut by a kill is put in order
        pass
    report = verify_audit(made.settings.audit_folder)
    assert report.ok, report.problems


def _check(made: Bench, records: Records) -> None:
    jobs = records.jobs()
    assert [job.state for job in jobs] == ["closed"] * _JOBS
    assert any(job.attempt > 1 for job in jobs), "no run was interrupted"
    digests = {result.digest for job in jobs for result in job.results}
    assert len(digests) == _JOBS  # one result a job, whatever number of runs
    for destination in DESTINATIONS:
        recorded = [one for job in jobs for one in job.deliveries if one.destination == destination]
        assert [one.state for one in recorded] == ["delivered"] * _JOBS
        got = made.destinations[destination].got()
        assert set(got) == digests  # never the bytes of another run
        assert len(got) <= _JOBS + _KILLS  # at most the one whose outcome a kill hid goes again
