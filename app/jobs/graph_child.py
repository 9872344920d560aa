"""What runs in the process of one graph: it limits itself, runs the application, tells the server how it went.

Messages to the server are JSON, never pickles: this process has read what a stranger sent. They carry codes and
messages that are written without patient data; of an unexpected error only its type and where it was raised.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from app.graph import GraphRequest
from app.jobs.child_isolation import die_with_server, failure_of, isolate


def run_in_child(
    connection: Connection, lifeline: Connection, request: GraphRequest, application: str, memory_limit_bytes: int
) -> None:
    """Run `application` (``module:Class``) on `request` and leave the process.

    The server holds the other end of `lifeline`, and nobody else: its closing ends this process.
    Messages: ``["progress", step, done, total]``, then one of ``["done"]``, ``["refused", kind, code, message]``,
    ``["memory"]``, ``["host", why]`` and ``["failed", message]``.
    """
    isolate(memory_limit_bytes)
    die_with_server(lifeline)
    try:
        _application(application)(request, _reporter(connection)).run()
        outcome = ["done"]
    except Exception as error:  # noqa: BLE001 - the process's border: what it is must reach the server
        outcome = failure_of(error)
    _send(connection, outcome)
    connection.close()
    # neither Holoscan's nor gRPC's end of process is waited for: all that counts is on disk, and said
    os._exit(0)


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
