"""Commitments on a real PostgreSQL: who is asked when the last delivery ends unsent, and what counts as a question."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.audit.events import AuditEvent
from app.delivery.destination import CommitmentRequest, ReportedCommitment
from app.errors import AuditError, DeliveryError
from app.jobs import steering
from app.jobs.queue import TaskQueue
from tests.contract.test_postgresql_withdrawn import BOTH, HonouringArchive
from tests.database_fixture import fresh_database
from tests.job_harness import instance
from tests.stepped_bench import SteppedBench, stepped_bench

PATIENT = {"retry_first_seconds": 600, "retry_longest_seconds": 600, "commitment": "query"}
ONE = {"destinations": ("archive",)}


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


def _archive(made: SteppedBench) -> HonouringArchive:
    archive = HonouringArchive("archive", made.settings.data_folder)
    made.destinations["archive"] = archive
    return archive


def _half_delivered(made: SteppedBench) -> None:
    """The archive has the segmentation, and the report waits."""
    _archive(made).refusing["report"] = DeliveryError("not now", code="status-c001")
    made.receive(instance(1))
    made.create_jobs()
    made.finish()
    assert _states(made) == ["delivered", "waiting"]


def _states(made: SteppedBench) -> list[str]:
    return sorted(one.state for one in made.records.jobs()[-1].deliveries)


def test_what_a_cancelled_job_delivered_is_asked_for(tmp_path: Path, url: str) -> None:
    with stepped_bench(tmp_path, url, rule={**BOTH, **ONE}, destination=PATIENT) as made:
        _half_delivered(made)
        steering.ask(made.records, "cancel", made.job(), "erika")
        made.finish()
        assert _states(made) == ["cancelled", "committed"]
        assert made.job().state == "cancelled"


@pytest.mark.parametrize("is_asked", [False, True])
def test_what_a_cancelled_job_delivered_is_asked_for_though_a_worker_died_sending_the_rest(
    tmp_path: Path, url: str, is_asked: bool
) -> None:
    with stepped_bench(tmp_path, url, rule={**BOTH, **ONE}, destination=PATIENT) as made:
        _half_delivered(made)
        (left,) = [one for one in made.job().deliveries if one.state == "waiting"]
        assert made.records.begin_delivery(left.job_id, left.digest, left.destination) is not None
        made.change("UPDATE deliveries SET is_unknown = %s WHERE state = 'sending'", is_asked)
        steering.ask(made.records, "cancel", made.job(), "erika")
        made.finish()
        assert _states(made) == ["delivered", "sending"]
        made.workflow._delivering.attend()
        made.finish()
        assert _states(made) == ["cancelled", "committed"]
        assert made.account().agrees


def test_what_a_superseded_job_delivered_is_asked_for(tmp_path: Path, url: str) -> None:
    with stepped_bench(tmp_path, url, rule={**BOTH, **ONE}, destination=PATIENT) as made:
        _half_delivered(made)
        made.receive(instance(2))
        made.create_jobs()
        made.destinations["archive"].refusing.clear()
        made.finish()
        newer, older = made.records.jobs()
        assert _states(made) == ["committed", "replaced"]
        assert (newer.state, older.state) == ("closed", "closed")
        assert made.account().agrees


@pytest.mark.parametrize("code", ["query-unreachable", "query-association-rejected", "query-association-aborted"])
def test_a_question_that_reached_nobody_is_no_round(tmp_path: Path, url: str, code: str) -> None:
    with stepped_bench(tmp_path, url, rule=ONE, destination={**PATIENT, "commitment_rounds": 2}) as made:
        archive = _archive(made)
        archive.silent = code
        made.receive(instance(1))
        made.create_jobs()
        made.finish()
        for _ in range(4):
            _ask_now(made)
        (delivery,) = made.job().deliveries
        assert (delivery.state, delivery.code, delivery.commitment_rounds) == ("committing", code, 0)
        archive.silent = ""
        _ask_now(made)
        assert _states(made) == ["committed"]


def test_a_question_without_an_answer_is_a_round(tmp_path: Path, url: str) -> None:
    with stepped_bench(tmp_path, url, rule=ONE, destination={**PATIENT, "commitment_rounds": 2}) as made:
        _archive(made).silent = "query-no-answer"
        made.receive(instance(1))
        made.create_jobs()
        made.finish()
        for _ in range(2):
            _ask_now(made)
        (delivery,) = made.job().deliveries
        assert (delivery.state, delivery.code) == ("failed", "commitment-missing")


@dataclass
class CountedArchive(HonouringArchive):
    """Counts what it is asked."""

    asked: int = 0

    def holds(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> bool:
        """Say whether it shows an object."""
        self.asked += 1
        return super().holds(study_instance_uid, series_instance_uid, sop_instance_uid)


def _receive_several(made: SteppedBench, *series: int) -> None:
    for one in series:
        made.receive(instance(1, series=one))
    made.create_jobs()


def test_a_query_service_that_is_not_reached_is_tried_once_a_wait(tmp_path: Path, url: str) -> None:
    """Each question may last for its whole time-out, and what is to be sent waits for that."""
    with stepped_bench(tmp_path, url, rule=ONE, destination=PATIENT) as made:
        archive = made.destinations["archive"] = CountedArchive("archive", made.settings.data_folder)
        archive.silent = "query-unreachable"
        _receive_several(made, 1, 2, 3)
        made.finish()
        _receive_several(made, 4)  # it comes while the others wait
        made.finish()
        deliveries = [one for job in made.records.jobs() for one in job.deliveries]
        assert archive.asked == 1
        assert {(one.state, one.code, one.commitment_rounds) for one in deliveries} == {
            ("committing", "query-unreachable", 0)
        }
        (at,) = {one.next_attempt_at for one in deliveries}
        assert at is not None
        assert 590 < (at - deliveries[0].created_at).total_seconds() < 660
        _ask_now(made)
        assert archive.asked == 2
        archive.silent = ""
        _ask_now(made)
        assert {job.state for job in made.records.jobs()} == {"closed"}
        assert made.account().agrees


def test_the_one_task_for_all_that_wait_for_a_query_service_comes_when_they_are_due(tmp_path: Path, url: str) -> None:
    with stepped_bench(tmp_path, url, rule=ONE, destination=PATIENT) as made:
        archive = made.destinations["archive"] = CountedArchive("archive", made.settings.data_folder)
        _receive_several(made, 1, 2)
        made.finish()
        made.change("UPDATE deliveries SET state = 'committing', committed_at = NULL")
        archive.silent, archive.asked = "query-unreachable", 0
        with made.records.transaction() as connection:
            TaskQueue().defer_turn(connection, "archive")
        made.step()
        assert archive.asked == 1
        with psycopg.connect(made.records.url) as connection:
            dues = connection.execute(
                "SELECT DISTINCT scheduled_at = (SELECT max(next_attempt_at) FROM deliveries) FROM procrastinate_jobs "
                "WHERE task_name = 'turn' AND status = 'todo'"
            ).fetchall()
        assert dues == [(True,)]


@dataclass
class SilentArchive(CountedArchive):
    """Never reports."""

    requests: int = 0

    def request_commitment(self, request: CommitmentRequest, on_report: Callable[[ReportedCommitment], bool]) -> None:
        """Count the request."""
        self.requests += 1


def test_a_request_does_not_wait_for_a_query_service_each_time(tmp_path: Path, url: str) -> None:
    options = {**PATIENT, "commitment": "storage-commitment"}
    with stepped_bench(tmp_path, url, rule=ONE, destination=options) as made:
        archive = made.destinations["archive"] = SilentArchive("archive", made.settings.data_folder)
        archive.silent = "query-unreachable"
        _receive_several(made, 1, 2, 3)
        made.finish()
        assert (archive.requests, archive.asked) == (3, 0)
        _ask_now(made)
        assert (archive.requests, archive.asked) == (6, 1)


def test_what_may_have_arrived_is_sent_though_the_query_service_is_not_reached_after_one_question(
    tmp_path: Path, url: str
) -> None:
    with stepped_bench(tmp_path, url, rule=ONE) as made:
        archive = made.destinations["archive"] = CountedArchive("archive", made.settings.data_folder)
        archive.silent = "query-unreachable"
        archive.refusing["segmentation"] = DeliveryError("not now", code="status-c001")
        _receive_several(made, 1, 2, 3)
        while sum(one.code == "status-c001" for job in made.records.jobs() for one in job.deliveries) < 3:
            made.step()
        archive.refusing.clear()
        made.change("UPDATE deliveries SET is_unknown = true")
        _ask_now(made)
        assert (archive.asked, len(set(archive.got()))) == (1, 3)
        assert {job.state for job in made.records.jobs()} == {"closed"}


def _ask_now(made: SteppedBench) -> None:
    made.change("UPDATE deliveries SET next_attempt_at = NULL")
    with made.records.transaction() as connection:
        TaskQueue().defer_turn(connection, "archive")
    made.finish()


# --- what is not found, and what is refused ---------------------------------------------------------------------------


@dataclass
class LaggingArchive(HonouringArchive):
    """Shows nothing of what it has while it is `indexing`."""

    indexing: bool = True
    asked: int = 0

    def holds(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> bool:
        """Say whether it shows an object."""
        self.asked += 1
        return not self.indexing


def _lagging(made: SteppedBench) -> LaggingArchive:
    archive = LaggingArchive("archive", made.settings.data_folder)
    made.destinations["archive"] = archive
    made.receive(instance(1))
    made.create_jobs()
    made.finish()
    return archive


def _next_in(made: SteppedBench) -> float:
    """Seconds until the only delivery's next question or sending, for which a task waits."""
    with psycopg.connect(made.records.url) as connection:
        row = connection.execute(
            "SELECT extract(epoch FROM next_attempt_at - clock_timestamp()) FROM deliveries"
        ).fetchone()
    assert row is not None
    return float(row[0])


def test_what_an_archive_shows_a_moment_later_is_not_sent_again(tmp_path: Path, url: str) -> None:
    with stepped_bench(tmp_path, url, rule=ONE, destination=PATIENT) as made:
        archive = _lagging(made)
        (delivery,) = made.job().deliveries
        assert (delivery.state, delivery.code) == ("committing", "commitment-not-found")
        assert (archive.asked, len(archive.got())) == (1, 1)
        assert 590 < _next_in(made) <= 600
        archive.indexing = False
        _ask_now(made)
        (delivery,) = made.job().deliveries
        assert (delivery.state, delivery.code, delivery.attempts) == ("committed", "", 1)
        assert (archive.asked, len(archive.got())) == (2, 1)
        assert made.job().state == "closed"
        assert made.account().agrees


def test_the_next_question_is_a_task_of_its_own(tmp_path: Path, url: str) -> None:
    with stepped_bench(tmp_path, url, rule=ONE, destination=PATIENT) as made:
        made.destinations["archive"] = LaggingArchive("archive", made.settings.data_folder)
        made.receive(instance(1))
        made.create_jobs()
        while made.job().state != "delivering" or not made.job().deliveries[0].code:
            made.step()
        with psycopg.connect(made.records.url) as connection:
            (due,) = connection.execute(
                "SELECT scheduled_at = (SELECT next_attempt_at FROM deliveries) FROM procrastinate_jobs "
                "WHERE task_name = 'turn' AND status = 'todo'"
            ).fetchall()
        assert due == (True,)


def test_what_is_not_found_twice_is_sent_again_and_waited_for_each_time(tmp_path: Path, url: str) -> None:
    options = {**PATIENT, "retry_first_seconds": 100, "commitment_rounds": 2}
    with stepped_bench(tmp_path, url, rule=ONE, destination=options) as made:
        archive = _lagging(made)
        assert 90 < _next_in(made) <= 100
        _ask_now(made)
        (delivery,) = made.job().deliveries
        assert (delivery.state, delivery.attempts, archive.asked) == ("committing", 2, 3)
        assert 190 < _next_in(made) <= 200
        _ask_now(made)
        (delivery,) = made.job().deliveries
        assert (delivery.state, delivery.code, delivery.attempts) == ("failed", "commitment-not-found", 2)
        assert (delivery.commitment_rounds, archive.asked) == (2, 4)
        assert (made.job().state, made.job().code) == ("failed", "not-committed")


def test_a_refused_object_waits_before_it_is_sent_again(tmp_path: Path, url: str) -> None:
    """As where an archive reports at once that it does not have what it took a moment before."""
    with stepped_bench(tmp_path, url, rule=ONE, destination={**PATIENT, "commitment": "storage-commitment"}) as made:
        archive = _reporting(made, 0x0112)
        (delivery,) = made.job().deliveries
        assert (delivery.state, delivery.code, delivery.attempts) == ("waiting", "commitment-0112", 1)
        assert 590 < _next_in(made) <= 600
        archive.reason = None
        _ask_now(made)
        (delivery,) = made.job().deliveries
        assert (delivery.state, delivery.attempts, delivery.commitment_rounds) == ("committed", 2, 2)
        assert made.account().agrees


@dataclass
class ReportingArchive(HonouringArchive):
    """Reports at once on what it is asked to keep, with a reason for all of it where there is one."""

    reason: int | None = None

    def request_commitment(self, request: CommitmentRequest, on_report: Callable[[ReportedCommitment], bool]) -> None:
        """Report before it returns."""
        uids = [uid for _, uid in request.objects]
        refused = () if self.reason is None else tuple((uid, self.reason) for uid in uids)
        assert on_report(ReportedCommitment(request.transaction_uid, () if refused else tuple(uids), refused))


def _reporting(made: SteppedBench, reason: int) -> ReportingArchive:
    archive = ReportingArchive("archive", made.settings.data_folder, reason=reason)
    made.destinations["archive"] = archive
    made.receive(instance(1))
    made.create_jobs()
    made.finish()
    return archive


@dataclass
class ForgetfulArchive(HonouringArchive):
    """Reports nothing; it lost what it is asked for first, and gives no answer about the next."""

    requested: list[int] = field(default_factory=list)
    asked: int = 0

    def request_commitment(self, request: CommitmentRequest, on_report: Callable[[ReportedCommitment], bool]) -> None:
        """Count what it is to keep."""
        self.requested.append(len(request.objects))

    def holds(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> bool:
        """Say whether it shows an object."""
        self.asked += 1
        if self.asked == 1:
            return False
        raise DeliveryError("no answer", code="query-no-answer")


def test_what_is_missing_is_put_off_once_though_the_next_question_has_no_answer(tmp_path: Path, url: str) -> None:
    options = {**PATIENT, "commitment": "storage-commitment"}
    with stepped_bench(tmp_path, url, rule={**BOTH, **ONE}, destination=options) as made:
        archive = made.destinations["archive"] = ForgetfulArchive("archive", made.settings.data_folder)
        made.receive(instance(1))
        made.create_jobs()
        made.finish()
        assert archive.requested == [2]
        _ask_now(made)
        assert archive.requested == [2, 1]
        assert sorted((one.code, one.commitment_rounds) for one in made.job().deliveries) == [
            ("", 2),
            ("commitment-not-found", 1),
        ]


# --- a question that does not leave -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["query", "storage-commitment"])
def test_a_question_that_can_not_be_audited_is_no_round(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    options = {**PATIENT, "commitment": kind, "commitment_rounds": 2}
    with stepped_bench(tmp_path, url, rule=ONE, destination=options) as made:
        append, full = made.audit.append, True

        def append_if_room(event: AuditEvent, *details: Any, **named: Any) -> None:
            if full and event in (AuditEvent.DESTINATION_ASKED, AuditEvent.COMMITMENT_REQUESTED):
                raise AuditError("no room")
            append(event, *details, **named)

        monkeypatch.setattr(made.audit, "append", append_if_room)
        made.destinations["archive"] = ReportingArchive("archive", made.settings.data_folder)
        made.receive(instance(1))
        made.create_jobs()
        for _ in range(6):
            with pytest.raises(AuditError):
                made.finish()
            made.change("UPDATE procrastinate_jobs SET status = 'todo' WHERE status = 'doing'")
        (delivery,) = made.job().deliveries
        assert (delivery.state, delivery.commitment_rounds) == ("committing", 0)
        full = False
        made.finish()
        (delivery,) = made.job().deliveries
        assert (delivery.state, delivery.commitment_rounds, delivery.attempts) == ("committed", 1, 1)
        assert made.job().state == "closed"
