"""Setting up says what is wrong with an interpreter and what to do, before it touches anything."""

import os
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def set_up(*names: str, python: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [REPOSITORY / "deploy" / "environment.sh", *names],
        env={**os.environ, "PYTHON": python},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_unfit_interpreter_is_named_with_its_fault(tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\ncat >/dev/null; echo 'is Python 3.9, and 3.11 or 3.12 is needed'\n")
    old.chmod(0o755)
    result = set_up("server", python=f"no-such-python /bin/false {old}")
    assert result.returncode == 1
    assert "no-such-python not found" in result.stderr
    assert "/bin/false does not run" in result.stderr
    assert f"{old} is Python 3.9" in result.stderr
    assert "apt install python3.11 python3.11-venv libpython3.11" in result.stderr


def test_unknown_environment_is_refused() -> None:
    result = set_up("exporter-of-dreams", python="python3.11")
    assert result.returncode == 1
    assert "unknown environment 'exporter-of-dreams'" in result.stderr
