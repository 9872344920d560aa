"""A process of its own, from a fork server that was prepared."""

from __future__ import annotations

import subprocess
import sys

from app.jobs.child_process import ENVIRONMENT
from tests.triton_fixture import REPOSITORY_ROOT

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
