"""The scale of a run, and the table of figures at its end."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import machine, machine_lines
from tests.chaos.figures import Figures, Taken, as_table, is_of_all, is_whole, read, write_page

_FILE = "LIMNER_TEST_FIGURES"
_FOLDER = Path(__file__).parent
_PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "chaos.md"
_BEGAN = pytest.StashKey[tuple[float, str]]()
"""When a run began, by the monotonic clock, and where, in words."""


def pytest_configure(config: pytest.Config) -> None:
    """The process that controls the run makes the file; those that run the tests inherit its name."""
    config.stash[_BEGAN] = time.monotonic(), machine_lines(machine())[0]
    if _FILE not in os.environ:
        descriptor, name = tempfile.mkstemp(prefix="limner-figures-", suffix=".jsonl")
        os.close(descriptor)
        os.environ[_FILE] = name


@pytest.fixture(scope="session")
def figures() -> Figures:
    """Where a test shows its figures; `CHAOS=full` in the environment asks for the long form."""
    return Figures(Path(os.environ[_FILE]), is_full=os.environ.get("CHAOS") == "full")


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    """Print the table; that of a long form of all tests, each of which ran to its end, and well, goes to the page."""
    if hasattr(config, "workerinput"):
        return
    path = Path(os.environ[_FILE])
    shown = read(path)
    path.unlink(missing_ok=True)
    if not shown:
        return
    terminalreporter.write_sep("=", "figures")
    terminalreporter.write_line(as_table(shown))
    if os.environ.get("CHAOS") != "full":
        return
    passed = [report for report in terminalreporter.stats.get("passed", ()) if report.when == "call"]
    here = [path.name for path in (config.rootpath / one.fspath for one in passed) if path.parent == _FOLDER]
    files = {one.name for one in _FOLDER.glob("test_*.py")}
    if is_whole(exitstatus, terminalreporter.stats) and is_of_all(config.args, set(here), files):
        began, where = config.stash[_BEGAN]
        write_page(_PAGE, shown, Taken(len(here), (time.monotonic() - began) / 60, where))
    else:
        terminalreporter.write_line("The page keeps the figures of the last run in which all tests ran, and passed.")
