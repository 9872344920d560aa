"""The scale of a run, and the table of figures at its end."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.figures import Figures, as_table, is_whole, read, write_page

_FILE = "LIMNER_TEST_FIGURES"
_PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "chaos.md"


def pytest_configure(config: pytest.Config) -> None:
    """The process that controls the run makes the file; those that run the tests inherit its name."""
    if _FILE not in os.environ:
        descriptor, name = tempfile.mkstemp(prefix="limner-figures-", suffix=".jsonl")
        os.close(descriptor)
        os.environ[_FILE] = name


@pytest.fixture(scope="session")
def figures() -> Figures:
    """Where a test shows its figures; `CHAOS=full` in the environment asks for the long form."""
    return Figures(Path(os.environ[_FILE]), is_full=os.environ.get("CHAOS") == "full")


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    """Print the table; that of a long form in which every test ran to its end, and well, is kept in the page."""
    if hasattr(config, "workerinput"):
        return
    path = Path(os.environ[_FILE])
    shown = read(path)
    path.unlink(missing_ok=True)
    if not shown:
        return
    terminalreporter.write_sep("=", "figures")
    terminalreporter.write_line(as_table(shown))
    if os.environ.get("CHAOS") == "full" and is_whole(exitstatus, terminalreporter.stats):
        write_page(_PAGE, shown)
