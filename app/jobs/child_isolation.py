"""How a process that reads what a stranger sent limits itself, dies with the server, and says what went wrong in it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import sys
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from app.jobs.host_faults import is_of_the_host
from operators.errors import OperatorError

_PR_SET_PDEATHSIG = 1
_ADDRESS_MARGIN_BYTES = 4 << 30
"""What may be mapped beyond the memory limit: stacks of threads and arenas are reserved, not used."""


def isolate(memory_limit_bytes: int) -> None:
    """Give this process a group of its own, that leaves no core, writes to no terminal and holds so much memory."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = memory_limit_bytes + _ADDRESS_MARGIN_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or most < hard:
        # a backstop to the server's watch: an allocation that jumps over the limit between two looks fails
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    warnings.simplefilter("ignore")


def die_with_server(lifeline: Connection) -> None:
    """Let the kernel end this process when the server is gone: no thread of it may be able to run by then.

    The server holds the other end of `lifeline`, and nobody else: its closing ends this process. The parent's death,
    which is the usual signal, is not enough. The parent is the fork server, and that lives on as long as a child of it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    descriptor = lifeline.fileno()
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
    if lifeline.poll(0):  # it was closed before the kernel was told
        os.kill(os.getpid(), signal.SIGKILL)


def failure_of(error: Exception) -> list[Any]:
    """Return what the server is told of an error, as JSON knows it.

    ``["refused", kind, code, message]`` of the image path's own errors, whose messages hold no data of a patient;
    ``["memory"]``; ``["host", why]`` of a disk that can't be used; of an unexpected one its type and where it was
    raised: ``["failed", message]``.
    """
    if isinstance(error, OperatorError):
        return ["refused", type(error).__name__, error.code, str(error)]
    if isinstance(error, MemoryError):
        return ["memory"]
    if isinstance(error, OSError) and is_of_the_host(error):
        return ["host", os.strerror(error.errno or 0)]
    return ["failed", f"{type(error).__name__} in {_place(error)}"]


def _place(error: Exception) -> str:
    """File and line of the innermost frame: says where, and nothing of the data."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else f"{sys.argv[0]}"
