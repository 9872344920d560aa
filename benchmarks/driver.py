"""Starts the systems' processes, lets them run in turn, and watches how much memory they take."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from benchmarks.folders import REPOSITORY_ROOT
from benchmarks.worker import RUN, Figures

_SAMPLE_SECONDS = 0.02
_LOG_LINES = 15
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class BenchmarkFailed(Exception):
    """A process did not do its work."""


@dataclass(frozen=True)
class Pythons:
    """The interpreters of the environments."""

    server: Path
    exporter: Path


@dataclass
class Run:
    """One run of one system through one case."""

    cpu: dict[str, float]
    """Seconds by stage, of all threads of the system's own process."""
    wall: dict[str, float]
    server_cpu: float
    """Of its Triton."""
    growth: int
    """Bytes by which the resident memory of all its processes grew at most."""
    server_growth: int
    """Of its Triton's alone."""
    load: float
    """Processes that could run on this machine, the mean of the last minute, at the start."""
    resident: int = 0
    """Bytes of resident memory that all its processes had at most."""
    details: Figures = field(default_factory=dict)
    """What else the system said."""


@dataclass
class Worker:
    """A process that is prepared and waits for the driver's word."""

    name: str
    process: subprocess.Popen[str]
    pids: list[int]
    server_pids: list[int]
    log: Path
    runs: list[Run] = field(default_factory=list)

    def run(self) -> Run:
        """Let it work once through its case."""
        load = os.getloadavg()[0]
        with _watched(self.pids, self.server_pids) as memory:
            figures = self.ask(RUN)
        details = figures.get("details", {})
        grown, server_grown, resident = memory()
        run = Run(figures["cpu"], figures["wall"], figures["server_cpu"], grown, server_grown, load, resident, details)
        self.runs.append(run)
        return run

    def ask(self, word: str) -> Figures:
        """Say `word` and wait for the answer."""
        if self.process.stdin is None:
            raise BenchmarkFailed(f"{self.name} has no standard input")
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> Figures:
        """Read its next line.

        Raises
        ------
        BenchmarkFailed
            If it ended instead; with the last lines of its log.
        """
        line = self.process.stdout.readline() if self.process.stdout is not None else ""
        if not line:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
            raise BenchmarkFailed(f"{self.name} ended with status {self.process.wait()}:\n{tail}")
        return dict(json.loads(line))

    def end(self) -> None:
        """Close its standard input, with which it ends."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def worker(
    name: str,
    python: Path,
    module: str,
    request: Figures,
    log: Path,
    *,
    core: int | None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Worker]:
    """Start a process and wait until it is prepared.

    Parameters
    ----------
    core
        The only core that it and its children may use; None for all.
    environment
        What it is to have beside this one's.
    """
    command: list[str] = [str(python), "-m", module, json.dumps(request)]
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    count = str(request["threads"] or len(os.sched_getaffinity(0)))
    threads = dict.fromkeys((*_THREAD_VARIABLES, "nnUNet_def_n_proc"), count)
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY_ROOT,
            env={**os.environ, **threads, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    started = Worker(name, process, [process.pid], [], log)
    try:
        ready = started.answer()["ready"]
        started.server_pids = list(ready.get("pids", []))
        yield started
    finally:
        started.end()


def interleaved(workers: Sequence[Worker], rounds: int, progress: Callable[[str], None]) -> None:
    """Let all run in turn, `rounds` times."""
    for turn in range(rounds):
        for one in workers:
            run = one.run()
            cpu = run.cpu["total"] + run.server_cpu
            progress(
                f"  {one.name}, round {turn + 1}: {run.wall['total']:.2f} s, CPU {cpu:.2f} s, "
                f"memory +{run.growth >> 20} MiB, load {run.load:.1f}"
            )


@contextmanager
def _watched(own: Sequence[int], server: Sequence[int]) -> Iterator[Callable[[], tuple[int, int, int]]]:
    """Sample resident memory; gives a function for what it was.

    That function returns by how much it grew, of all processes and of the server's alone, and its most of all.
    """
    groups = (_Memory((*own, *server)), _Memory(server))
    done = threading.Event()

    def sample() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            for group in groups:
                group.look()

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield lambda: (groups[0].growth, groups[1].growth, groups[0].most)
    finally:
        done.set()
        thread.join()


class _Memory:
    """Memory of several processes, which share some of it.

    What one of them shares with another is in both their resident memory. The tensors of a request lie in the client,
    in the server and in the model's process, so that growth counts them once: that of the process whose shared memory
    grew most, which is the server that maps all of it.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._processes = [psutil.Process(pid) for pid in pids]
        self._before = self._held()
        self.growth = 0
        self.most = 0
        """Of all resident memory together, what is shared in each."""
        self.look()

    def look(self) -> None:
        """Take a sample."""
        now = self._held()
        own = sum(now[one][0] - self._before[one][0] for one in now)
        shared = max((now[one][1] - self._before[one][1] for one in now), default=0)
        self.growth = max(self.growth, own + shared)
        self.most = max(self.most, sum(map(sum, now.values())))

    def _held(self) -> dict[int, tuple[int, int]]:
        """Return by process what it holds for itself, and what it shares."""
        held: dict[int, tuple[int, int]] = {}
        for process in self._processes:
            with suppress(psutil.NoSuchProcess):
                memory = process.memory_info()
                held[process.pid] = int(memory.rss - memory.shared), int(memory.shared)
        return held


class Steps:
    """Progress lines with the seconds so far."""

    def __init__(self, say: Callable[[str], Any]) -> None:
        self._say, self._started = say, time.monotonic()

    def __call__(self, line: str) -> None:
        """Say one line."""
        self._say(f"[{time.monotonic() - self._started:5.0f} s] {line}")

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started


def slug(name: str) -> str:
    """Return a system's name as a part of a file's."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())


def last_core() -> int:
    """Return the core that all of a system is bound to where it may use only one."""
    return max(os.sched_getaffinity(0))
