"""One run of an operator graph in a process of its own, that may crash, hang or leak without hurting the server.

The process is forked from a fork server that has imported what is slow (`GraphProcess.warm`). What counts as success
is the completion record that the graph's last operator writes: neither an exit code nor a normal return says that the
work was done. Results are read back besides (`app.jobs.verification`).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

import psutil

from app.errors import GraphFailed
from app.graph import RECORD_FILE, CompletionRecord, GraphRequest
from app.jobs.graph_child import run_in_child
from operators.errors import InferenceFailed, ModelPackageError, OperatorError, SeriesRefused
from operators.shared_memory import remove_stale_regions

__all__ = ["CompletionRecord", "GraphProcess"]

Progress = Callable[[str, int, int], None]

_PRELOAD = ("app.jobs.graph_child", "app.app", "operators.nnunet.warm")
_MAIN_PROGRAM = "app.cli"
"""A child imports its main program anew, and with the server's that takes a second; so it is preloaded too."""
_LOOK_SECONDS = 0.1
_END_SECONDS = 10.0
"""How long a process that was told to end, or said it is done, may take."""
_KINDS: dict[str, type[OperatorError]] = {
    kind.__name__: kind for kind in (OperatorError, SeriesRefused, ModelPackageError, InferenceFailed)
}
_starting = threading.Lock()
"""One start at a time: multiprocessing keeps its children in a plain set, and `warm` changes the environment."""


@dataclass
class _Run:
    """A run in progress, as the thread that waits for it sees it."""

    request: GraphRequest
    process: ForkServerProcess
    messages: Connection
    cancelled: threading.Event = field(default_factory=threading.Event)


class GraphProcess:
    """Runs graphs, each in a process of its own. `run` may be called from several threads at once.

    Parameters
    ----------
    preload
        Modules that the fork server imports, so that no run has to.
    """

    def __init__(self, preload: Sequence[str] = _PRELOAD) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._preload = list(preload)
        self._runs: list[_Run] = []
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Start the fork server now. Call it before threads, sockets and locks exist that it would inherit."""
        main_program = [_MAIN_PROGRAM] if _MAIN_PROGRAM in sys.modules else []
        self._context.set_forkserver_preload([*self._preload, *main_program])
        with _starting, _search_path_in_environment():
            forkserver.ensure_running()

    def run(
        self,
        request: GraphRequest,
        application: str,
        *,
        time_limit_seconds: float,
        memory_limit_bytes: int,
        progress: Progress,
    ) -> CompletionRecord:
        """Run one graph to its end and return its completion record.

        Parameters
        ----------
        application
            What to run, as ``module:Class``; called with the request and a progress function, then its ``run()``.
        memory_limit_bytes
            Of resident memory; the run is ended above it.
        progress
            Called from this thread.

        Raises
        ------
        GraphFailed
            ``graph-crashed``, ``graph-timed-out``, ``graph-out-of-memory``, ``graph-no-record``, ``graph-cancelled``,
            or ``graph-failed`` after an unexpected error in it.
        OperatorError
            What the graph itself raised: `SeriesRefused`, `InferenceFailed`, `ModelPackageError`.
        """
        request.output_folder.mkdir(parents=True, exist_ok=True)
        record_path = request.output_folder / RECORD_FILE
        record_path.unlink(missing_ok=True)
        with self._started(request, application, memory_limit_bytes) as run:
            outcome = _outcome(run, time.monotonic() + time_limit_seconds, memory_limit_bytes, progress)
            exit_code = _ended(run.process)
        _raise_unless_done(outcome, exit_code, time_limit_seconds, memory_limit_bytes)
        try:
            return CompletionRecord.from_json(record_path.read_bytes())
        except (OSError, ValueError) as error:
            raise GraphFailed(
                "the graph ended without its completion record; an operator did not run or did not emit",
                code="graph-no-record",
            ) from error

    def cancel(self) -> None:
        """End all runs in progress; each raises ``graph-cancelled``."""
        with self._lock:
            for run in self._runs:
                run.cancelled.set()

    @contextmanager
    def _started(self, request: GraphRequest, application: str, memory_limit_bytes: int) -> Iterator[_Run]:
        self.warm()
        receiving, sending = self._context.Pipe(duplex=False)
        lifeline, kept = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=run_in_child, args=(sending, lifeline, request, application, memory_limit_bytes), daemon=True
        )
        with _starting:
            process.start()
        sending.close()  # so that the child's end is the only one, and its death ends the stream
        lifeline.close()
        run = _Run(request, process, receiving)
        with self._lock:
            self._runs.append(run)
        try:
            yield run
        finally:
            with self._lock:
                self._runs.remove(run)
            _kill(process)
            receiving.close()
            kept.close()
            remove_stale_regions()


def _outcome(run: _Run, deadline: float, memory_limit_bytes: int, progress: Progress) -> list[Any]:
    """Wait for the process's last word, or say in its place why there is none."""
    watched = _watched(run.process)
    while True:
        try:
            while run.messages.poll(_LOOK_SECONDS):
                message = json.loads(run.messages.recv_bytes())
                if message[0] != "progress":
                    return list(message)
                progress(str(message[1]), int(message[2]), int(message[3]))
        except (EOFError, OSError):
            return ["crashed"]
        if run.cancelled.is_set():
            return ["cancelled"]
        if time.monotonic() > deadline:
            return ["timed-out"]
        if watched is not None and _resident_bytes(watched) > memory_limit_bytes:
            return ["memory"]


def _watched(process: ForkServerProcess) -> psutil.Process | None:
    try:
        return psutil.Process(process.pid)
    except psutil.NoSuchProcess:
        return None


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
    except psutil.Error:
        return 0


def _ended(process: ForkServerProcess) -> int | None:
    """Its exit code, killing it if it does not end; None if it did not end by itself."""
    process.join(_LOOK_SECONDS)
    return process.exitcode


def _kill(process: ForkServerProcess) -> None:
    if process.is_alive() and process.pid is not None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its group is its own as soon as it runs
        process.kill()
    process.join(_END_SECONDS)


def _raise_unless_done(
    outcome: list[Any], exit_code: int | None, time_limit_seconds: float, memory_limit_bytes: int
) -> None:
    kind, *facts = outcome
    if kind == "done":
        return
    if kind == "refused":
        raise _KINDS.get(facts[0], OperatorError)(facts[2], code=facts[1])
    if kind == "crashed":
        raise GraphFailed(f"the graph's process died{_by_signal(exit_code)}", code="graph-crashed")
    if kind == "timed-out":
        raise GraphFailed(
            f"the graph did not end within {time_limit_seconds:g} s and was ended; "
            "raise the pipeline's time_limit_seconds if it needs longer",
            code="graph-timed-out",
        )
    if kind == "memory":
        raise GraphFailed(
            f"the graph needed more than {memory_limit_bytes / 2**30:.2f} GiB and was ended; "
            "raise the pipeline's memory_limit_bytes if the machine has more",
            code="graph-out-of-memory",
        )
    if kind == "cancelled":
        raise GraphFailed("the graph was ended because the server stops", code="graph-cancelled")
    raise GraphFailed(f"the graph failed: {facts[0]}", code="graph-failed")


def _by_signal(exit_code: int | None) -> str:
    # multiprocessing says 255 when it does not know
    if exit_code is None or exit_code >= 0:
        return ""
    with suppress(ValueError):
        return f" of {signal.Signals(-exit_code).name}"
    return f" of signal {-exit_code}"


@contextmanager
def _search_path_in_environment() -> Iterator[None]:
    """The fork server finds modules by PYTHONPATH only: it imports its preload before it is told ``sys.path``."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
