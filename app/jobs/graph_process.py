"""One run of an operator graph in a process of its own, that may crash, hang or leak without hurting the server.

The process is forked from a fork server that has imported what is slow (`GraphProcess.warm`). What counts as success
is the completion record that the graph's last operator writes: neither an exit code nor a normal return says that the
work was done. Results are read back besides (`app.jobs.verification`).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from app.errors import GraphFailed
from app.graph import RECORD_FILE, CompletionRecord, GraphRequest
from app.jobs.child_process import ChildProcess, by_signal, refusal, warm
from app.jobs.graph_child import run_in_child
from app.jobs.host_faults import disk_failed_by, host_faults_waited_for

__all__ = ["CompletionRecord", "GraphProcess"]

Progress = Callable[[str, int, int], None]

PRELOAD = ("app.jobs.graph_child", "app.app", "operators.nnunet.warm", "operators.results.warm")
PROMPTED_PRELOAD = ("app.prompted",)
"""For pipelines that are prompted."""
_LOOK_SECONDS = 0.1


@dataclass
class _Run:
    """A run in progress, as the thread that waits for it sees it."""

    request: GraphRequest
    process: ChildProcess
    unwanted: threading.Event
    cancelled: threading.Event = field(default_factory=threading.Event)


class GraphProcess:
    """Runs graphs, each in a process of its own. `run` may be called from several threads at once.

    Parameters
    ----------
    preload
        Modules that the fork server imports, so that no run has to.
    """

    def __init__(self, preload: Sequence[str] = PRELOAD) -> None:
        self._preload = list(preload)
        self._runs: list[_Run] = []
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Start the fork server now. Call it before threads, sockets and locks exist that it would inherit."""
        warm(self._preload)

    def run(
        self,
        request: GraphRequest,
        application: str,
        *,
        time_limit_seconds: float,
        memory_limit_bytes: int,
        progress: Progress,
        unwanted: threading.Event | None = None,
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
        unwanted
            Set from another thread: nobody waits for this run any more, and it is ended at once.

        Raises
        ------
        GraphFailed
            ``graph-crashed``, ``graph-timed-out``, ``graph-out-of-memory``, ``graph-no-record``, ``graph-cancelled``,
            or ``graph-failed`` after an unexpected error in it.
        OperatorError
            What the graph itself raised: `SeriesRefused`, `InferenceFailed`, `ModelPackageError`.
        StorageError
            ``disk-failed`` if a disk of this host failed it, or does not give its record.
        """
        request.output_folder.mkdir(parents=True, exist_ok=True)
        record_path = request.output_folder / RECORD_FILE
        record_path.unlink(missing_ok=True)
        with self._started(request, application, memory_limit_bytes, unwanted or threading.Event()) as run:
            outcome = _outcome(run, time.monotonic() + time_limit_seconds, memory_limit_bytes, progress)
            exit_code = run.process.exit_code(_LOOK_SECONDS)
        _raise_unless_done(outcome, exit_code, time_limit_seconds, memory_limit_bytes)
        try:
            with host_faults_waited_for():
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
    def _started(
        self, request: GraphRequest, application: str, memory_limit_bytes: int, unwanted: threading.Event
    ) -> Iterator[_Run]:
        self.warm()
        process = ChildProcess(run_in_child, (request, application, memory_limit_bytes))
        run = _Run(request, process, unwanted)
        with self._lock:
            self._runs.append(run)
        try:
            yield run
        finally:
            with self._lock:
                self._runs.remove(run)
            process.end()


def _outcome(run: _Run, deadline: float, memory_limit_bytes: int, progress: Progress) -> list[Any]:
    """Wait for the process's last word, or say in its place why there is none.

    The limits are looked at after each message: a process that never falls silent has them too.
    """
    weighed = time.monotonic()
    while True:
        try:
            if run.process.has_message(_LOOK_SECONDS):
                message = json.loads(run.process.connection.recv_bytes())
                if message[0] != "progress":
                    return list(message)
                progress(str(message[1]), int(message[2]), int(message[3]))
        except (EOFError, OSError):
            return ["crashed"]
        if run.cancelled.is_set() or run.unwanted.is_set():
            return ["cancelled"]
        now = time.monotonic()
        if now > deadline:
            return ["timed-out"]
        if now - weighed >= _LOOK_SECONDS:  # not after each message: it costs more than one
            weighed = now
            if run.process.resident_bytes() > memory_limit_bytes:
                return ["memory"]


def _raise_unless_done(
    outcome: list[Any], exit_code: int | None, time_limit_seconds: float, memory_limit_bytes: int
) -> None:
    kind, *facts = outcome
    if kind == "done":
        return
    if kind == "refused":
        raise refusal(*facts)
    if kind == "host":
        raise disk_failed_by(*facts)
    if kind == "crashed":
        raise GraphFailed(f"the graph's process died{by_signal(exit_code)}", code="graph-crashed")
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
        raise GraphFailed(
            "the graph was ended because the server stops, or nobody waits for it any more", code="graph-cancelled"
        )
    raise GraphFailed(f"the graph failed: {facts[0]}", code="graph-failed")
