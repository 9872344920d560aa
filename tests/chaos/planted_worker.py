"""A worker process with a planted graph, started again whenever it dies, as a service manager does.

Run as a program: `python -m tests.chaos.planted_worker FOLDER URL SECONDS NUMBER [SLOTS HERE]`. Its graph takes so many
seconds, kills its own process when the job's key is in the file `poison`, and notes each run's beginning and end in the
file `runs`; while it runs there is a file in the folder `running` that begins with the number of its process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from app.graph import CompletionRecord, GraphRequest
from app.jobs.slots import lanes
from app.jobs.worker import Worker
from app.settings_slots import DEFAULT_SLOTS, SlotsSettings
from tests.job_harness import DESTINATIONS, PlantedGraph, bench


class Run(NamedTuple):
    """What was noted of a run, by the machine's clock."""

    key: str
    began: float
    ended: float | None


class NotedGraph(PlantedGraph):
    """Notes its runs; poison kills its process."""

    def __init__(self, folder: Path, seconds: float) -> None:
        super().__init__(seconds=seconds)
        self._folder = folder

    def run(self, request: GraphRequest, application: str, **options: Any) -> CompletionRecord:
        """Stand in for `GraphProcess.run`."""
        running = self._folder / "running" / f"{os.getpid()}.{request.identity}"
        running.touch()
        self._note("begin", request.identity)
        if request.identity in (self._folder / "poison").read_text().split():
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return super().run(request, application, **options)
        finally:
            self._note("end", request.identity)
            running.unlink()

    def _note(self, what: str, key: str) -> None:
        with (self._folder / "runs").open("a") as notes:  # a short line is appended whole
            notes.write(f"{what} {key} {time.clock_gettime(time.CLOCK_MONOTONIC)}\n")


def running(folder: Path) -> int:
    """Return how many graphs run now, those of killed processes left out."""
    return sum(os.path.exists(f"/proc/{name.partition('.')[0]}") for name in os.listdir(folder / "running"))


def runs(folder: Path) -> list[Run]:
    """Return the runs that were noted, in the order in which they began; one that was killed has no end."""
    begun: dict[str, list[Run]] = {}
    for line in (folder / "runs").read_text().splitlines() if (folder / "runs").exists() else []:
        what, key, at = line.split()
        of_job = begun.setdefault(key, [])
        if what == "begin":
            of_job.append(Run(key, float(at), None))
        else:
            of_job[-1] = of_job[-1]._replace(ended=float(at))
    return sorted((run for of_job in begun.values() for run in of_job), key=lambda run: run.began)


@contextmanager
def workers(
    folder: Path, url: str, count: int, *, seconds: float = 0.0, slots: tuple[int, int] | None = None
) -> Iterator[list[int]]:
    """Keep so many worker processes running, each with a folder of its own below `folder`; give the list of deaths.

    A death is noted as the number of the worker that died. `slots` are those of all workers, and of each.
    """
    (folder / "poison").touch()
    (folder / "running").mkdir()
    limits = [str(one) for one in slots or ()]
    over, deaths = threading.Event(), list[int]()

    def keep(number: int) -> None:
        while not over.is_set():
            arguments = [str(folder), url, str(seconds), str(number), *limits]
            process = subprocess.Popen([sys.executable, "-m", "tests.chaos.planted_worker", *arguments])
            while process.poll() is None and not over.wait(0.05):
                pass
            if over.is_set():
                process.kill()
            else:
                deaths.append(number)
            process.wait()
            over.wait(0.1)

    keepers = [threading.Thread(target=keep, args=(number,)) for number in range(count)]
    for keeper in keepers:
        keeper.start()
    try:
        yield deaths
    finally:
        over.set()
        for keeper in keepers:
            keeper.join()


def main(folder: str, url: str, seconds: str, number: str, at_once: str = "", here: str = "1") -> None:
    """Work until killed."""
    graph = NotedGraph(Path(folder), float(seconds))
    slots = (SlotsSettings(name=DEFAULT_SLOTS, at_once=int(at_once), at_once_here=int(here)),) if at_once else ()
    with bench(Path(folder) / f"worker-{number}", url, graph=graph, slots=slots) as made:
        made.spool = Path(folder) / "instances"  # one for all
        worker = Worker(
            records=made.records, tasks=made.workflow, destinations=DESTINATIONS, lanes=lanes(made.settings)
        )
        started = Path(folder) / f"started.{os.getpid()}"
        asyncio.run(worker.run(asyncio.Event(), started=started.touch))


if __name__ == "__main__":
    main(*sys.argv[1:])
