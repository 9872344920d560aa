"""Whatever a session's process does, the server learns what it was within its time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.errors import SessionLost
from app.web import session_process
from app.web.session_process import SessionProcess
from operators.errors import PromptRefused
from tests.unit.app.web.planted_sessions import planted

LIMIT_BYTES = 1 << 30
DEADLINE_SECONDS = 1.0


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[SessionProcess]:
    monkeypatch.setattr(session_process, "run_session", planted)
    task: Any = Path("nothing")
    one = SessionProcess(task, memory_limit_bytes=LIMIT_BYTES, deadline_seconds=20)
    one.described()
    monkeypatch.setattr(one, "_deadline_seconds", DEADLINE_SECONDS)
    yield one
    one.end()


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        ("hang", "session-timed-out"),
        ("crash", "session-crashed"),
        ("crash with a child", "session-crashed"),
        ("end", "session-crashed"),
        ("rubbish", "session-failed"),
        ("nested", "session-failed"),
        ("short", "session-failed"),
        ("endless", "session-failed"),
        ("no facts", "session-failed"),
        ("unknown", "session-failed"),
    ],
)
def test_a_process_that_goes_wrong_is_ended_and_named(process: SessionProcess, ask: str, code: str) -> None:
    with pytest.raises(SessionLost) as caught:
        process.ask({"ask": ask})
    assert caught.value.code == code
    assert not psutil.pid_exists(process.pid)
    with pytest.raises(SessionLost):
        process.ask({"ask": "refuse"})


def test_one_that_grows_is_ended(process: SessionProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_deadline_seconds", 60.0)
    with pytest.raises(SessionLost) as caught:
        process.ask({"ask": "grow"})
    assert caught.value.code == "session-out-of-memory"
    assert not psutil.pid_exists(process.pid)


def test_a_refusal_ends_nothing_and_progress_gives_time(process: SessionProcess) -> None:
    with pytest.raises(PromptRefused) as caught:
        process.ask({"ask": "refuse"})
    assert caught.value.code == "prompt-empty"
    seen: list[int] = []
    answer = process.ask({"ask": "slow"}, lambda done, most: seen.append(done))
    assert (answer.facts, answer.content) == ({"steps": 1}, b"abc")
    assert seen == [0, 1, 2, 3, 4, 5]


def test_one_that_stops_in_the_middle_of_a_message_is_noticed_from_beside(process: SessionProcess) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(process.ask, {"ask": "half"})
        deadline = time.monotonic() + 20
        while not process.is_stuck():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.end()
        with pytest.raises(SessionLost):
            waiting.result(20)
    assert not process.is_stuck()
