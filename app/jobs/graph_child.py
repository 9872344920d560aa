"""What runs in the process of one graph: it limits itself, runs the application, tells the server how it went.

Messages to the server are JSON, never pickles: this process has read what a stranger sent. They carry codes and
messages that are written without patient data; of an unexpected error only its type and where it was raised.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import json
import os
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from app.graph import GraphRequest
from operators.errors import OperatorError

_PR_SET_PDEATHSIG = 1
_ADDRESS_MARGIN_BYTES = 4 << 30
"""What may be mapped beyond the memory limit: stacks of threads and arenas are reserved, not used."""


def run_in_child(
    connection: Connection, lifeline: Connection, request: GraphRequest, application: str, memory_limit_bytes: int
) -> None:
    """Run `application` (``module:Class``) on `request` and leave the process.

    The server holds the other end of `lifeline`, and nobody else: its closing ends this process.
    Messages: ``["progress", step, done, total]``, then one of ``["done"]``, ``["refused", kind, code, message]``,
    ``["memory"]`` and ``["failed", message]``.
    """
    _isolate(memory_limit_bytes)
    _die_with_server(lifeline)
    try:
        _application(application)(request, _reporter(connection)).run()
        outcome = ["done"]
    except OperatorError as error:
        outcome = ["refused", type(error).__name__, error.code, str(error)]
    except MemoryError:
        outcome = ["memory"]
    except Exception as error:  # noqa: BLE001 - the process's border: what it is must reach the server
        outcome = ["failed", f"{type(error).__name__} in {_place(error)}"]
    _send(connection, outcome)
    connection.close()
    # neither Holoscan's nor gRPC's end of process is waited for: all that counts is on disk, and said
    os._exit(0)


def _isolate(memory_limit_bytes: int) -> None:
    """A group of its own, that leaves no core and writes to no terminal."""
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


def _die_with_server(lifeline: Connection) -> None:
    """Let the kernel end this process when the server is gone: no thread of it may be able to run by then.

    The parent's death, which is the usual signal, is not enough. The parent is the fork server, and that lives on as
    long as a child of it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    descriptor = lifeline.fileno()
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
    if lifeline.poll(0):  # it was closed before the kernel was told
        os.kill(os.getpid(), signal.SIGKILL)


def _application(name: str) -> Callable[[GraphRequest, Callable[[str, int, int], None]], Any]:
    module, _, attribute = name.partition(":")
    found: Callable[[GraphRequest, Callable[[str, int, int], None]], Any] = getattr(
        importlib.import_module(module), attribute
    )
    return found


def _reporter(connection: Connection) -> Callable[[str, int, int], None]:
    return lambda step, done, total: _send(connection, ["progress", step, int(done), int(total)])


def _send(connection: Connection, message: list[Any]) -> None:
    connection.send_bytes(json.dumps(message).encode())


def _place(error: Exception) -> str:
    """File and line of the innermost frame: says where, and nothing of the data."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else f"{sys.argv[0]}"
