"""The Triton that comes with Limner: started, watched, restarted and ended with it.

It listens on unix sockets in a private folder, never on a TCP port. A thread watches it: when the process dies, when
a model's process dies (the server itself would go on and answer every request with an error), or when a real tiny
inference fails several times in a row, the server is started anew at the same address.
"""

from __future__ import annotations

import secrets
import threading
import time
from pathlib import Path
from types import TracebackType

import structlog

from app.errors import ServingError
from app.serving.triton_folder import TritonFolder
from app.serving.triton_process import (
    SHARED_MEMORY_PREFIX,
    TritonParts,
    TritonProcess,
    log_tail,
    remove_leftovers,
)
from operators.errors import InferenceFailed
from operators.shared_memory import process_mark, remove_stale_regions
from operators.triton import PROBE_MODEL, probe, unregister_stale_regions

_LOG = structlog.get_logger(__name__)
_WATCH_SECONDS = 0.25
_READY_POLL_SECONDS = 0.1
_PROBE_DEADLINE_SECONDS = 15.0
_PROBE_FAILURES = 3
_SHORTEST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0


class EmbeddedTriton:
    """A Triton as a child process; also a context manager.

    Parameters
    ----------
    python
        The interpreter of Triton's own environment (``requirements/triton.txt``).
    repository
        The model repository; it must hold the probe's model.
    run_folder
        Where its private folder and its log ``triton.log`` go; made if missing.
    start_seconds
        Longest wait until it answers.
    probe_seconds
        How often it is asked for a tiny inference.
    model_configuration
        Where a model has ``configs/<this>.pbtxt``, that is taken instead of its ``config.pbtxt``.
    """

    def __init__(
        self,
        python: Path,
        repository: Path,
        run_folder: Path,
        *,
        start_seconds: float,
        probe_seconds: float,
        model_configuration: str | None = None,
    ) -> None:
        self._python = python
        self._repository = repository
        self._run_folder = run_folder
        self._start_seconds = start_seconds
        self._probe_seconds = probe_seconds
        self._model_configuration = model_configuration
        self._log_file = run_folder / "triton.log"
        self._folder: TritonFolder | None = None
        self._process: TritonProcess | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._ready = False
        self._failure: ServingError | None = None
        self._restarts = 0

    def __enter__(self) -> EmbeddedTriton:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def target(self) -> str:
        """Its gRPC address; the same from start to stop, whatever happens to the server in between."""
        if self._folder is None:
            raise ServingError("the embedded Triton was not started", code="triton-not-started")
        return self._folder.target

    @property
    def restarts(self) -> int:
        """How often the server was started anew."""
        return self._restarts

    @property
    def pid(self) -> int | None:
        """The process number of the present server; None between two."""
        process = self._process
        return None if process is None else process.pid

    def stub_pids(self) -> list[int]:
        """The process numbers of the models' instances; empty between two servers."""
        process = self._process
        return [] if process is None else process.stub_pids()

    def is_alive(self) -> bool:
        """Whether it answered when last asked, and its processes run."""
        process = self._process
        return self._ready and process is not None and process.exit_status() is None and not process.has_lost_stub()

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises
        ------
        ServingError
            ``triton-environment`` if its environment is not usable, ``triton-repository`` if the repository lacks
            the probe or the model configuration, ``triton-start`` with the log's tail if it did not come up.
        """
        if self._thread is not None:
            raise ServingError("the embedded Triton is running already", code="triton-running")
        if not (self._repository / PROBE_MODEL).is_dir():
            raise ServingError(
                f"the model repository lacks {PROBE_MODEL}; copy that folder from Limner's triton_models",
                code="triton-repository",
            )
        self._check_model_configuration()
        parts = TritonParts.find(self._python)
        self._run_folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self._run_folder)
        remove_stale_regions()
        self._folder = TritonFolder.make(self._run_folder)
        parts.lay_out_backends(self._folder.backends)
        self._stopping.clear()
        self._failure = None
        # the server is bound to the life of the thread that starts it, so one thread does so from first to last
        self._thread = threading.Thread(target=self._supervise, args=(parts,), name="triton-supervisor", daemon=True)
        self._thread.start()
        try:
            self.wait_ready(self._start_seconds + _PROBE_DEADLINE_SECONDS)
        except ServingError:
            self.stop()
            raise

    def _check_model_configuration(self) -> None:
        """The server takes a name that no model has without a word, and would serve all as if none were given."""
        name = self._model_configuration
        if name is not None and not any(self._repository.glob(f"*/configs/{name}.pbtxt")):
            raise ServingError(
                f"no model of {self._repository} has configs/{name}.pbtxt; write one, or leave out "
                "triton.model_configuration",
                code="triton-repository",
            )

    def stop(self) -> None:
        """End it, let what it is computing finish for a while, and leave nothing behind but its log."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.remove()

    def wait_ready(self, timeout: float) -> None:
        """Wait until it answers, through a restart if need be.

        Raises
        ------
        ServingError
            If it does not within `timeout` seconds, or could not be started at all.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._failure is not None, timeout)
            if self._ready:
                return
            failure = self._failure
        if failure is not None:
            raise failure
        raise ServingError(
            f"the embedded Triton did not answer within {timeout:g} s:\n{log_tail(self._log_file)}", code="triton-start"
        )

    # --- in the supervisor's thread ---

    def _supervise(self, parts: TritonParts) -> None:
        pause, aborts = _SHORTEST_PAUSE_SECONDS, 0
        while not self._stopping.is_set():
            try:
                self._process = self._launch(parts)
                self._await_answer(self._process)
                pause, aborts = _SHORTEST_PAUSE_SECONDS, 0
                reason = self._watch(self._process)
                self._tell(ready=False, failure=None)
            except ServingError as error:
                reason = error.code
                # on a very busy machine the python backend may abort while it loads: that is tried once more
                aborted = self._process is not None and (self._process.exit_status() or 0) < 0
                aborts += aborted
                self._tell(ready=False, failure=None if aborted and aborts == 1 else error)
            self._end_process()
            if not self._stopping.is_set():
                _LOG.error("triton_restarts", reason=reason, pause_seconds=pause)
                self._restarts += 1
                self._stopping.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _launch(self, parts: TritonParts) -> TritonProcess:
        folder = self._folder
        if folder is None:
            raise ServingError("the embedded Triton has no folder", code="triton-not-started")
        prefix = f"{SHARED_MEMORY_PREFIX}{process_mark()}_{secrets.token_hex(4)}_"
        try:
            folder.remove_sockets()
            return TritonProcess(
                parts,
                self._repository,
                folder,
                self._log_file,
                prefix,
                model_configuration=self._model_configuration,
            )
        except OSError as error:
            raise ServingError(f"the embedded Triton can't be started: {error}", code="triton-start") from error

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end(in_order=self._stopping.is_set())

    def _tell(self, *, ready: bool, failure: ServingError | None) -> None:
        with self._changed:
            self._ready = ready
            self._failure = failure
            self._changed.notify_all()

    def _await_answer(self, process: TritonProcess) -> None:
        end = time.monotonic() + self._start_seconds
        while not self._stopping.wait(_READY_POLL_SECONDS):
            status = process.exit_status()
            if status is not None:
                raise ServingError(
                    f"the embedded Triton ended with status {status}:\n{log_tail(self._log_file)}", code="triton-start"
                )
            if self._answers() is None:
                process.remember_stubs()
                self._tell(ready=True, failure=None)
                return
            if time.monotonic() > end:
                raise ServingError(
                    f"the embedded Triton did not answer within {self._start_seconds:g} s:\n{log_tail(self._log_file)}",
                    code="triton-start",
                )

    def _watch(self, process: TritonProcess) -> str:
        """Return why the server must be started anew, or an empty text when it is to stop."""
        failures, next_probe = 0, time.monotonic() + self._probe_seconds
        while not self._stopping.wait(_WATCH_SECONDS):
            if process.exit_status() is not None:
                return f"it ended with status {process.exit_status()}"
            if process.has_lost_stub():
                return "a model's process ended"
            if time.monotonic() >= next_probe:
                problem = self._answers()
                failures = 0 if problem is None else failures + 1
                if failures >= _PROBE_FAILURES:
                    return f"{failures} probes failed, the last with {problem}"
                next_probe = time.monotonic() + self._probe_seconds
        return ""

    def _answers(self) -> str | None:
        """None if it computes rightly, else the problem's code. What killed clients left with it is let go."""
        try:
            probe(self.target, deadline_seconds=_PROBE_DEADLINE_SECONDS)
            remove_stale_regions()
            unregister_stale_regions(self.target, deadline_seconds=_PROBE_DEADLINE_SECONDS)
        except InferenceFailed as error:
            return error.code
        return None
