"""Processes of sessions that go wrong on purpose; each takes the place of `app.web.session_child.run_session`."""

from __future__ import annotations

import json
import os
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from app.jobs.child_isolation import die_with_server, isolate


def say(connection: Connection, *message: Any) -> None:
    connection.send_bytes(json.dumps(message).encode())


def begin(connection: Connection, lifeline: Connection, memory_limit_bytes: int) -> dict[str, Any]:
    """Do as a good one does up to the first request, and return that."""
    isolate(memory_limit_bytes)
    die_with_server(lifeline)
    say(connection, "done", {"geometry": {}}, 0)
    request: dict[str, Any] = json.loads(connection.recv_bytes())
    return request


def planted(connection: Connection, lifeline: Connection, task: Any, memory_limit_bytes: int) -> None:
    """Do what the request names."""
    request = begin(connection, lifeline, memory_limit_bytes)
    kept = []
    while True:
        match request["ask"]:
            case "hang":
                time.sleep(3600)
            case "crash":
                os.abort()
            case "crash with a child":  # that holds all that this one does
                if not os.fork():
                    time.sleep(3600)
                os.abort()
            case "end":
                os._exit(0)
            case "grow":
                while True:
                    kept.append(np.ones(4 << 20))
                    time.sleep(0.01)
            case "rubbish":
                connection.send_bytes(b"\x80\x04pickled")
            case "nested":
                connection.send_bytes(b"[" * 100_000)
            case "short":
                say(connection, "done", {}, 100)
                connection.send_bytes(b"\0" * 7)
            case "endless":
                say(connection, "done", {}, 1 << 62)
            case "no facts":
                say(connection, "done", "facts", 0)
            case "unknown":
                say(connection, "surprise")
            case "half":  # a message that is announced, and never comes whole
                os.write(connection.fileno(), b"\0\0\x10\0half")
                time.sleep(3600)
            case "refuse":
                say(connection, "refused", "PromptRefused", "prompt-empty", "nothing is shown")
            case "slow":
                for done in range(6):
                    time.sleep(0.3)
                    say(connection, "progress", done, 6)
                say(connection, "done", {"steps": 1}, 3)
                connection.send_bytes(b"abc")
        request = json.loads(connection.recv_bytes())
