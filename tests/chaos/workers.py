"""Worker processes that a test may kill or stop, on planted graphs, and the history that these graphs write.

Run as a program (`python -m tests.chaos.workers FOLDER URL NAME SECONDS`) it is one of them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, NamedTuple, Self

import procrastinate
import procrastinate.utils

from app.audit import chain
from app.audit.log import AuditLog, read_records
from app.audit.log import verify as verify_audit
from app.graph import CompletionRecord, GraphRequest
from app.jobs.queue import SYSTEM_QUEUE, WhenPossible
from app.jobs.worker import Tasks, Worker
from app.settings_worker import WorkerSettings
from tests.chaos.stopping import plant_stops
from tests.job_harness import DESTINATIONS, Bench, PlantedGraph, instance

LIMITS = WorkerSettings(heartbeat_seconds=0.5, dead_after_seconds=3.0)
TAKE_OVER_SECONDS = LIMITS.dead_after_seconds + 3.0
"""What is promised: from a worker's death to the next run of its job."""
CLOCK = "LIMNER_TEST_CLOCK"
"""In a worker's environment: the file that says by how many seconds its clock is off."""
NEXT_VERSION = "LIMNER_TEST_NEXT_VERSION"
"""In a worker's environment: it is of a version to come."""
STOPS = "LIMNER_TEST_STOPS"
"""In a worker's environment: it stops itself where a test asks for that (`tests.chaos.stopping`)."""
FURTHER_TASK = "further"
_ENDS = {"JOB_CLOSED", "JOB_FAILED", "JOB_REFUSED", "JOB_DISCARDED", "JOB_CANCELLED", "JOB_GIVEN_UP"}


@dataclass(frozen=True)
class Run:
    """One run of a graph, by the machine's monotonic clock."""

    process: int
    job: str
    attempt: int
    began: float
    ended: float | None


class HistoryGraph(PlantedGraph):
    """A graph that writes when it began and ended, for all processes into one file."""

    def run(
        self, request: GraphRequest, application: str, *, progress: Callable[[str, int, int], None], **limits: Any
    ) -> CompletionRecord:
        """Run as `PlantedGraph` does."""
        history = request.output_folder.parents[2] / "history"
        job, attempt = request.output_folder.parts[-2:]
        self._write(history, "began", job, attempt)
        record = super().run(request, application, progress=progress, **limits)
        self._write(history, "ended", job, attempt)
        return record

    @staticmethod
    def _write(history: Path, what: str, job: str, attempt: str) -> None:
        with history.open("a") as file:  # one short line: appended whole
            file.write(f"{what} {os.getpid()} {job} {attempt} {time.monotonic()}\n")


def read_history(folder: Path) -> list[Run]:
    """Return the runs so far, in the order in which they began."""
    began: dict[tuple[int, str, int], float] = {}
    ended: dict[tuple[int, str, int], float] = {}
    path = folder / "history"
    for line in path.read_text().splitlines() if path.exists() else []:
        what, process, job, attempt, moment = line.split()
        (began if what == "began" else ended)[int(process), job, int(attempt)] = float(moment)
    return [Run(*key, moment, ended.get(key)) for key, moment in began.items()]


class WorkerProcess:
    """One worker, that can be started, killed, stopped and continued."""

    def __init__(self, folder: Path, url: str, name: str, seconds: float, *, program: Sequence[str] = ()) -> None:
        self.name = name
        self._folder = folder
        self._command = [*program, sys.executable, "-m", "tests.chaos.workers", str(folder), url, name, str(seconds)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> None:
        """Start it; it works some seconds later."""
        with (self._folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stderr=log, env={**os.environ, **environment})

    @property
    def process(self) -> int:
        """Its process number."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> float:
        """Kill it; return when that was."""
        assert self._process is not None
        assert self._process.poll() is None, f"{self.name} had ended by itself"
        self._process.kill()
        self._process.wait()
        return time.monotonic()

    def stop(self) -> int:
        """Tell it to stop; return its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(60)

    def pause(self) -> None:
        """Stop it, as a machine that hangs does."""
        os.kill(self.process, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        os.kill(self.process, signal.SIGCONT)

    def end(self) -> None:
        """Kill it if it runs."""
        if self.running:
            self.kill()


def create_jobs(made: Bench, count: int, first: int = 0) -> None:
    """Receive `count` series, from the `first` number on, and make a job of each."""
    for series in range(first, first + count):
        made.receive(instance(1, series=series))
    made.create_jobs()


def wait_until(what: Callable[[], bool], seconds: float, expected: str) -> float:
    """Wait until something holds; return how long that took."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {expected}"
        time.sleep(0.05)
    return time.monotonic() - began


def audit_problems(made: Bench, names: Sequence[str]) -> list[str]:
    """Return what is wrong with the workers' audit chains, once what kills cut is put in order."""
    problems: list[str] = []
    for name in names:
        folder = made.settings.audit_folder / name
        with AuditLog(folder):
            pass
        problems += verify_audit(folder).problems
    return problems


class End(NamedTuple):
    """An audit entry that a job has ended."""

    worker: str
    time: datetime
    event: str


def audit_ends(made: Bench, names: Sequence[str]) -> dict[str, list[End]]:
    """Return what the workers' audit logs say of the ends of jobs, by their numbers."""
    ends: dict[str, list[End]] = {}
    for name in names:
        for one in read_records(made.settings.audit_folder / name):
            if one["event"] in _ENDS:
                end = End(name, datetime.fromisoformat(one["time"]), one["event"])
                ends.setdefault(one["detail"]["job_id"], []).append(end)
    return ends


@dataclass(frozen=True)
class NextVersion:
    """The tasks of a version to come: one more, that writes a file."""

    tasks: Tasks
    folder: Path

    def prepare(self) -> None:
        """Put the tasks that wait into the queues that the settings say now."""
        self.tasks.prepare()

    def register(self, app: procrastinate.App) -> None:
        """Give the tasks to the queue."""
        self.tasks.register(app)

        async def further() -> None:
            (self.folder / FURTHER_TASK).touch()

        app.task(name=FURTHER_TASK, queue=SYSTEM_QUEUE, retry=WhenPossible())(further)

    def wanted_queues(self) -> set[str]:
        """Return the queues that what waits belongs into."""
        return self.tasks.wanted_queues()

    def move(self, served: Collection[str], unserved: Collection[str]) -> None:
        """Put what waits where somebody serves it."""
        self.tasks.move(served, unserved)

    def interrupt(self) -> None:
        """End the graph for a shutdown."""
        self.tasks.interrupt()


def follow_clock(file: Path) -> None:
    """Let what this program takes for the time be off as the file says.

    libfaketime can't do it: under it the waiting of CPython 3.11, which is for a moment of the monotonic clock, fails.
    """
    right = time.time

    class Moved(datetime):
        """A datetime that knows what time it is said to be."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(time.time(), tz)

    time.time = lambda: right() + float(file.read_text())
    vars(chain)["datetime"] = Moved
    procrastinate.utils.utcnow = lambda: Moved.now(UTC)


def named(url: str, name: str) -> str:
    """Return the database's URL for a program that gives itself a name."""
    return f"{url}{'&' if '?' in url else '?'}application_name={name}"


async def work(worker: Worker, started: Path) -> None:
    """Work until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await worker.run(stop, started=started.touch)


def main(folder: str, url: str, name: str, seconds: str) -> None:
    """Work until killed, or told to stop."""
    if CLOCK in os.environ:
        follow_clock(Path(os.environ[CLOCK]))
    if STOPS in os.environ:
        plant_stops(Path(folder))
    made = Bench(Path(folder), named(url, name), graph=HistoryGraph(seconds=float(seconds)), name=name)
    with made.records, made.audit:
        worker = Worker(
            records=made.records,
            tasks=NextVersion(made.workflow, Path(folder)) if NEXT_VERSION in os.environ else made.workflow,
            destinations=DESTINATIONS,
            limits=LIMITS,
            shares_database=True,
        )
        asyncio.run(work(worker, Path(folder) / f"started.{os.getpid()}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
