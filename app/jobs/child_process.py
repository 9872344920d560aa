"""A process of its own for what reads strangers' pixels, as the server sees it: started, watched, ended.

It is forked from a fork server that has imported what is slow (`warm`), and tells the server what it has to say over
a connection, in messages that are never pickles.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import wait
from typing import Any

import psutil

from operators.errors import InferenceFailed, ModelPackageError, OperatorError, PromptRefused, SeriesRefused
from operators.shared_memory import remove_stale_regions

_MAIN_PROGRAM = "app.cli"
"""A child imports its main program anew, and with the server's that takes a second; so it is preloaded too."""
_END_SECONDS = 10.0
"""How long a process that was told to end, or said it is done, may take."""
_KINDS: dict[str, type[OperatorError]] = {
    kind.__name__: kind for kind in (OperatorError, SeriesRefused, PromptRefused, ModelPackageError, InferenceFailed)
}
_starting = threading.Lock()
"""One start at a time: multiprocessing keeps its children in a plain set, and `warm` changes the environment."""
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
"""What children run with. OpenBLAS's threads wait for their next product by spinning, and take the cores from the
Triton that the child waits for: a prompt took twice as long. No product here is large enough to gain by them."""
_context = multiprocessing.get_context("forkserver")


def warm(preload: Sequence[str]) -> None:
    """Start the fork server now. Call it before threads, sockets and locks exist that it would inherit.

    Parameters
    ----------
    preload
        Modules that it imports, so that no child has to. A fork server that runs keeps those it began with.
    """
    main_program = [_MAIN_PROGRAM] if _MAIN_PROGRAM in sys.modules else []
    _context.set_forkserver_preload([*preload, *main_program])
    with _starting, _prepared_environment():
        forkserver.ensure_running()


class ChildProcess:
    """One such process. It runs ``target(connection, lifeline, *arguments)``, and ends with this one.

    Parameters
    ----------
    target
        A function of a module; it calls `app.jobs.child_isolation.isolate` and `die_with_server` first.
    arguments
        Pickled on their way to it.
    duplex
        Whether it is spoken to as well; otherwise it only speaks.
    """

    def __init__(self, target: Callable[..., None], arguments: Sequence[Any], *, duplex: bool = False) -> None:
        self.connection, child_end = _context.Pipe(duplex=duplex)
        lifeline, self._kept = _context.Pipe(duplex=False)
        self._process = _context.Process(target=target, args=(child_end, lifeline, *arguments), daemon=True)
        with _starting:
            self._process.start()
        child_end.close()  # so that the child's end is the only one, and its death ends the stream
        lifeline.close()
        self._watched: psutil.Process | None = None
        with suppress(psutil.NoSuchProcess):
            self._watched = psutil.Process(self._process.pid)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid or 0

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def resident_bytes(self) -> int:
        """Return the memory that it and its children hold; 0 if that can't be told."""
        if self._watched is None:
            return 0
        try:
            family = (self._watched, *self._watched.children(recursive=True))
            return sum(one.memory_info().rss for one in family)
        except psutil.Error:
            return 0

    def exit_code(self, wait_seconds: float) -> int | None:
        """Return how it ended; None if it does not within this time."""
        self._process.join(wait_seconds)
        return self._process.exitcode

    def has_message(self, wait_seconds: float) -> bool:
        """Wait so long at most until there is something to read from it, and say whether there is.

        Raises
        ------
        EOFError
            If it has ended, and all that it said was read. A child of its own may hold the connection open, so that
            this has no end by itself.
        """
        ready = wait([self.connection, self._process.sentinel], wait_seconds)
        if ready and self.connection not in ready and not self.connection.poll(0):  # its last word may be just there
            raise EOFError
        return bool(ready)

    def kill(self) -> None:
        """Kill it with all its children, also those that outlived it.

        From any thread, also while another one reads from it.
        """
        if self._process.pid is None or self._is_followed():
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its group is its own as soon as it runs
        if self._process.is_alive():
            self._process.kill()

    def _is_followed(self) -> bool:
        """Whether another process has its number: of its group nobody is left then, for that would keep the number."""
        is_it = self._watched is not None and self._watched.is_running()
        return not is_it and psutil.pid_exists(self.pid)

    def end(self) -> None:
        """Kill it, close the connection and remove what it left. Nobody may be reading from it."""
        self.kill()
        self._process.join(_END_SECONDS)
        self.connection.close()
        self._kept.close()
        remove_stale_regions()


def refusal(kind: str, code: str, message: str) -> OperatorError:
    """Return the error that a child named by `app.jobs.child_isolation.failure_of`."""
    return _KINDS.get(kind, OperatorError)(message, code=code)


def by_signal(exit_code: int | None) -> str:
    """Return " of SIGNAL" if that ended a process; else nothing."""
    # multiprocessing says 255 when it does not know
    if exit_code is None or exit_code >= 0:
        return ""
    with suppress(ValueError):
        return f" of {signal.Signals(-exit_code).name}"
    return f" of signal {-exit_code}"


@contextmanager
def _prepared_environment() -> Iterator[None]:
    """What the fork server begins with; it imports its preload before it is told ``sys.path``."""
    wanted = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **ENVIRONMENT}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
