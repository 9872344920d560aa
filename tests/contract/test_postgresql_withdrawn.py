"""What was withdrawn stays withdrawn: no commitment that is missing, no replay and no other form sends it again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest

from app.errors import DeliveryError, DeliveryRefused
from app.jobs import steering
from app.jobs.queue import TaskQueue
from app.jobs.withdrawing import Order, ask_to_withdraw
from operators.object_kinds import Kind
from tests.contract.test_postgresql_withdrawals import WritesDicom
from tests.database_fixture import fresh_database
from tests.job_harness import DESTINATIONS, PlantedDestination
from tests.stepped_bench import SteppedBench, stepped_bench

PATIENT = {"retry_first_seconds": 600, "retry_longest_seconds": 600}
COMMITTING = {**PATIENT, "commitment": "query"}
BOTH = {"results": ("segmentation", "report")}


@dataclass
class HonouringArchive(PlantedDestination):
    """Hides what it has once it got a rejection note; refuses, and fails to answer with the code `silent`, as told."""

    silent: str = ""
    refusing: dict[str, Exception] = field(default_factory=dict)
    notes: set[str] = field(default_factory=set)
    can_be_asked = True

    def deliver(self, path: Path) -> None:
        """Take one file."""
        for kind, error in self.refusing.items():
            if path.stem.endswith(kind):
                raise error
        super().deliver(path)
        if path.stem == "rejection-note":
            self.notes.add(pydicom.dcmread(path).SOPInstanceUID)

    def holds(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> bool:
        """Say whether it shows an object."""
        if self.silent:
            raise DeliveryError("nobody there", code=self.silent)
        return sop_instance_uid in self.notes or not self.notes


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


def _bench(folder: Path, url: str, **options: Any) -> Any:
    options = {"destination": COMMITTING, **options}
    return stepped_bench(folder, url, graph=WritesDicom(), **options)


def _archives(made: SteppedBench) -> list[HonouringArchive]:
    for name in DESTINATIONS:
        made.destinations[name] = HonouringArchive(name, made.settings.data_folder)
    return list(made.destinations.values())


def _work(made: SteppedBench) -> None:
    """Do all that there is to do, and what was postponed."""
    with made.records.transaction() as connection:
        connection.execute("UPDATE deliveries SET next_attempt_at = NULL")
    made.finish()


def _deliver(made: SteppedBench) -> None:
    made.receive_study(1)
    made.create_jobs()
    made.finish()


def _withdraw(made: SteppedBench, destination: str = "") -> None:
    ask_to_withdraw(
        made.records, made.job().id, Order("wrong-patient", "jdoe", datetime(2026, 5, 1, tzinfo=UTC), destination)
    )
    _work(made)


def _states(made: SteppedBench, destination: str) -> dict[str, tuple[str, str]]:
    job = made.job()
    kinds = {one.digest: one.kind for one in job.results}
    return {kinds[one.digest]: (one.state, one.code) for one in job.deliveries if one.destination == destination}


def _got(made: SteppedBench, destination: str) -> list[str]:
    kinds = {one.digest: str(one.kind) for one in made.job().results}
    return [kinds[digest] for digest in made.destinations[destination].got()]


def _replay(made: SteppedBench) -> None:
    steering.ask(made.records, "replay", made.job(), "erika")
    _work(made)


# --- commitments ----------------------------------------------------------------------------------------------------


def test_what_waits_for_its_commitment_is_not_sent_again(tmp_path: Path, url: str) -> None:
    with _bench(tmp_path, url) as made:
        archives = _archives(made)
        for one in archives:
            one.silent = "query-unreachable"
        _deliver(made)
        assert _states(made, "archive") == {"segmentation": ("committing", "query-unreachable")}
        for one in archives:
            one.silent = ""
        _withdraw(made)
        for name in DESTINATIONS:
            assert _got(made, name) == ["segmentation", "rejection-note"]
            assert _states(made, name) == {
                "segmentation": ("delivered", "withdrawn"),
                "rejection-note": ("committed", ""),
            }
        assert made.job().state == "closed"
        assert made.account().agrees


def test_the_notes_arrival_asks_for_no_commitment_of_what_it_rejects(tmp_path: Path, url: str) -> None:
    with _bench(tmp_path, url, rule=BOTH) as made:
        for one in _archives(made):
            one.refusing["report"] = DeliveryError("not now", code="status-c001")
        _deliver(made)
        assert {kind: state for kind, (state, _) in _states(made, "archive").items()} == {
            "segmentation": "delivered",
            "report": "waiting",
        }
        _withdraw(made)
        for name in DESTINATIONS:
            assert _got(made, name) == ["segmentation", "rejection-note"]
            assert {kind: state for kind, (state, _) in _states(made, name).items()} == {
                "segmentation": "delivered",
                "report": "cancelled",
                "rejection-note": "committed",
            }
        assert made.job().state == "closed"


def test_where_it_was_not_withdrawn_from_it_is_still_asked_for(tmp_path: Path, url: str) -> None:
    with _bench(tmp_path, url) as made:
        archives = _archives(made)
        for one in archives:
            one.silent = "query-unreachable"
        _deliver(made)
        for one in archives:
            one.silent = ""
        with made.records.transaction() as connection:
            TaskQueue().defer_turn(connection, "archive")
        _withdraw(made, "viewer")
        assert _states(made, "archive") == {"segmentation": ("committed", "")}
        assert _states(made, "viewer")["segmentation"] == ("delivered", "withdrawn")
        assert made.job().state == "closed"


def test_an_older_programs_open_commitment_is_not_sent_again(tmp_path: Path, url: str) -> None:
    """It has withdrawn, and left the delivery waiting for its commitment."""
    with _bench(tmp_path, url) as made:
        _archives(made)
        _deliver(made)
        _withdraw(made, "archive")
        made.change(
            "UPDATE deliveries SET state = 'committing', code = '' FROM results"
            " WHERE results.digest = deliveries.digest AND kind = 'segmentation' AND destination = 'archive'"
        )
        with made.records.transaction() as connection:
            TaskQueue().defer_turn(connection, "archive")
        _work(made)
        assert _states(made, "archive")["segmentation"] == ("delivered", "withdrawn")
        assert _got(made, "archive") == ["segmentation", "rejection-note"]


# --- the last fence -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_unknown", [False, True])
def test_what_is_to_be_sent_though_it_was_withdrawn_is_not(tmp_path: Path, url: str, is_unknown: bool) -> None:
    """As another form is that takes the place of one which was being sent when it was withdrawn."""
    with _bench(tmp_path, url) as made:
        _archives(made)
        _deliver(made)
        _withdraw(made)
        job = made.job()
        (result,) = (one for one in job.results if one.kind == "segmentation")
        made.change("UPDATE jobs SET state = 'delivering'")
        made.change(
            "UPDATE deliveries SET state = 'waiting', is_unknown = %s WHERE digest = %s", is_unknown, result.digest
        )
        with made.records.transaction() as connection:
            for name in DESTINATIONS:
                TaskQueue().defer_deliver(connection, job, result.digest, name)
        _work(made)
        for name in DESTINATIONS:
            assert _states(made, name)["segmentation"] == ("cancelled", "withdrawn")
            assert _got(made, name) == ["segmentation", "rejection-note"]
        assert made.job().state == "closed"


def test_a_sending_waits_for_a_withdrawal_that_is_under_way(tmp_path: Path, url: str) -> None:
    """Else the object would arrive, and the note that was written meanwhile would not refer to it."""
    with _bench(tmp_path, url) as made:
        made.receive_study(1)
        made.create_jobs()
        made.step()
        job = made.job()
        (result,) = job.results
        begun: list[object] = []
        sending = threading.Thread(
            target=lambda: begun.append(made.records.begin_delivery(job.id, result.digest, "archive"))
        )
        with made.records.transaction() as connection:
            made.records.lock_job(connection, job.id)
            sending.start()
            sending.join(0.5)
            assert not begun
            made.records.cancel_deliveries(connection, job.id, "archive", "of insufficient quality")
        sending.join()
        assert begun == [None]


@pytest.mark.parametrize("is_down", [False, True])
def test_a_destination_that_is_down_is_not_asked_whether_it_takes_notes(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, is_down: bool
) -> None:
    """Only whoever has its turn connects to it."""
    with _bench(tmp_path, url, destination=PATIENT) as made:
        archive, _ = _archives(made)
        _deliver(made)
        address = made.settings.destination_named("archive").address
        made.records.keep_profile("archive", address, ["segmentation"])
        if is_down:
            made.change(
                "UPDATE destination_windows SET failures = 1, next_attempt_at = clock_timestamp() + interval '1 hour'"
            )
        asked: list[bool] = []

        def accepted_kinds() -> tuple[Kind, ...]:
            asked.append(True)
            return ("segmentation", "rejection-note")

        monkeypatch.setattr(archive, "accepted_kinds", accepted_kinds)
        _withdraw(made, "archive")
        assert asked == ([] if is_down else [True])
        (withdrawal,) = made.records.withdrawals(made.job().id)
        assert withdrawal.code == ("note-not-taken" if is_down else "")


def test_what_was_sent_and_not_committed_is_withdrawn_by_a_note(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The destination took it, and may have it: it only never said that it keeps it."""
    with _bench(tmp_path, url) as made:
        archive, _ = _archives(made)
        monkeypatch.setattr(archive, "can_be_asked", False)
        _deliver(made)
        assert made.job().code == "not-committed"
        _withdraw(made, "archive")
        assert "rejection-note" in _got(made, "archive")


def test_what_was_not_committed_and_is_sent_again_in_vain_is_withdrawn_by_a_note(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What became of the second sending says nothing of the first."""
    with _bench(tmp_path, url) as made:
        archive, _ = _archives(made)
        with monkeypatch.context() as patched:
            patched.setattr(archive, "can_be_asked", False)
            _deliver(made)
        assert made.job().code == "not-committed"
        archive.silent = "unreachable"
        archive.refusing["segmentation"] = DeliveryError("nobody there", code="unreachable")
        _replay(made)
        archive.silent = ""
        archive.refusing.clear()
        _withdraw(made, "archive")
        assert _states(made, "archive")["rejection-note"] == ("waiting", "")  # until the destination is back


# --- replays --------------------------------------------------------------------------------------------------------


def _half_refused(made: SteppedBench, error: Exception) -> None:
    """The archive has the result; the viewer does not."""
    _archives(made)[1].refusing["segmentation"] = error
    _deliver(made)


def test_a_replay_sends_nothing_that_was_withdrawn(tmp_path: Path, url: str) -> None:
    with _bench(tmp_path, url, destination=PATIENT) as made:
        _half_refused(made, DeliveryRefused("never", code="status-c000"))
        assert (made.job().state, made.job().code) == ("failed", "not-delivered")
        assert made.records.replayable_jobs() == [made.job().id]
        _withdraw(made)
        made.destinations["viewer"].refusing.clear()
        assert made.records.replayable_jobs() == []
        _replay(made)
        assert _got(made, "viewer") == []
        assert _got(made, "archive") == ["segmentation", "rejection-note"]
        assert made.job().state == "closed"
        assert {one.destination: one.objects for one in made.records.withdrawals(made.job().id)} == {
            "archive": 1,
            "viewer": 0,
        }


def test_a_cancelled_jobs_replay_sends_nothing_that_was_withdrawn(tmp_path: Path, url: str) -> None:
    with _bench(tmp_path, url, destination=PATIENT) as made:
        _half_refused(made, DeliveryError("not now", code="status-c001"))
        steering.ask(made.records, "cancel", made.job(), "erika")
        made.finish()
        _withdraw(made)
        made.destinations["viewer"].refusing.clear()
        _replay(made)
        assert _got(made, "viewer") == []
        assert made.job().state == "closed"


def test_withdrawn_from_one_destination_it_is_sent_to_the_other(tmp_path: Path, url: str) -> None:
    with _bench(tmp_path, url, destination=PATIENT) as made:
        _half_refused(made, DeliveryRefused("never", code="status-c000"))
        _withdraw(made, "archive")
        made.destinations["viewer"].refusing.clear()
        assert made.records.replayable_jobs() == [made.job().id]
        _replay(made)
        assert _got(made, "viewer") == ["segmentation"]
        assert _got(made, "archive") == ["segmentation", "rejection-note"]
        assert made.job().state == "closed"


def test_a_refused_note_is_sent_by_a_replay(tmp_path: Path, url: str) -> None:
    with _bench(tmp_path, url, destination=PATIENT) as made:
        _half_refused(made, DeliveryRefused("never", code="status-c000"))
        made.destinations["archive"].refusing["rejection-note"] = DeliveryRefused("never", code="status-c000")
        _withdraw(made)
        assert _states(made, "archive")["rejection-note"] == ("failed", "status-c000")
        made.destinations["archive"].refusing.clear()
        _replay(made)
        assert _states(made, "archive") == {"segmentation": ("delivered", ""), "rejection-note": ("delivered", "")}


# --- a removal that is left over ------------------------------------------------------------------------------------


def _removal_left(made: SteppedBench) -> None:
    """Record the results as removed, as a run does that is killed before their files go."""
    with made.records.transaction() as connection:
        assert made.records.lock_results(connection, made.job().id)
        made.records.mark_results(connection, made.job().id)


def _send_note(made: SteppedBench, destination: str) -> None:
    """Have a note sent that was refused for now, once retention has run."""
    archive = made.destinations[destination]
    assert _states(made, destination)["rejection-note"][0] == "waiting"
    assert not made.retention.run()
    archive.refusing.clear()
    with made.records.transaction() as connection:
        TaskQueue().defer_turn(connection, destination)
    _work(made)
    assert len(archive.notes) == 1


@pytest.mark.parametrize("is_known", [False, True], ids=["written since", "written before"])
def test_a_removal_that_is_left_over_takes_no_note_away(tmp_path: Path, url: str, is_known: bool) -> None:
    with _bench(tmp_path, url, destination=PATIENT) as made:
        archives = _archives(made)
        _deliver(made)
        if is_known:  # another destination has got it
            _withdraw(made, "viewer")
        _removal_left(made)
        archives[0].refusing["rejection-note"] = DeliveryError("not now", code="status-c001")
        _withdraw(made, "archive")
        _send_note(made, "archive")
        assert _states(made, "archive")["rejection-note"][0] == "delivered"
        assert made.records.results_to_remove(10) == []
        assert made.account().agrees


# --- the account ----------------------------------------------------------------------------------------------------


def test_the_account_asks_for_nothing_that_was_withdrawn(tmp_path: Path, url: str) -> None:
    with _bench(tmp_path, url, destination=PATIENT) as made:
        _archives(made)
        _deliver(made)
        _withdraw(made, "viewer")
        asked = made.records.delivered(datetime(2000, 1, 1, tzinfo=UTC))
        assert [one["destination"] for one in asked] == ["archive"]
