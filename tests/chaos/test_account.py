"""Studies that a hand dropped at different stages: the account names each, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from app.delivery.sending import send_folder
from app.delivery.storage import DimseDestination
from app.graph import CompletionRecord, FindingRecord, GraphRequest
from app.identifiers import UID, derive_uid
from app.jobs.accounting import account
from app.jobs.verification import VerifiedObject
from app.settings import load_settings
from tests import peers
from tests.chaos.figures import Figures
from tests.chaos.living import living
from tests.database_fixture import fresh_database
from tests.job_harness import PlantedGraph, planted_finding
from tests.listening import make_ct
from tests.stepped_bench import EVER, SteppedBench

REPOSITORY = Path(__file__).resolve().parents[2]
_SETTINGS = """
data_folder = "data"
[database]
url = "{url}"
[listener]
host = "127.0.0.1"
port = 0
low_water_bytes = 1048576
[routing]
series_quiet_seconds = 1
study_quiet_seconds = 2
[[destination]]
name = "archive"
ae_title = "PACS"
host = "{host}"
port = {port}
retry_first_seconds = 0.5
[[archive]]
name = "pacs"
ae_title = "PACS"
host = "{host}"
port = {port}
[[pipeline]]
name = "liver"
model = "planted"
[[rule]]
name = "every"
pipeline = "liver"
destinations = ["archive"]
match = {{ Modality = "CT" }}
"""


@dataclass
class _Writing(PlantedGraph):
    """A fast graph whose result is a small real object of the study that it read."""

    def _found(self, request: GraphRequest, role: Any) -> FindingRecord:
        source = pydicom.dcmread(request.primary_files[0])
        result = make_ct(1, study=source.StudyInstanceUID, series=derive_uid("series", request.identity), size=8)
        result.Modality, result.PatientID, result.PatientName = "OT", source.PatientID, source.PatientName
        result.StudyDate = source.StudyDate
        result.save_as(request.output_folder / "result.dcm", enforce_file_format=True)
        return planted_finding(role)


def _verified(record: CompletionRecord, folder: Path, files: Sequence[Path]) -> tuple[VerifiedObject, ...]:
    path = folder / "result.dcm"
    written = pydicom.dcmread(path)
    return (
        VerifiedObject(
            path=path,
            kind="segmentation",
            role="specialist",
            digest=hashlib.sha256(path.read_bytes()).hexdigest(),
            sop_class_uid=UID(written.SOPClassUID),
            sop_instance_uid=UID(written.SOPInstanceUID),
            series_instance_uid=UID(written.SeriesInstanceUID),
            transfer_syntax_uid=UID(ExplicitVRLittleEndian),
        ),
    )


def _study(number: int) -> str:
    return derive_uid("account", str(number))


def _write_study(folder: Path, number: int) -> list[Path]:
    paths = []
    for slice_number in (1, 2):
        image = make_ct(slice_number, study=_study(number), series=derive_uid("account", str(number), "series"))
        image.StudyDate = f"{datetime.now().astimezone():%Y%m%d}"
        image.PatientID = f"patient-{number}"
        path = folder / f"{number}-{slice_number}.dcm"
        image.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _send(files: Sequence[Path], port: int) -> None:
    """Send until all is accepted, as an archive's queue does: a busy server may ask for another try."""
    left = list(files)
    while left:
        report = send_folder(left, "127.0.0.1", port, "LIMNER", "PACS")
        left = [one.path for one in report.files if not one.accepted]


class _Watching:
    """Takes the account again and again while the others work."""

    def __init__(self, bench: SteppedBench) -> None:
        self._bench = bench
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.taken = 0
        self.alarms: list[Any] = []

    def _run(self) -> None:
        while not self._stop.is_set():
            bench = self._bench
            found = account(bench.records, bench.kept, bench.files, [bench.settings.audit_folder], EVER)
            self.taken += 1
            self.alarms += found.discrepancies
            self._stop.wait(0.1)

    def __enter__(self) -> _Watching:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _limner_account(settings: Path) -> tuple[int, dict[str, Any]]:
    """The command itself, with the archive asked."""
    ran = subprocess.run(
        [sys.executable, "-m", "app.cli", "account", "--files", "--ask", "pacs", "--json", "--settings", str(settings)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert ran.stdout, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    assert found["unasked"] == {}
    return ran.returncode, found


@pytest.mark.timeout(900)
def test_studies_that_a_hand_dropped_are_named(
    tmp_path: Path, postgres: str, network: peers.PeerNetwork, figures: Figures
) -> None:
    peers.require("Orthanc", "root")
    count = figures.of(short=30, full=200)
    promise = "11. Eight studies dropped by hand at different stages"
    sources = {number: _write_study(tmp_path, number) for number in range(count)}
    path = tmp_path / "limner.toml"
    with fresh_database(postgres) as url, peers.running_orthanc(network, tmp_path / "orthanc") as orthanc:
        path.write_text(_SETTINGS.format(url=url, host=orthanc.host, port=orthanc.port))
        settings = load_settings(path)
        destinations = {one.name: DimseDestination(one, "LIMNER", "LIMNER") for one in settings.destination}
        with living(tmp_path, url, settings, destinations=destinations, graph=_Writing(), verify=_verified) as server:
            bench, port, scanner = server.bench, server.port, server.scanner
            for files in sources.values():
                for one in files:
                    orthanc.upload(one)

            def send(numbers: Sequence[int]) -> None:
                _send([one for number in numbers for one in sources[number]], port)

            def all_closed() -> bool:
                scanner.scan()
                jobs = bench.records.jobs(1000)
                return len(jobs) == count - 1 and all(one.state == "closed" for one in jobs)

            with _Watching(bench) as watching:
                sender = threading.Thread(target=send, args=(range(count - 1),))
                sender.start()
                bench.work(all_closed, seconds=300)
                sender.join()
            send([count - 1])
            bench.change("UPDATE series SET last_received_at = last_received_at - interval '1 hour'")
            scanner.scan()  # the last one waits in the queue
            assert watching.taken > 3
            alarms = Counter(one.code for one in watching.alarms)
            figures.show(promise, f"false alarms of {watching.taken} accounts while all are at work",
                         seen=alarms.total(), exactly=0)  # fmt: skip
            code, found = _limner_account(path)
            assert (code, found["discrepancies"]) == (0, [])
            assert found["totals"]["jobs"] == {"closed": count - 1, "queued": 1}

            _drop(bench, orthanc, count)
            code, found = _limner_account(path)
        named = Counter(one["study_instance_uid"] for one in found["discrepancies"])
        dropped = {_study(number) for number in (*range(7), count - 1)}
        figures.show(promise, f"of {count} studies, those that were dropped and are named",
                     seen=len(dropped & set(named)), exactly=8)  # fmt: skip
        figures.show(promise, f"of {count} studies, others that are named", seen=len(set(named) - dropped), exactly=0)
        assert sorted(one["code"] for one in found["discrepancies"]) == [
            "audit-delivery-not-made", "delivery-missing", "file-missing", "file-unrecorded", "instance-missing",
            "job-missing", "job-without-task", "result-not-held",
        ]  # fmt: skip
        assert code == 1


def _drop(bench: SteppedBench, orthanc: peers.Orthanc, count: int) -> None:
    """By hand: a file, a ledger row, both of one instance, a job, a delivery, a result in the archive, a task.

    And a delivery's state: it says that the archive committed itself.
    """

    def digest_of(number: int) -> str:
        with bench.records.transaction() as connection:
            row = connection.execute(
                "SELECT min(digest) AS digest FROM instances WHERE study_instance_uid = %s", (_study(number),)
            ).fetchone()
        assert row is not None
        return str(row["digest"])

    of_study = "(SELECT id FROM jobs WHERE study_instance_uid = %s)"
    bench.kept.path_of(digest_of(0)).unlink()
    unrecorded = digest_of(1)
    bench.change("DELETE FROM instances WHERE digest = %s", unrecorded, forced=True)
    os.utime(bench.kept.path_of(unrecorded), (0, 0))  # long enough ago to be none that is being received
    bench.change(" ".join(("DELETE FROM deliveries WHERE job_id =", of_study)), _study(2))
    (result,) = orthanc.series(Modality="OT", StudyInstanceUID=_study(3))
    orthanc.request("DELETE", f"/series/{result['ID']}")
    bench.change("DELETE FROM jobs WHERE study_instance_uid = %s", _study(4))
    lost = digest_of(5)
    bench.change("DELETE FROM instances WHERE digest = %s", lost, forced=True)
    bench.kept.path_of(lost).unlink()
    bench.change(" ".join(("UPDATE deliveries SET state = 'committed' WHERE job_id =", of_study)), _study(6))
    bench.change(
        " ".join(("DELETE FROM procrastinate_jobs WHERE args ->> 'job_id' =", of_study, "::text")), _study(count - 1)
    )


@pytest.mark.timeout(300)
def test_what_the_archive_has_and_never_came_is_named(
    tmp_path: Path, postgres: str, network: peers.PeerNetwork, figures: Figures
) -> None:
    peers.require("Orthanc", "root")
    promise = "11. Studies that the archive holds and that never came"
    count = 10
    sources = {number: _write_study(tmp_path, number) for number in range(count)}
    path = tmp_path / "limner.toml"
    with fresh_database(postgres) as url, peers.running_orthanc(network, tmp_path / "orthanc") as orthanc:
        path.write_text(_SETTINGS.format(url=url, host=orthanc.host, port=orthanc.port))
        with living(tmp_path, url, load_settings(path), destinations={}, graph=_Writing()) as server:
            for files in sources.values():
                for one in files:
                    orthanc.upload(one)
            came = [one for number in range(count - 2) for one in sources[number]]
            _send(came, server.port)
            code, found = _limner_account(path)
        assert {one["code"] for one in found["discrepancies"]} == {"study-never-seen"}
        named = {one["study_instance_uid"] for one in found["discrepancies"]}
        missing = {_study(count - 2), _study(count - 1)}
        figures.show(promise, f"of {count} studies, two of which were never sent: named", seen=len(named), exactly=2)
        assert (named, code) == (missing, 1)
