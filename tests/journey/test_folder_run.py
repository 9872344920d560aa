"""`python -m app` on a folder gives the same label map as the server."""

import subprocess
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from app.graph import LABELS_FILE, RECORD_FILE, CompletionRecord
from app.jobs.verification import verify_results
from archive import DemonstrationArchive
from tests.journey.limner_server import REPOSITORY, LimnerServer, settings_for


@pytest.mark.timeout(900)
def test_the_app_on_a_folder_and_the_server_compute_the_same(tmp_path: Path, abdominal_ct: list[Path]) -> None:
    archive = DemonstrationArchive(tmp_path / "archive")
    archive.start()
    try:
        server = LimnerServer(tmp_path, settings_for(archive.port))
        with server.running_server():
            assert server.submit(abdominal_ct[0].parent).returncode == 0
            (job,) = server.wait_for_jobs(1, states=("closed",))
    finally:
        archive.stop()
    result = subprocess.run(
        [sys.executable, "-m", "app", "-i", str(abdominal_ct[0].parent), "-o", str(tmp_path / "out")],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    ours = np.load(Path(job["results"][0]["path"]).parent / "labels.npz")
    alone = np.load(tmp_path / "out" / "labels.npz")
    assert ours["labels"].any()
    np.testing.assert_array_equal(ours["labels"], alone["labels"])
    np.testing.assert_array_equal(ours["affine"], alone["affine"])


def test_one_legacy_converted_instance_gives_what_its_slices_give(tmp_path: Path, abdominal_ct: list[Path]) -> None:
    slices = [pydicom.dcmread(path) for path in abdominal_ct]
    for one in slices:
        one.decompress()
    converted = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        slices,
        series_instance_uid=pydicom.uid.generate_uid(entropy_srcs=["legacy series"]),
        series_number=9,
        sop_instance_uid=pydicom.uid.generate_uid(entropy_srcs=["legacy instance"]),
        instance_number=1,
    )
    legacy = tmp_path / "legacy" / "image.dcm"
    legacy.parent.mkdir()
    converted.save_as(legacy, enforce_file_format=True)
    found = []
    for folder, name in ((abdominal_ct[0].parent, "classic-out"), (legacy.parent, "legacy-out")):
        result = subprocess.run(
            [sys.executable, "-m", "app", "-i", str(folder), "-o", str(tmp_path / name)],
            cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
        found.append(np.load(tmp_path / name / LABELS_FILE))
    assert found[0]["labels"].any()
    np.testing.assert_array_equal(found[0]["labels"], found[1]["labels"])
    np.testing.assert_array_equal(found[0]["affine"], found[1]["affine"])
    record = CompletionRecord.from_json((tmp_path / "legacy-out" / RECORD_FILE).read_bytes())
    (verified,) = verify_results(record, tmp_path / "legacy-out", [legacy])
    assert verified.role == "specialist"


def test_the_app_says_what_is_wrong_with_a_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    result = subprocess.run(
        [sys.executable, "-m", "app", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert result.returncode != 0
    assert "no-images" in result.stderr
    assert "Traceback" not in result.stderr
