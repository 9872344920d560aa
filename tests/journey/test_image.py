"""The container image is built, and a study goes through a container of it."""

import subprocess
from pathlib import Path

import pytest

from tests import peers

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(1500)
def test_image_is_built_and_a_study_goes_through_a_container() -> None:
    peers.require("root", "podman", "buildah", "runc", "debootstrap", "ip", "nsenter")
    result = subprocess.run(["make", "image"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "a study went through the container: C-STORE in, DICOM-SEG out" in result.stdout
    assert "ended by itself at SIGTERM" in result.stdout
