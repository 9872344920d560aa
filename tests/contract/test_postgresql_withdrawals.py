"""Results that are withdrawn, on a real PostgreSQL and its queue: who is told, by what, and that it happens once."""

from __future__ import annotations

import errno
import itertools
import json
import os
import pkgutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest

from app.audit.log import verify as verify_audit
from app.errors import DeliveryError, JobError
from app.graph import FindingRecord, GraphRequest, Role
from app.identifiers import UID
from app.jobs.queue import TaskQueue
from app.jobs.records import Withdrawal
from app.jobs.result_files import ResultFiles
from app.jobs.withdrawing import Order, Withdrawing, ask_to_withdraw, objects_at
from app.settings import Settings
from operators.object_kinds import NEEDS
from operators.rejection_reasons import RejectionReason
from tests.database_fixture import fresh_database
from tests.job_harness import Bench, PlantedGraph, bench, instance, planted_finding
from tests.phantom import Phantom

WITHOUT_NOTES = tuple(kind for kind in NEEDS if kind != "rejection-note")
AT = datetime(2026, 11, 29, 4, 0, tzinfo=UTC)


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


class WritesDicom(PlantedGraph):
    """What it writes has a header: whose the results are."""

    def _found(self, request: GraphRequest, role: Role) -> FindingRecord:
        for number, kind in enumerate(request.kinds):
            Phantom(slices=len(request.kinds)).dataset(number).save_as(
                request.output_folder / f"{role}-{kind}.dcm", enforce_file_format=True
            )
        return planted_finding(role, request.kinds)


def _order(reason: RejectionReason = "quality", destination: str = "") -> Order:
    return Order(reason, "jdoe", AT, destination)


def _withdrawing(made: Bench, settings: Settings) -> Withdrawing:
    return Withdrawing(
        settings=settings,
        records=made.records,
        audit=made.audit,
        queue=TaskQueue(),
        destinations=made.destinations,
        result_files=ResultFiles(settings.results_folder),
    )


def _delivered(made: Bench) -> None:
    made.receive(instance(1))
    made.create_jobs()
    made.work(made.all_ended)


def _withdraw(made: Bench, order: Order) -> list[Withdrawal]:
    meant = ask_to_withdraw(made.records, made.job().id, order)
    made.work(
        lambda: {one.destination for one in made.records.withdrawals(made.job().id)} >= set(meant) and _sent(made)
    )
    return made.records.withdrawals(made.job().id)


def _sent(made: Bench) -> bool:
    return all(one.finished_at is not None for one in made.job().deliveries)


def _states(made: Bench, destination: str) -> dict[str, str]:
    job = made.job()
    kinds = {one.digest: one.kind for one in job.results}
    return {kinds[one.digest]: one.state for one in job.deliveries if one.destination == destination}


def _audited(made: Bench) -> list[dict[str, Any]]:
    path = made.settings.audit_folder / "audit.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line["event"] == "RESULTS_WITHDRAWN"]


def test_each_destination_that_got_something_gets_one_note(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, graph=WritesDicom(), rule={"results": ("segmentation", "report")}) as made:
        _delivered(made)
        results = {one.sop_instance_uid for one in made.job().results}
        done = _withdraw(made, _order())
        job = made.job()
        assert job.state == "closed"
        assert [(one.destination, one.reason, one.person, one.objects, one.code) for one in done] == [
            ("archive", "quality", "jdoe", 2, ""),
            ("viewer", "quality", "jdoe", 2, ""),
        ]
        assert {one.withdrawn_at for one in done} == {AT}
        for name in made.destinations:
            assert _states(made, name) == dict.fromkeys(("segmentation", "report", "rejection-note"), "delivered")
        (note,) = (one for one in job.results if one.kind == "rejection-note")  # the same objects: the same note
        assert {one.digest for one in done} == {note.digest}
        dataset = pydicom.dcmread(note.path)
        (study,) = dataset.CurrentRequestedProcedureEvidenceSequence
        referred = [
            one.ReferencedSOPInstanceUID
            for each in study.ReferencedSeriesSequence
            for one in each.ReferencedSOPSequence
        ]
        assert set(referred) == results
        assert dataset.PatientID == Phantom().dataset(0).PatientID

        with pytest.raises(JobError, match="withdrawn before from archive") as caught:
            ask_to_withdraw(made.records, job.id, _order("unsafe"))
        assert caught.value.code == "already-withdrawn"
        audited = _audited(made)
    assert [(one["detail"]["destination"], one["detail"]["person"]) for one in audited] == [
        ("archive", "jdoe"),
        ("viewer", "jdoe"),
    ]
    assert verify_audit(made.settings.audit_folder).ok


def test_one_destination_after_the_other(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, graph=WritesDicom()) as made:
        _delivered(made)
        (first,) = _withdraw(made, _order(destination="viewer"))
        assert "rejection-note" not in _states(made, "archive")
        later = Order("quality", "other", datetime(2027, 1, 1, tzinfo=UTC))
        both = {one.destination: one for one in _withdraw(made, later)}
        assert both["viewer"] == first
        assert both["archive"].digest == first.digest  # it is the same document, not another with the same UID
        with pytest.raises(JobError) as caught:
            ask_to_withdraw(made.records, made.job().id, _order(destination="elsewhere"))
        assert caught.value.code == "nothing-to-withdraw"


def test_the_task_may_come_twice(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, graph=WritesDicom()) as made:
        _delivered(made)
        job_id = made.job().id
        ask_to_withdraw(made.records, job_id, _order())
        ask_to_withdraw(made.records, job_id, _order("unsafe"))
        made.work(lambda: len(made.records.withdrawals(job_id)) == 2 and _sent(made) and not _waiting(made))
        assert {one.reason for one in made.records.withdrawals(job_id)} == {"quality"}
        assert [one.kind for one in made.job().results].count("rejection-note") == 1
        assert len(_audited(made)) == 2


def _waiting(made: Bench) -> bool:
    return any(status in ("todo", "doing") for _, status in made.queued_tasks())


def test_what_waits_is_cancelled_and_the_job_ends(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, graph=WritesDicom()) as made:
        (tmp_path / "viewer.down").touch()
        made.receive(instance(1))
        made.create_jobs()
        made.work(lambda: _states(made, "archive") == {"segmentation": "delivered"} and _is_tried(made))
        # while no worker runs: one that sends just then may have brought it there
        _withdrawing(made, made.settings).run(made.job().id, _order("wrong-patient"))
        done = {one.destination: one for one in made.records.withdrawals(made.job().id)}
        made.work(lambda: made.all_ended() and _sent(made))
        assert made.job().state == "closed"
        assert _states(made, "viewer") == {"segmentation": "cancelled"}
        assert (done["viewer"].objects, done["viewer"].digest, done["viewer"].message) == (
            0,
            "",
            "nothing had been sent there",
        )
        assert _states(made, "archive") == {"segmentation": "delivered", "rejection-note": "delivered"}
        assert made.destinations["viewer"].got() == []


def _is_tried(made: Bench) -> bool:
    return any(one.destination == "viewer" and one.attempts for one in made.job().deliveries)


@pytest.mark.parametrize("then", ["no-answer", "not-told", "unreachable"])
def test_what_may_have_arrived_is_withdrawn_too(tmp_path: Path, url: str, then: str) -> None:
    """What an attempt after it came to does not change that: it may be there."""
    with bench(tmp_path, url, graph=WritesDicom()) as made:
        viewer = made.destinations["viewer"]
        deliver = viewer.deliver

        def unheard(path: Path) -> None:
            if path.stem == "rejection-note":
                deliver(path)
                return
            if viewer.got() and then == "unreachable":
                raise DeliveryError("it is away", code="unreachable")
            deliver(path)
            raise DeliveryError("no word", code="no-answer")

        def has_come_to_that() -> bool:
            codes = [one.code for one in made.job().deliveries if one.destination == "viewer"]
            return _states(made, "archive") == {"segmentation": "delivered"} and codes == [then]

        def holds(*_: UID) -> bool:
            raise DeliveryError("no word", code="no-answer")

        viewer.deliver, viewer.holds, viewer.can_be_asked = unheard, holds, then == "not-told"
        made.receive(instance(1))
        made.create_jobs()
        made.work(has_come_to_that)
        done = {one.destination: one for one in _withdraw(made, _order())}
        assert done["viewer"].objects == 1
        assert _states(made, "viewer") == {"segmentation": "cancelled", "rejection-note": "delivered"}
        assert len(objects_at(made.job(), "viewer")) == 1


def test_a_destination_that_takes_no_notes_is_left_to_people(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, graph=WritesDicom()) as made:
        made.destinations["viewer"].accepted = WITHOUT_NOTES
        for name, accepted in (("viewer", WITHOUT_NOTES), ("archive", WITHOUT_NOTES)):  # archive takes them by now
            made.records.keep_profile(name, made.settings.destination_named(name).address, accepted)
        _delivered(made)
        done = {one.destination: one for one in _withdraw(made, _order())}
        assert (done["viewer"].code, done["viewer"].digest) == ("note-not-taken", "")
        assert done["viewer"].message.endswith("have the objects removed there by hand")
        assert done["archive"].code == ""
        assert _states(made, "viewer") == {"segmentation": "delivered"}
        assert made.job().state == "closed"
        assert {one["outcome"] for one in _audited(made)} == {0, 4}


def test_a_note_that_is_refused_leaves_the_job_as_it_is(tmp_path: Path, url: str) -> None:
    """The destination was never asked what it takes, and refuses."""
    with bench(tmp_path, url, graph=WritesDicom()) as made:
        _delivered(made)
        made.destinations["viewer"].accepted = WITHOUT_NOTES
        _withdraw(made, _order())
        assert _states(made, "viewer") == {"segmentation": "delivered", "rejection-note": "failed"}
        assert made.job().state == "closed"


def test_a_result_whose_file_is_gone_is_withdrawn_by_hand(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, graph=WritesDicom()) as made:
        _delivered(made)
        for one in made.job().results:
            Path(one.path).unlink()
        done = _withdraw(made, _order())
        assert {one.code for one in done} == {"note-not-written"}


@pytest.mark.parametrize(
    ("what", "number"),
    [
        ("operators.results.rejection_note.write_rejection_note", errno.ENOSPC),
        ("app.jobs.withdrawing.read_before_pixels", errno.EIO),
    ],
)
def test_a_disk_that_can_not_be_used_is_waited_for_and_the_note_is_sent(
    what: str, number: int, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = pkgutil.resolve_name(what), itertools.count(1)

    def fail_at_first(*arguments: Any, **options: Any) -> Any:
        if next(calls) <= 2:
            raise OSError(number, os.strerror(number))
        return original(*arguments, **options)

    with bench(tmp_path, url, graph=WritesDicom()) as made:
        _delivered(made)
        monkeypatch.setattr(what, fail_at_first)
        done = _withdraw(made, _order())
        assert {one.code for one in done} == {""}
        for name in made.destinations:
            assert _states(made, name)["rejection-note"] == "delivered"


def test_a_held_job_is_discarded_instead(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        made.receive(instance(1))
        made.create_jobs()
        with pytest.raises(JobError, match="the job is queued, and nothing of it was sent") as caught:
            ask_to_withdraw(made.records, made.job().id, _order())
        assert caught.value.code == "nothing-to-withdraw"


def test_superseded_results_are_withdrawn_where_the_settings_say_so(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, graph=WritesDicom()) as made:
        _delivered(made)
        job = made.job()
        one, other = made.settings.destination
        wanting = one.model_copy(update={"on_superseded": "withdraw"})
        settings = made.settings.model_copy(update={"destination": (wanting, other)})
        with made.records.transaction() as connection:
            assert _withdrawing(made, settings).withdraw_superseded(connection, job) == ["archive"]
        made.work(lambda: len(made.records.withdrawals(job.id)) == 1 and _sent(made))
        (done,) = made.records.withdrawals(job.id)
        assert (done.destination, done.reason, done.person) == ("archive", "superseded", "on_superseded")
        assert _states(made, "archive")["rejection-note"] == "delivered"
        (audited,) = _audited(made)
    assert audited["detail"]["rule"] == "every"
    assert "person" not in audited["detail"]


def test_more_of_a_series_withdraws_what_was_made_of_less(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, graph=WritesDicom(), destination={"on_superseded": "withdraw"}) as made:
        _delivered(made)
        first = made.job().id
        made.receive(instance(2))
        made.create_jobs()
        made.work(lambda: len(made.records.withdrawals(first)) == 2 and made.all_ended() and not _waiting(made))
        newer, older = made.records.jobs()
        assert (newer.state, older.state, older.id) == ("closed", "closed", first)
        kinds = {one.digest: one.kind for one in older.results}
        assert {(kinds[one.digest], one.state) for one in older.deliveries} == {
            ("segmentation", "delivered"),
            ("rejection-note", "delivered"),
        }
        assert {one.reason for one in made.records.withdrawals(first)} == {"superseded"}
        assert made.records.withdrawals(newer.id) == []
