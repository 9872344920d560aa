"""A session's process as the server sees it: asked with a deadline, and ended when it crashes, hangs or grows.

What comes from it is checked before it is used: it has read what a stranger sent.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from app.errors import SessionLost
from app.jobs.child_process import ChildProcess, by_signal, refusal
from app.web.session_child import run_session
from app.web.task import SessionTask

_LOOK_SECONDS = 0.05
_END_SECONDS = 10.0
_MOST_HEADER_BYTES = 16 << 20
_MOST_CONTENT_BYTES = 1 << 30
"""Packed masks: eight thousand million pixels, which is more than any series has."""

Progress = Callable[[int, int], None]


def _unheard(_done: int, _most: int) -> None:
    """Progress that nobody waits for."""


@dataclass(frozen=True)
class Answer:
    """What a session's process answers."""

    facts: Mapping[str, Any]
    content: bytes
    """Packed masks."""


class SessionProcess:
    """One such process. One request at a time; `cancel` and `end` may be called from any thread.

    Parameters
    ----------
    task
        What it works on.
    memory_limit_bytes
        Of resident memory; it is ended above it.
    deadline_seconds
        Longest wait for an answer, or for the next sign of progress.
    """

    def __init__(self, task: SessionTask, *, memory_limit_bytes: int, deadline_seconds: float) -> None:
        self._memory_limit_bytes = memory_limit_bytes
        self._deadline_seconds = deadline_seconds
        self._deadline: float | None = None
        self._asking = threading.RLock()
        self._child = ChildProcess(run_session, (task, memory_limit_bytes), duplex=True)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._child.running

    def is_stuck(self) -> bool:
        """Whether an answer is long overdue: it began one and did not go on."""
        deadline = self._deadline
        return deadline is not None and time.monotonic() > deadline + self._deadline_seconds

    def described(self) -> Answer:
        """Wait until it has read its series; raises as `ask`."""
        with self._asking:
            return self._answer(_unheard)

    def ask(self, request: Mapping[str, Any], progress: Progress = _unheard) -> Answer:
        """Send a request and return its answer.

        Raises
        ------
        OperatorError
            What the process raised on purpose; the session goes on.
        SessionLost
            ``session-crashed``, ``session-timed-out``, ``session-out-of-memory`` or ``session-failed``; the process
            is ended.
        """
        with self._asking:
            try:
                self._child.connection.send_bytes(json.dumps(request).encode())
            except OSError:
                raise self._crashed() from None
            return self._answer(progress)

    def cancel(self) -> None:
        """Tell it to end the 3D that is under way."""
        try:
            self._child.connection.send_bytes(b'{"ask": "cancel"}')
        except OSError:
            return  # it is gone; whoever waits for its answer learns that

    def end(self) -> None:
        """Kill it; whoever waits for an answer gets ``session-crashed``."""
        self._child.kill()
        if self._asking.acquire(timeout=_END_SECONDS):  # whoever reads from it has seen its end by then
            try:
                self._child.end()
            finally:
                self._asking.release()

    def _answer(self, progress: Progress) -> Answer:
        self._deadline = time.monotonic() + self._deadline_seconds
        try:
            while True:
                kind, *facts = self._message()
                if kind != "progress":
                    return self._answered(kind, facts)
                progress(int(facts[0]), int(facts[1]))
                self._deadline = time.monotonic() + self._deadline_seconds
        except (EOFError, OSError):
            raise self._crashed() from None
        except (ValueError, TypeError, IndexError, KeyError, RecursionError):
            self.end()
            raise SessionLost(
                "the session's process answered with what is no answer; open a new one", code="session-failed"
            ) from None
        finally:
            self._deadline = None

    def _answered(self, kind: str, facts: list[Any]) -> Answer:
        if kind == "done":
            told, length = facts
            content = _received(self._child.connection, int(length)) if length else b""
            if not isinstance(told, dict):
                raise TypeError("expected facts by name")
            return Answer(told, content)
        if kind == "refused":
            name, code, message = (str(one) for one in facts)
            raise refusal(name, code, message)
        self.end()
        if kind == "memory":
            raise self._too_large()
        raise SessionLost(f"the session failed: {facts[0]}; open a new one", code="session-failed")

    def _message(self) -> list[Any]:
        """Wait for what it says next."""
        while not self._child.has_message(_LOOK_SECONDS):
            if self._deadline is not None and time.monotonic() > self._deadline:
                self.end()
                raise SessionLost(
                    f"the session did not answer within {self._deadline_seconds:g} s and was ended; open a new one, or "
                    "raise web.request_seconds",
                    code="session-timed-out",
                )
            if self._child.resident_bytes() > self._memory_limit_bytes:
                self.end()
                raise self._too_large()
        message = json.loads(self._child.connection.recv_bytes(_MOST_HEADER_BYTES))
        if not isinstance(message, list) or not message:
            raise ValueError("expected a list")
        return message

    def _crashed(self) -> SessionLost:
        cause = by_signal(self._child.exit_code(1.0))
        self.end()
        return SessionLost(f"the session's process died{cause}; open a new one", code="session-crashed")

    def _too_large(self) -> SessionLost:
        return SessionLost(
            f"the session needed more than {self._memory_limit_bytes / 2**30:.2f} GiB and was ended; raise "
            "web.memory_limit_bytes if the machine has more",
            code="session-out-of-memory",
        )


def _received(connection: Connection, length: int) -> bytes:
    if not 0 < length <= _MOST_CONTENT_BYTES:
        raise ValueError("more than any masks have")
    content = connection.recv_bytes(length)
    if len(content) != length:
        raise ValueError("another length than announced")
    return content
