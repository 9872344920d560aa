"""Bad and unusual input: each ends in the state and the message that docs/reference/refusals.md promises."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from archive import DemonstrationArchive
from tests.journey.limner_server import LimnerServer, settings_for
from tests.phantom import write_phantom_series

JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"
KOREAN = "Hong^Gildong=洪^吉洞=홍^길동"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemonstrationArchive]:
    archive = DemonstrationArchive(tmp_path_factory.mktemp("archive"))
    archive.start()
    yield archive
    archive.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, archive: DemonstrationArchive) -> Iterator[LimnerServer]:
    server = LimnerServer(tmp_path_factory.mktemp("server"), settings_for(archive.port))
    with server.running_server():
        yield server
    server.verify_audit()


def _series_uid(files: list[Path]) -> str:
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID)


def _job_of(server: LimnerServer, series_instance_uid: str) -> dict[str, Any]:
    def ended() -> bool:
        return any(
            job.series_instance_uid == series_instance_uid and job.state in ("closed", "failed", "refused")
            for job in server.recorded_jobs()
        )

    server.wait_for(ended, expected="the series' job to end")
    (job,) = (job for job in server.jobs() if job["series_instance_uid"] == series_instance_uid)
    return job


@pytest.mark.timeout(600)
def test_a_truncated_file_is_refused_at_the_door_and_its_neighbours_are_kept(
    server: LimnerServer, tmp_path: Path
) -> None:
    files = write_phantom_series(tmp_path / "series", seed=101)
    data = files[3].read_bytes()
    files[3].write_bytes(data[: len(data) * 2 // 3])
    result = server.submit(tmp_path / "series")
    assert result.returncode == 1
    assert "0xC000" in result.stderr
    assert str(files[3]) in result.stderr
    refused = [record for record in server.audit_events() if record["event"] == "INSTANCE_REFUSED"]
    assert "truncated" in [record["detail"]["code"] for record in refused]
    assert len(list((server.data / "spool" / "quarantine").glob("*.dcm"))) >= 1
    # the rest is a series with a slice missing
    job = _job_of(server, _series_uid(files))
    assert (job["state"], job["code"]) == ("refused", "slice-missing")


@pytest.mark.timeout(600)
def test_a_missing_slice_is_refused_with_its_place(server: LimnerServer, tmp_path: Path) -> None:
    files = write_phantom_series(tmp_path / "series", seed=102)
    uid = _series_uid(files)
    next(path for path in files if pydicom.dcmread(path).InstanceNumber == 6).unlink()
    assert server.submit(tmp_path / "series").returncode == 0
    job = _job_of(server, uid)
    assert (job["state"], job["code"]) == ("refused", "slice-missing")
    assert "slice" in job["reason"]


@pytest.mark.timeout(600)
def test_two_series_in_one_association_become_two_jobs(
    server: LimnerServer, archive: DemonstrationArchive, tmp_path: Path
) -> None:
    first = write_phantom_series(tmp_path / "first", seed=103)
    second = write_phantom_series(tmp_path / "second", seed=104)
    both = tmp_path / "both"
    both.mkdir()
    for path in (*first, *second):
        shutil.copy(path, both)
    assert server.submit(both).returncode == 0
    jobs = [_job_of(server, _series_uid(files)) for files in (first, second)]
    assert [job["state"] for job in jobs] == ["closed", "closed"]
    assert jobs[0]["id"] != jobs[1]["id"]


@pytest.mark.timeout(600)
def test_what_is_no_dicom_association_disturbs_nobody(server: LimnerServer, tmp_path: Path) -> None:
    with socket.create_connection((server.host, server.port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n")
        with socket.create_connection((server.host, server.port)) as another:
            another.sendall(bytes(range(256)) * 16)
            files = write_phantom_series(tmp_path / "series", seed=105)
            assert server.submit(tmp_path / "series").returncode == 0
    assert _job_of(server, _series_uid(files))["state"] == "closed"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("character_set", "name", "seed"),
    [(["", "ISO 2022 IR 87"], JAPANESE, 106), (["", "ISO 2022 IR 149"], KOREAN, 107), ("ISO_IR 192", JAPANESE, 108)],
    ids=["japanese", "korean", "utf-8"],
)
def test_names_beyond_latin_arrive_as_they_were_sent(
    server: LimnerServer,
    archive: DemonstrationArchive,
    tmp_path: Path,
    character_set: str | list[str],
    name: str,
    seed: int,
) -> None:
    files = write_phantom_series(tmp_path / "series", seed=seed)
    for path in files:
        dataset = pydicom.dcmread(path)
        dataset.SpecificCharacterSet = character_set
        dataset.PatientName = name
        dataset.save_as(path)
    assert server.submit(tmp_path / "series").returncode == 0
    job = _job_of(server, _series_uid(files))
    assert job["state"] == "closed", job["reason"]
    segmentation = pydicom.dcmread(archive.folder / f"{job['results'][0]['sop_instance_uid']}.dcm")
    assert str(segmentation.PatientName) == name
    assert "山" not in server.log()
    assert "Yamada" not in server.log()


@pytest.mark.timeout(600)
def test_a_series_that_no_rule_takes_is_recorded_so(server: LimnerServer, tmp_path: Path) -> None:
    files = write_phantom_series(tmp_path / "series", seed=109)
    for path in files:
        dataset = pydicom.dcmread(path)
        dataset.Modality = "OT"
        dataset.save_as(path)
    assert server.submit(tmp_path / "series").returncode == 0
    uid = _series_uid(files)

    def decided() -> bool:
        return any(one["series_instance_uid"] == uid and one["state"] == "no-rule" for one in server.series())

    server.wait_for(decided, expected="the series to be recorded as no-rule")
    assert all(job["series_instance_uid"] != uid for job in server.jobs())
    explained = server.limner("rules", "explain", str(files[0]))
    assert "no rule applies" in explained.stdout
    assert "Modality: expected" in explained.stdout
