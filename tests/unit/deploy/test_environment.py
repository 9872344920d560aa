"""Setting up says what is wrong with an interpreter and what to do, before it touches anything."""

import os
import shutil
import subprocess
import sys
import zipfile
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


def test_a_torch_with_cuda_is_refused_with_what_to_do(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (copy / "deploy").mkdir(parents=True)
    shutil.copy(REPOSITORY / "deploy" / "environment.sh", copy / "deploy")
    (copy / "requirements").mkdir()
    (copy / "requirements" / "exporter.txt").write_text("")
    wheel = tmp_path / "wheels" / "torch-2.13.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("torch/__init__.py", "raise ImportError('libcudart.so is missing')\n")
        archive.writestr("torch/version.py", "__version__ = '2.13.0'\ncuda = '12.9'\n")
        archive.writestr("torch-2.13.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0\n")
        archive.writestr(
            "torch-2.13.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("torch-2.13.0.dist-info/RECORD", "")
    python = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    result = subprocess.run(
        [copy / "deploy" / "environment.sh", "exporter"],
        env={**os.environ, "PYTHON": python, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "pip chose torch 2.13.0 for CUDA 12.9" in result.stderr
    assert "PIP_EXTRA_INDEX_URL" in result.stderr
    assert list(copy.glob(".exporter/*-limner-environment.sha256")) == []
