"""The small form of `make bench-segmentation`: dcmqi's itkimage2segimage beside Limner.

Speed is printed, never judged: the machine may be busy. That both wrote the same is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import highdicom
import numpy as np
import pytest

from benchmarks.segmentation.cases import QUICK
from tests.judges import SegmentImage, place
from tests.peers import REPOSITORY, require


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("itkimage2segimage")
    made = tmp_path_factory.mktemp("bench")
    subprocess.run(
        [sys.executable, "-m", "benchmarks.segmentation", "--quick", "--folder", made, "--output", made / "all.json"],
        cwd=REPOSITORY,
        check=True,
    )
    return made


def _segments(path: Path) -> dict[int, SegmentImage]:
    """As highdicom reads them: the slices from the first to the last that the file has."""
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    numbers = np.unique(volume.array[volume.array > 0]).tolist()
    return {number: SegmentImage(number, "", volume.array == number, np.asarray(volume.affine)) for number in numbers}


@pytest.mark.parametrize("segments", QUICK.segments)
@pytest.mark.parametrize("kind", ["segmentation", "labelmap"])
def test_both_show_the_painted_organs_at_their_places(kind: str, segments: int, folder: Path) -> None:
    painted = np.load(folder / f"{segments}.npy")
    grid = np.eye(4)
    grid[:3, :3], grid[:3, 3] = np.stack(QUICK.phantom.axes, axis=1), QUICK.phantom.position(0)
    for system in ("dcmqi", "limner"):
        found = _segments(folder / f"{kind}-{segments}-{system}.dcm")
        assert np.array_equal(place(found, painted.shape, grid), painted), system


def test_all_rounds_are_written(folder: Path) -> None:
    rounds = json.loads((folder / "all.json").read_text())["rounds"]
    assert {(one["kind"], one["segments"], one["system"]) for one in rounds} == {
        (kind, segments, system)
        for kind in ("segmentation", "labelmap")
        for segments in (0, *QUICK.segments)
        for system in ("dcmqi", "Limner")
    }
    assert all(min(one["seconds"], one["cpu_seconds"], one["peak"], one["size"], one["growth"]) > 0 for one in rounds)
