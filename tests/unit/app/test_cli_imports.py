"""The command line starts at once: only a command that computes brings in what computes."""

from __future__ import annotations

import subprocess
import sys

_SLOW = ("numba", "scipy.ndimage", "operators.nnunet", "onnx", "torch", "monai")


def test_the_command_line_starts_without_what_computes() -> None:
    look = f"import sys, app.cli; print(*[name for name in {_SLOW!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
