"""Promise 7: killed at each point between "graph done" and "committed", an archive holds exactly one object a job."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from app.audit.log import AuditLog
from app.audit.log import verify as verify_audit
from app.jobs.records import Job, Records
from tests import peers
from tests.chaos.delivering import held_by, show_held, show_received, show_results
from tests.chaos.figures import Figures
from tests.chaos.killed_delivery import POINTS, Round, as_line
from tests.database_fixture import fresh_database
from tests.journey.limner_server import free_port

PROMISE = "7. Killed between graph and commitment"


@pytest.mark.timeout(3600)
def test_one_object_a_job_wherever_it_dies(
    tmp_path: Path, postgres: str, network: peers.PeerNetwork, figures: Figures
) -> None:
    port = free_port()
    points = list(POINTS) if figures.is_full else random.sample(list(POINTS), 4)
    times = figures.of(short=1, full=20)
    with (
        fresh_database(postgres) as url,
        peers.running_orthanc(network, tmp_path / "orthanc", knows=("LIMNER", port), notes_what_comes=True) as orthanc,
        _forking(tmp_path / "worker.log") as worker,
    ):
        rest = Round(str(tmp_path), url, orthanc.host, orthanc.port, "PACS", network.host_address, port)
        for number, point in enumerate(points * times):
            assert _run(worker, replace(rest, series=number, point=point)) == -signal.SIGKILL, f"never came to: {point}"
            assert _run(worker, rest) == 0, f"not all ended after a kill at: {point}\n{_log(tmp_path)}"
        with Records(url, maximum_connections=2) as records:
            jobs = records.jobs(10_000)
        held, received = held_by(orthanc, tmp_path / "held"), orthanc.received()
    with AuditLog(tmp_path / "audit"):  # a line cut by a kill is put in order
        pass
    assert len(jobs) == len(points) * times
    figures.show(PROMISE, "points", seen=len(points), least=figures.of(short=4, full=12))
    figures.show(PROMISE, "kills", seen=len(points) * times, least=figures.of(short=4, full=240))
    show_held(figures, PROMISE, show_results(figures, PROMISE, jobs), held)
    figures.show(PROMISE, "objects in Orthanc more than jobs", seen=len(held) - len(jobs), exactly=0)
    show_received(figures, PROMISE, received)
    figures.show(PROMISE, "jobs not committed and closed", seen=sum(not _is_done(job) for job in jobs), exactly=0)
    report = verify_audit(tmp_path / "audit")
    assert report.ok, report.problems


def _is_done(job: Job) -> bool:
    return job.state == "closed" and [one.state for one in job.deliveries] == ["committed"]


@contextmanager
def _forking(log: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.chaos.killed_delivery"]
    pipe = subprocess.PIPE
    with (
        log.open("w") as output,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=output, text=True) as worker,
    ):
        yield worker
        assert worker.stdin is not None
        worker.stdin.close()
        assert worker.wait(10) == 0


def _run(worker: subprocess.Popen[str], round_: Round) -> int:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(as_line(round_))
    worker.stdin.flush()
    while not (line := worker.stdout.readline()).strip().lstrip("-").isdigit():  # the child's own log is on it too
        assert line, "the worker ended"
    return int(line)


def _log(folder: Path) -> str:
    return (folder / "worker.log").read_text()[-4000:]
