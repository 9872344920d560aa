"""The real exporter environment for tests, and untrained folders of nnU-Net made in it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY_ROOT = Path(__file__).resolve().parent.parent
EXPORTER_PYTHON = REPOSITORY_ROOT / ".exporter" / "bin" / "python"
_SCRIPT = REPOSITORY_ROOT / "tests" / "fixtures" / "nnunet" / "untrained.py"


def exporter_python() -> Path:
    """The interpreter of the exporter environment. A test run without it can't say anything: it fails, never skips."""
    if not EXPORTER_PYTHON.exists():
        pytest.fail("the exporter environment is missing: `make exporter` makes it from requirements/exporter.txt")
    return EXPORTER_PYTHON


def make_untrained(kind: str, folder: Path, folds: str = "0") -> Path:
    """Let nnU-Net's own classes make a training with random weights under `folder`, and return its folder."""
    done = subprocess.run(
        [exporter_python(), "-W", "ignore", _SCRIPT, folder, "--kind", kind, "--folds", folds],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(done.stdout.strip().splitlines()[-1])
