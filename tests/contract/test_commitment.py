"""Storage commitment asked of Orthanc, which reports on a new association, and of archives that report oddly or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from app.audit.events import AuditEvent
from app.audit.log import verify as verify_audit
from app.delivery.destination import ReportedCommitment
from app.delivery.dicomweb import DicomWebDestination
from app.jobs.commitment_reports import ReportKeeping
from app.jobs.queue import TaskQueue
from app.jobs.records import Job
from app.listener.association import Listener
from app.listener.commitment import CommitmentReports
from app.listener.spool import Spool
from app.settings import DestinationSettings
from app.settings_listener import ListenerSettings
from tests import peers
from tests.database_fixture import fresh_database
from tests.dicom_results import ARCHIVE, connect, delivering_bench
from tests.job_harness import Bench, instance
from tests.listening import RecordedAudit
from tests.planted_archive import PlantedArchive, planted

HOST = "127.0.0.1"


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


@contextmanager
def reporting(made: Bench, *, host: str = HOST, title: str = "PACS") -> Iterator[tuple[int, RecordedAudit]]:
    """A listener that takes reports for the bench; its port, and its audit log."""
    spool = Spool(made.settings.data_folder / "listener", 0)
    spool.prepare()
    audit = RecordedAudit()
    keeping = ReportKeeping(made.records, TaskQueue())
    reports = CommitmentReports({title: [ARCHIVE]}, keeping.keep, audit)  # type: ignore[arg-type]
    settings = ListenerSettings(port=0, host=host, shutdown_seconds=1)
    listener = Listener(settings, spool, lambda _: False, audit, reports=reports)  # type: ignore[arg-type]
    listener.start()
    try:
        yield listener.port, audit
    finally:
        listener.stop()


def _needed_by(made: Any) -> list[str]:
    """What retention keeps the results of each job for; empty where they may go."""
    jobs = [job.id for job in made.records.jobs()]
    return [one.needed_by for one in made.records.kept_results([ARCHIVE], 0, jobs)]


def _queue(made: Bench, jobs: int = 1) -> None:
    for series in range(jobs):
        made.receive(instance(1, series=series))
    made.create_jobs()


def send_report(port: int, information: Dataset, *, calling: str = "PACS") -> int | None:
    """Report to a listener over an association of its own; the status that came back, None without a context."""
    entity = AE(calling)
    entity.add_requested_context(StorageCommitmentPushModel)
    role = build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    association = entity.associate(HOST, port, ae_title="LIMNER", ext_neg=[role])
    if not association.is_established:
        return None
    kind = 2 if "FailedSOPSequence" in information else 1
    status, _ = association.send_n_event_report(
        information, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    association.release()
    return int(status.Status)


def _states(job: Job) -> list[str]:
    return [one.state for one in job.deliveries]


def _all(made: Bench, state: str) -> bool:
    return all(one.state == state for job in made.records.jobs() for one in job.deliveries)


def _events(made: Bench) -> str:
    return "".join(path.read_text() for path in made.settings.audit_folder.glob("*.jsonl"))


# --- Orthanc --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["storage-commitment", "query"])
def test_orthanc_commits_itself(tmp_path: Path, url: str, network: peers.PeerNetwork, kind: str) -> None:
    address = network.peer_address
    with (
        delivering_bench(tmp_path, url, address, 4242, "PACS", commitment=kind, commitment_seconds=20) as made,
        reporting(made, host=network.host_address) as (port, _),
        peers.running_orthanc(network, tmp_path / "orthanc", knows=("LIMNER", port)) as orthanc,
    ):
        connect(made)
        _queue(made, jobs=3)
        made.work(made.all_ended, seconds=60)
        for job in made.records.jobs():
            assert (job.state, _states(job)) == ("closed", ["committed"])
            assert all(one.committed_at for one in job.deliveries)
        assert len(orthanc.get("/instances")) == 3
        assert _needed_by(made) == ["", "", ""]
        assert _events(made).count('"COMMITMENT_RECEIVED"') == 3
    assert verify_audit(made.settings.audit_folder).ok


def test_what_orthanc_lost_is_sent_again(tmp_path: Path, url: str, network: peers.PeerNetwork) -> None:
    address = network.peer_address
    with (
        delivering_bench(tmp_path, url, address, 4242, "PACS", commitment="storage-commitment") as made,
        reporting(made, host=network.host_address) as (port, _),
        peers.running_orthanc(network, tmp_path / "orthanc", knows=("LIMNER", port)) as orthanc,
    ):
        connect(made)
        lose = made.destinations[ARCHIVE].request_commitment
        lost: list[str] = []

        def lose_then_ask(*arguments: Any) -> None:
            if not lost:
                lost.extend(orthanc.get("/instances"))
                orthanc.delete_everything()
            lose(*arguments)

        made.destinations[ARCHIVE].request_commitment = lose_then_ask
        _queue(made)
        made.work(made.all_ended, seconds=60)
        (delivery,) = made.job().deliveries
        assert (delivery.state, delivery.attempts, delivery.commitment_rounds) == ("committed", 2, 2)
        assert orthanc.get("/instances") == lost


@pytest.mark.parametrize("loses", [False, True], ids=["has it", "lost it"])
def test_orthanc_is_asked_over_the_web_what_it_has(
    tmp_path: Path, url: str, network: peers.PeerNetwork, loses: bool
) -> None:
    with (
        delivering_bench(tmp_path, url, HOST, 1, "WEB", commitment="query") as made,
        peers.running_orthanc(network, tmp_path / "orthanc") as orthanc,
    ):
        root = f"http://{orthanc.host}:{orthanc.HTTP_PORT}/dicom-web"
        settings = DestinationSettings(name=ARCHIVE, url=root, plain_http=True, commitment="query")
        made.destinations[ARCHIVE] = DicomWebDestination(settings)
        asks = made.destinations[ARCHIVE].holds
        answers: list[bool] = []

        def lose_then_ask(*uids: str) -> bool:
            if loses and not answers:
                orthanc.delete_everything()
            answers.append(asks(*uids))
            return answers[-1]

        made.destinations[ARCHIVE].holds = lose_then_ask
        _queue(made)
        made.work(made.all_ended, seconds=60)
        (delivery,) = made.job().deliveries
        times = 2 if loses else 1
        assert (made.job().state, delivery.state, delivery.code) == ("closed", "committed", "")
        assert (delivery.attempts, delivery.commitment_rounds) == (times, times)
        assert answers == ([False, False, True] if loses else [True])  # it is asked once more before it is sent again
        (found,) = orthanc.find("Instance")
        stored = orthanc.download(found["ID"], tmp_path / "back.dcm").read_bytes()
        assert stored == Path(made.job().results[0].path).read_bytes()
        assert _events(made).count('"COMMITMENT_RECEIVED"') == 1


# --- reports --------------------------------------------------------------------------------------------------------


def test_a_report_over_the_same_association(tmp_path: Path, url: str) -> None:
    with planted() as (archive, port):
        archive.after = lambda event: event.assoc.send_n_event_report(
            archive.information(), 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        with delivering_bench(tmp_path, url, HOST, port, "PACS", commitment="storage-commitment") as made:
            connect(made)
            _queue(made)
            made.work(made.all_ended)
            assert _states(made.job()) == ["committed"]


def _wait_for_request(archive: PlantedArchive, made: Bench, number: int = 1) -> Callable[[], bool]:
    def asked() -> bool:
        with psycopg.connect(made.records.url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM deliveries WHERE state = 'committing' AND next_attempt_at IS NOT NULL"
            ).fetchone()
        return len(archive.requests) >= number and row is not None and row[0] > 0

    return asked


def test_a_report_twice_late_unknown_or_of_a_stranger_does_no_harm(tmp_path: Path, url: str) -> None:
    with planted() as (archive, port):
        options = {"commitment": "storage-commitment", "commitment_seconds": 600}
        with (
            delivering_bench(tmp_path, url, HOST, port, "PACS", **options) as made,
            reporting(made) as (listener, audit),
        ):
            connect(made)
            _queue(made)
            made.work(_wait_for_request(archive, made))
            assert (made.job().state, _states(made.job())) == ("delivering", ["committing"])
            assert _needed_by(made) == ["job"]

            strange = archive.information()
            assert send_report(listener, strange, calling="STRANGER") == 0x0124
            strange.TransactionUID = "1.2.3.4"
            assert send_report(listener, strange) == 0x0115
            codes = [one["code"] for one in audit.of(AuditEvent.COMMITMENT_REPORT_REFUSED)]
            assert codes == ["report-from-stranger", "transaction-unknown"]

            assert send_report(listener, archive.information()) == 0
            assert send_report(listener, archive.information()) == 0
            made.work(made.all_ended)
            assert (made.job().state, _states(made.job())) == ("closed", ["committed"])
            assert send_report(listener, archive.information(0x0112)) == 0  # too late to say so
            made.work(lambda: not [task for task, _ in made.queued_tasks() if task == "report"])
            assert (made.job().state, _states(made.job())) == ("closed", ["committed"])
            assert len(archive.held) == 1


def test_a_refused_object_is_sent_again_and_fails_at_last(tmp_path: Path, url: str) -> None:
    with planted() as (archive, port):
        archive.after = lambda event: event.assoc.send_n_event_report(
            archive.information(0x0213), 2, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        options = {"commitment": "storage-commitment", "commitment_rounds": 3}
        with delivering_bench(tmp_path, url, HOST, port, "PACS", **options) as made:
            connect(made)
            _queue(made)
            made.work(made.all_ended, seconds=60)
            (delivery,) = made.job().deliveries
            assert (delivery.state, delivery.code, delivery.attempts) == ("failed", "commitment-0213", 3)
            assert (made.job().state, made.job().code) == ("failed", "not-committed")
            assert len({one.TransactionUID for one in archive.requests}) == 3


def test_without_a_report_it_is_asked_again_under_a_new_transaction(tmp_path: Path, url: str) -> None:
    with planted() as (archive, port):
        options = {"commitment": "storage-commitment", "commitment_seconds": 0.5, "commitment_rounds": 3}
        with delivering_bench(tmp_path, url, HOST, port, "PACS", **options) as made, reporting(made) as (listener, _):
            connect(made)
            _queue(made)
            made.work(lambda: len(archive.requests) == 2, seconds=60)
            first, second = (one.TransactionUID for one in archive.requests)
            assert first != second
            assert send_report(listener, archive.information(0x0112, request=0)) == 0  # overtaken: says nothing
            assert send_report(listener, archive.information(request=0)) == 0  # good news at any time
            made.work(made.all_ended)
            assert _states(made.job()) == ["committed"]


def test_no_report_at_all_fails_the_job(tmp_path: Path, url: str) -> None:
    with planted() as (archive, port):
        options = {"commitment": "storage-commitment", "commitment_seconds": 0.2, "commitment_rounds": 2}
        with delivering_bench(tmp_path, url, HOST, port, "PACS", **options) as made:
            connect(made)
            _queue(made)
            made.work(made.all_ended, seconds=60)
            assert [(one.state, one.code) for one in made.job().deliveries] == [("failed", "commitment-missing")]
            assert len(archive.requests) == 2


def test_an_archive_without_storage_commitment_and_without_queries_is_told_of(
    tmp_path: Path, url: str, network: peers.PeerNetwork
) -> None:
    with (
        peers.running_storescp(network, tmp_path) as provider,
        delivering_bench(
            tmp_path, url, provider.host, provider.port, provider.ae_title, commitment="storage-commitment"
        ) as made,
    ):
        connect(made)
        _queue(made)
        made.work(made.all_ended)
        (delivery,) = made.job().deliveries
        assert (delivery.state, delivery.code) == ("failed", "commitment-context-refused")
        assert len(provider.files()) == 1


def test_an_archive_without_storage_commitment_is_asked_what_it_has(tmp_path: Path, url: str) -> None:
    with (
        planted(commits_itself=False) as (archive, port),
        delivering_bench(tmp_path, url, HOST, port, "PACS", commitment="storage-commitment") as made,
    ):
        connect(made)
        archive.forgets = 1
        _queue(made)
        made.work(made.all_ended, seconds=60)
        (delivery,) = made.job().deliveries
        assert (made.job().state, delivery.state, delivery.code) == ("closed", "committed", "")
        assert delivery.reason.startswith("it takes no requests for storage commitment")
        assert (archive.requests, archive.held) == ([], [made.job().results[0].sop_instance_uid])
        assert '"reason":"it takes no requests for storage commitment' in _events(made).replace('": "', '":"')


@pytest.mark.parametrize("status", [0x0118, 0x0122, 0x0123, 0x0211])
def test_one_that_accepts_the_context_and_refuses_the_request_is_asked_what_it_has(
    tmp_path: Path, url: str, status: int
) -> None:
    with (
        planted() as (archive, port),
        delivering_bench(tmp_path, url, HOST, port, "PACS", commitment="storage-commitment") as made,
    ):
        connect(made)
        archive.status = status
        _queue(made)
        made.work(made.all_ended, seconds=60)
        (delivery,) = made.job().deliveries
        assert (made.job().state, delivery.state, delivery.code) == ("closed", "committed", "")
        assert delivery.reason.startswith("it takes no requests for storage commitment")
        assert (len(archive.requests), archive.questions) == (1, 1)


@pytest.mark.parametrize(("status", "ask"), [(0x0124, "same"), (0x0212, "same"), (0x0122, "never")])
def test_one_that_does_not_let_us_ask_or_is_not_to_be_asked_is_told_of(
    tmp_path: Path, url: str, status: int, ask: str
) -> None:
    with (
        planted() as (archive, port),
        delivering_bench(tmp_path, url, HOST, port, "PACS", commitment="storage-commitment", ask=ask) as made,
    ):
        connect(made)
        archive.status = status
        _queue(made)
        made.work(made.all_ended, seconds=60)
        (delivery,) = made.job().deliveries
        assert (delivery.state, delivery.code) == ("failed", f"commitment-status-{status:04x}")
        assert archive.questions == 0


def test_an_archive_without_storage_commitment_that_is_not_asked_is_told_of(tmp_path: Path, url: str) -> None:
    with (
        planted(commits_itself=False) as (archive, port),
        delivering_bench(tmp_path, url, HOST, port, "PACS", commitment="storage-commitment", ask="never") as made,
    ):
        connect(made)
        _queue(made)
        made.work(made.all_ended, seconds=60)
        (delivery,) = made.job().deliveries
        assert (delivery.state, delivery.code) == ("failed", "commitment-context-refused")
        assert archive.questions == 0


def test_what_a_query_does_not_find_is_sent_again(tmp_path: Path, url: str) -> None:
    with planted() as (archive, port):
        archive.forgets = 1
        with delivering_bench(tmp_path, url, HOST, port, "PACS", commitment="query") as made:
            connect(made)
            _queue(made)
            made.work(made.all_ended, seconds=60)
            (delivery,) = made.job().deliveries
            assert (delivery.state, delivery.attempts, delivery.commitment_rounds) == ("committed", 2, 2)
            assert len(archive.held) == 1


def test_a_report_that_can_not_be_kept_is_not_acknowledged(tmp_path: Path) -> None:
    def keep(report: ReportedCommitment, names: Sequence[str]) -> bool:
        raise psycopg.OperationalError("away")

    spool = Spool(tmp_path, 0)
    spool.prepare()
    audit = RecordedAudit()
    reports = CommitmentReports({"PACS": [ARCHIVE]}, keep, audit)  # type: ignore[arg-type]
    listener = Listener(ListenerSettings(port=0), spool, lambda _: False, audit, reports=reports)  # type: ignore[arg-type]
    listener.start()
    try:
        information = Dataset()
        information.TransactionUID = "1.2.3"
        assert send_report(listener.port, information) == 0x0110
        information.TransactionUID = ""
        assert send_report(listener.port, information) == 0x0115
    finally:
        listener.stop()
