"""`make demo` ends with 0 only when it showed what it promises."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.journey.limner_server import REPOSITORY


def _demo(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "deploy/demo/demo.py"],
        cwd=REPOSITORY,
        env={**os.environ, "COLUMNS": "160", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.mark.timeout(700)
def test_the_demonstration_shows_the_way_the_segments_and_the_verified_log() -> None:
    result = _demo()
    assert result.returncode == 0, result.stdout + result.stderr
    steps = ("receive", "infer", "generalist", "verify", "deliver")
    for shown in (
        *steps,
        "Liver",
        "SCT 10200004",
        "Spleen",
        "LiteMedSAM",
        "How far the two agree",
        "audit chain verified",
    ):
        assert shown in result.stdout, shown
    assert (REPOSITORY / ".demo" / "generalist-segmentation.dcm").stat().st_size > 0
    assert (REPOSITORY / ".demo" / "segmentation.dcm").stat().st_size > 0
    assert (REPOSITORY / ".demo" / "overlay.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.timeout(300)
def test_the_demonstration_fails_when_the_server_cannot_start() -> None:
    result = _demo(LIMNER__TRITON__PYTHON="/nonexistent/python")
    assert result.returncode == 1
    assert "server.log" in result.stdout
    assert "audit chain verified" not in result.stdout
