"""The command line starts at once: only a command that computes brings in what computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SLOW = ("numba", "scipy.ndimage", "operators.nnunet", "onnx", "torch", "monai")
_TELL = f"print(*[name for name in {_SLOW!r} if name in sys.modules], file=sys.stderr)"


def _brought_in(program: str, folder: Path) -> list[str]:
    """Run a program of ours, and return what it imported of what computes."""
    command = [sys.executable, "-c", f"import sys, app.cli\n{program}\n{_TELL}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    return found.stderr.split()


def test_the_command_line_starts_without_what_computes(tmp_path: Path) -> None:
    assert _brought_in("", tmp_path) == []


def test_a_health_check_brings_in_nothing_that_computes(tmp_path: Path) -> None:
    """A container asks it every half minute."""
    (tmp_path / "limner.toml").write_text("[listener]\nport = 1\n")
    ask = "try:\n    app.cli.app(['check', '--listener', '--settings', 'limner.toml'])\nexcept SystemExit as end:\n    "
    assert _brought_in(f"{ask}assert end.code == 1", tmp_path) == []
