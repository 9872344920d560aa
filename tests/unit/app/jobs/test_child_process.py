"""A process of its own, from a fork server that was prepared."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from app.jobs.child_process import ENVIRONMENT, ChildProcess
from tests.triton_fixture import REPOSITORY_ROOT
from tests.unit.app.jobs.planted_children import count_threads

# a fork server that runs keeps the environment that it began with: this one is of the test alone
PROGRAM = """
import os
from app.jobs.child_process import ChildProcess, warm
from tests.unit.app.jobs.planted_children import count_threads
warm(["numpy"])
child = ChildProcess(count_threads, ())
print(*child.connection.recv(), os.environ.get("OPENBLAS_NUM_THREADS"))
child.end()
"""


def test_a_child_multiplies_matrices_with_one_thread() -> None:
    """Threads that spin while they wait would take the cores from the Triton that the child waits for."""
    assert ENVIRONMENT["OPENBLAS_NUM_THREADS"] == "1"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=REPOSITORY_ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["800.0", "1", "None"], done.stderr


def test_a_number_that_another_process_has_by_now_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    child = ChildProcess(count_threads, ())
    try:
        child.connection.recv()
        assert child.exit_code(60) == 0
        killed: list[int] = []
        monkeypatch.setattr(os, "killpg", lambda number, _signal: killed.append(number))
        child.kill()
        assert killed == [child.pid]  # whoever outlived it has its group
        monkeypatch.setattr(psutil, "pid_exists", lambda number: True)
        child.kill()
        assert killed == [child.pid]
    finally:
        child.end()
