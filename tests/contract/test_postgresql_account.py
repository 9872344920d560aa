"""The account on a real PostgreSQL: no false alarm in any healthy state; each planted loss is named, and only it."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from app.audit.events import AuditEvent, Outcome
from app.cli import app
from app.errors import GraphFailed, JobError
from app.jobs.accounting import account
from app.jobs.discrepancies import CODES
from app.jobs.holding import ask_for_decision
from app.jobs.queue import DISCARD, RELEASE, TaskQueue
from app.jobs.records import Sending
from app.jobs.withdrawing import Order, ask_to_withdraw
from app.settings_pipeline import GeneralistSettings
from operators.errors import InferenceFailed, SeriesRefused
from tests.contract.test_postgresql_withdrawals import WritesDicom
from tests.database_fixture import fresh_database
from tests.job_harness import AGREEING, DISAGREEING, PlantedGraph, instance
from tests.stepped_bench import EVER, SteppedBench, stepped_bench


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


@pytest.fixture
def bench(tmp_path: Path, url: str) -> Iterator[SteppedBench]:
    with stepped_bench(tmp_path, url) as made:
        yield made


def _closed(bench: SteppedBench) -> None:
    bench.receive_study(1)
    bench.receive_study(2)
    bench.create_jobs()
    bench.finish()
    assert {one.state for one in bench.records.jobs()} == {"closed"}


def _delivering(bench: SteppedBench) -> None:
    bench.receive_study(1)
    bench.create_jobs()
    bench.step()
    assert bench.job().state == "delivering"


def _queued(bench: SteppedBench) -> None:
    bench.receive_study(1)
    bench.create_jobs()


def _all_sent(bench: SteppedBench) -> None:
    _delivering(bench)
    bench.step()
    bench.step()
    assert [name for name, _ in bench.queued_tasks()] == ["close"]


def _one_delivered(bench: SteppedBench) -> None:
    _delivering(bench)
    bench.step()
    assert sorted(one.state for one in bench.job().deliveries) == ["delivered", "waiting"]


def _one_closed(bench: SteppedBench) -> None:
    _queued(bench)
    bench.finish()


def _superseded(bench: SteppedBench) -> None:
    """A job that was closed and delivered, and then another of the whole series."""
    _one_closed(bench)
    bench.receive(instance(10, study=1))
    bench.create_jobs()
    bench.finish()
    assert [(one.state, one.superseded_by is None) for one in bench.records.jobs()] == [
        ("closed", True),
        ("closed", False),
    ]


def _undecided(bench: SteppedBench) -> None:
    bench.receive_study(1)
    study = instance(1, study=1).study_instance_uid
    bench.audit.append(AuditEvent.INSTANCES_RECEIVED, study_instance_uid=study, instances=2)


def _held(bench: SteppedBench) -> None:
    _delivering(bench)
    bench.change("UPDATE deliveries SET state = 'held'")
    bench.change("UPDATE jobs SET state = 'held'")
    bench.change("DELETE FROM procrastinate_jobs")


# --- planted losses ---------------------------------------------------------------------------------------------------

Plant = Callable[[SteppedBench], None]


def _remove_file(bench: SteppedBench) -> None:
    bench.spooled(1)[0].unlink()


def _cut_file(bench: SteppedBench) -> None:
    bench.spooled(1)[0].write_bytes(b"")


def _turn_bit(bench: SteppedBench) -> None:
    path = bench.spooled(1)[0]
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


def _remove_result(bench: SteppedBench) -> None:
    Path(bench.records.jobs()[0].results[0].path).unlink()


def _change_result(bench: SteppedBench) -> None:
    Path(bench.records.jobs()[0].results[0].path).write_bytes(b"other")


def _send_again(bench: SteppedBench) -> None:
    (result,) = bench.job().results
    with bench.records.transaction() as connection:
        TaskQueue().defer_deliver(connection, bench.job(), result.digest, "viewer")
    bench.change("UPDATE deliveries SET state = 'waiting' WHERE destination = 'viewer'")


def _lose_instance(bench: SteppedBench) -> None:
    """Its row and its file."""
    bench.spooled(1)[0].unlink()
    _delete("instances", _ONE_INSTANCE, forced=True)(bench)


def _lose_delivery(bench: SteppedBench) -> None:
    """To the viewer: its row and its task."""
    bench.change("DELETE FROM procrastinate_jobs WHERE args ->> 'destination' = 'viewer'")
    bench.change("DELETE FROM deliveries WHERE destination = 'viewer'")


def _lose_study(bench: SteppedBench) -> None:
    """Rows and files, of a study of which nothing was made yet."""
    for path in bench.spooled(1):
        path.unlink()
    for table in ("instances", "series"):
        _delete(table, _OF_FIRST)(bench)


def _sql(statement: str, *, forced: bool = False) -> Plant:
    first = (instance(1, study=1).study_instance_uid,) if "%s" in statement else ()
    return lambda bench: bench.change(statement, *first, forced=forced)


def _delete(table: str, where: str, *, forced: bool = False) -> Plant:
    return _sql(" ".join(("DELETE FROM", table, where)), forced=forced)


def _audit_without(event: AuditEvent) -> Plant:
    return lambda bench: bench.rewrite_audit_log_without(event)


_OF_FIRST = "WHERE study_instance_uid = %s"
_OF_FIRST_JOB = "WHERE job_id = (SELECT id FROM jobs WHERE study_instance_uid = %s)"
_ONE_INSTANCE = "WHERE number = (SELECT min(number) FROM instances WHERE study_instance_uid = %s)"

PLANTED: tuple[tuple[str, Plant, str, Plant], ...] = (
    ("a file removed", _closed, "file-missing", _remove_file),
    ("a file cut off", _closed, "file-changed", _cut_file),
    ("a bit of a file turned", _closed, "file-changed", _turn_bit),
    ("an instance lost that was read", _closed, "instance-missing", _lose_instance),
    ("an instance lost that is to be read", _queued, "instance-missing", _lose_instance),
    ("a ledger row deleted", _closed, "file-unrecorded", _delete("instances", _ONE_INSTANCE, forced=True)),
    ("a series deleted", _closed, "series-missing", _delete("series", _OF_FIRST, forced=True)),
    (
        "a series without instances",
        _closed,
        "series-empty",
        _sql("INSERT INTO series (study_instance_uid, series_instance_uid, state, calling_ae_title) "
             "VALUES ('1.2', '1.3', 'no-rule', '')"),
    ),
    ("a study lost before it was decided", _undecided, "study-missing", _lose_study),
    ("a job deleted", _closed, "job-missing", _delete("jobs", _OF_FIRST)),
    ("the only job deleted", _one_closed, "job-missing", _delete("jobs", _OF_FIRST)),
    ("a job deleted that delivers", _delivering, "job-missing", _delete("jobs", _OF_FIRST)),
    (
        "a superseded job deleted",
        _superseded,
        "job-missing",
        _sql("DELETE FROM jobs WHERE superseded_by IS NOT NULL"),
    ),
    ("a queued job deleted", _queued, "series-without-job", _delete("jobs", _OF_FIRST)),
    ("a job's inputs deleted", _closed, "job-without-inputs", _delete("job_inputs", _OF_FIRST_JOB)),
    ("the task of a queued job deleted", _queued, "job-without-task", _sql("DELETE FROM procrastinate_jobs")),
    (
        "the task that closes a job deleted",
        _all_sent,
        "job-not-closed",
        _sql("DELETE FROM procrastinate_jobs WHERE task_name = 'close'"),
    ),
    (
        "the task that closes a job given up",
        _all_sent,
        "task-given-up",
        _sql("UPDATE procrastinate_jobs SET queue_name = 'given-up' WHERE task_name = 'close'"),
    ),
    ("a job closed too soon", _one_closed, "job-closed-too-soon", _send_again),
    ("a held delivery deleted", _held, "job-held-without-delivery", _sql("DELETE FROM deliveries")),
    (
        "a delivery held alone",
        _delivering,
        "delivery-held-alone",
        _sql("UPDATE deliveries SET state = 'held' WHERE destination = 'viewer'"),
    ),
    (
        "the task of a delivery deleted",
        _delivering,
        "delivery-without-task",
        _sql("DELETE FROM procrastinate_jobs WHERE args ->> 'destination' = 'viewer'"),
    ),
    (
        "a delivery deleted while it waits",
        _delivering,
        "delivery-missing",
        _sql("DELETE FROM deliveries WHERE destination = 'viewer'"),
    ),
    (
        "a delivery deleted that was done",
        _closed,
        "delivery-missing",
        _delete("deliveries", _OF_FIRST_JOB + " AND destination = 'viewer'"),
    ),
    (
        "a delivery set to delivered before it was sent",
        _delivering,
        "audit-delivery-not-made",
        _sql("UPDATE deliveries SET state = 'delivered', finished_at = now() WHERE destination = 'viewer'"),
    ),
    (
        "a delivery set to committed that was delivered",
        _closed,
        "audit-delivery-not-made",
        _sql(" ".join(("UPDATE deliveries SET state = 'committed'", _OF_FIRST_JOB, "AND destination = 'viewer'"))),
    ),
    (
        "the delivery of an object not audited",
        _one_delivered,
        "audit-delivery-not-made",
        _audit_without(AuditEvent.DELIVERY_SUCCEEDED),
    ),
    ("a delivery deleted with its task before it was tried", _delivering, "deliveries-lost", _lose_delivery),
    ("a result removed", _closed, "result-missing", _remove_result),
    ("a result changed", _closed, "result-changed", _change_result),
    ("the making of a job not audited", _queued, "audit-job-not-created", _audit_without(AuditEvent.JOB_CREATED)),
    ("the end of a job not audited", _one_closed,
     "audit-job-not-ended", _audit_without(AuditEvent.JOB_CLOSED)),
)  # fmt: skip


@pytest.mark.parametrize(("before", "code", "plant"), [one[1:] for one in PLANTED], ids=[one[0] for one in PLANTED])
def test_a_planted_loss_is_named_and_nothing_else(bench: SteppedBench, before: Plant, code: str, plant: Plant) -> None:
    before(bench)
    if before is not _held:  # which was made by hand too
        assert bench.account().discrepancies == ()
    plant(bench)
    found = bench.account()
    assert [one.code for one in found.discrepancies] == [code]
    assert found.discrepancies[0].subject
    assert not found.agrees


def test_every_code_is_planted_once() -> None:
    elsewhere = {"audit-log-missing", "study-never-seen", "series-never-seen", "result-not-held"}
    assert {code for _, _, code, _ in PLANTED} | elsewhere == set(CODES)


def test_a_study_of_which_something_else_is_missed_is_not_named_twice(bench: SteppedBench) -> None:
    """Its audit line, the instances that its job read, and what is left of a series."""
    _undecided(bench)
    bench.create_jobs()
    for path in bench.spooled(1):
        path.unlink()
    _delete("instances", _OF_FIRST, forced=True)(bench)
    assert [one.code for one in bench.account().discrepancies] == [
        "instance-missing",
        "instance-missing",
        "series-empty",
    ]


def test_a_destination_that_never_gets_an_object_is_named(bench: SteppedBench) -> None:
    """Also once the job is closed, as if all had gone well; and where it was the last that waited."""
    _delivering(bench)
    _lose_delivery(bench)
    (found,) = bench.account().discrepancies
    assert (found.code, found.job_id, found.destination) == ("deliveries-lost", str(bench.job().id), "viewer")
    bench.finish()
    assert bench.job().state == "closed"
    assert bench.account().discrepancies == (found,)
    bench.receive_study(2)
    bench.create_jobs()
    bench.step()
    bench.step()
    _lose_delivery(bench)
    assert [(one.code, one.destination) for one in bench.account().discrepancies] == [("deliveries-lost", "viewer")] * 2


def test_a_delivery_that_is_known_is_not_counted_again(bench: SteppedBench) -> None:
    """A form that takes another one's place may be on its way already."""
    _delivering(bench)
    known = [Sending(one.job_id, one.digest, one.destination) for one in bench.job().deliveries]
    with bench.records.transaction() as connection:
        bench.records.add_results(connection, [], [*known, known[0]._replace(destination="other")])
    bench.change("DELETE FROM deliveries WHERE destination = 'other'")
    assert [one.code for one in bench.account().discrepancies] == ["deliveries-lost"]
    bench.change("UPDATE jobs SET deliveries_made = deliveries_made - 1")
    assert bench.account().agrees


def test_deliveries_of_a_program_that_does_not_count_them_are_not_missed(bench: SteppedBench) -> None:
    _queued(bench)
    bench.change("UPDATE jobs SET deliveries_made = NULL")
    bench.finish()
    assert bench.account().agrees


def test_jobs_without_any_audit_log_are_said_once(bench: SteppedBench, tmp_path: Path) -> None:
    _closed(bench)
    found = account(bench.records, bench.kept, bench.files, [tmp_path / "nowhere"], EVER)
    assert [one.code for one in found.discrepancies] == ["audit-log-missing"]


def _command(bench: SteppedBench, folder: Path, *arguments: str) -> Result:
    path = folder / "limner.toml"
    archive = '[[archive]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 1\n'
    path.write_text(
        f'data_folder = "."\n[database]\nurl = "{bench.records.url}"\n[listener]\nlow_water_bytes = 0\n{archive}'
    )
    return CliRunner().invoke(app, ["account", "--settings", str(path), *arguments])


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # the toolkit drops what did not connect
def test_the_exit_code_says_what_is_proven(bench: SteppedBench, tmp_path: Path) -> None:
    _closed(bench)
    assert _command(bench, tmp_path).exit_code == 0
    unasked = _command(bench, tmp_path, "--ask", "pacs")
    assert "archive pacs can't be asked" in unasked.output.replace("\n", " ")
    assert unasked.exit_code == 3, unasked.output
    assert json.loads(_command(bench, tmp_path, "--ask", "pacs", "--json").stdout)["agrees"]
    _remove_file(bench)
    assert _command(bench, tmp_path).exit_code == 1
    assert _command(bench, tmp_path, "--ask", "pacs").exit_code == 1


def test_jobs_older_than_the_log_are_not_held_to_it(bench: SteppedBench) -> None:
    _closed(bench)
    bench.rewrite_audit_log_without(AuditEvent.APPLICATION_STARTED)
    bench.change("UPDATE jobs SET created_at = created_at - interval '1 day'")
    bench.rewrite_audit_log_without(AuditEvent.JOB_CREATED)
    assert bench.account().agrees


def _lose_job(bench: SteppedBench) -> None:
    """A job of two days ago."""
    bench.change("UPDATE jobs SET created_at = created_at - interval '2 days'")
    bench.change("DELETE FROM jobs WHERE superseded_by IS NOT NULL")


def test_a_job_that_did_something_since_is_missed_whatever_its_age(bench: SteppedBench) -> None:
    _superseded(bench)
    old = bench.records.jobs()[1]
    _lose_job(bench)
    (found,) = bench.account(since=datetime.now(UTC) - timedelta(days=1)).discrepancies
    assert (found.code, found.job_id, found.study_instance_uid) == ("job-missing", str(old.id), old.study_instance_uid)
    assert bench.account(since=datetime.now(UTC)).agrees


def test_a_delivery_of_an_older_job_that_began_since_is_missed(bench: SteppedBench) -> None:
    _one_closed(bench)
    bench.change("UPDATE jobs SET created_at = created_at - interval '2 days'")
    since = datetime.now(UTC) - timedelta(days=1)
    assert bench.account(since=since).agrees
    bench.change("DELETE FROM deliveries WHERE destination = 'viewer'")
    assert [one.code for one in bench.account(since=since).discrepancies] == ["delivery-missing"]


def test_a_job_whose_making_was_rolled_back_is_not_missed(bench: SteppedBench) -> None:
    """Its lines are written before the commit; that of a series to be refused at once has its end too."""
    job = {"job_id": "1f0c0ad4-83ff-4f29-8f0c-0ad483ff4f29", "study_instance_uid": "1.2", "series_instance_uid": "1.3"}
    for event in (AuditEvent.JOB_CREATED, AuditEvent.JOB_REFUSED, AuditEvent.RESULTS_VERIFIED):
        bench.audit.append(event, Outcome.SUCCESS, **job)
    assert bench.account().agrees
    bench.audit.append(AuditEvent.JOB_REFUSED, Outcome.SUCCESS, attempt=1, **job)
    assert [one.code for one in bench.account().discrepancies] == ["job-missing"]


class _AtWork(tuple[Path, ...]):
    """The folders of audit logs, and a server that does something before they are read."""

    work: Callable[[], None]

    def __iter__(self) -> Iterator[Path]:
        self.work()
        return super().__iter__()


def test_what_happens_between_the_records_and_the_log_is_no_alarm(bench: SteppedBench) -> None:
    _closed(bench)

    def work() -> None:
        bench.receive_study(7)
        study = instance(1, study=7).study_instance_uid
        bench.audit.append(AuditEvent.INSTANCES_RECEIVED, study_instance_uid=study, instances=2)
        bench.create_jobs()
        bench.finish()

    folders = _AtWork([bench.settings.audit_folder])
    folders.work = work
    assert account(bench.records, bench.kept, bench.files, folders, EVER).agrees
    assert len(bench.records.jobs()) == 3


def test_a_rejection_note_on_its_way_is_no_alarm(tmp_path: Path, url: str) -> None:
    """It is added to a job that has ended."""
    with stepped_bench(tmp_path, url, graph=WritesDicom(), destination={"retry_first_seconds": 600}) as made:
        _one_closed(made)
        ask_to_withdraw(made.records, made.job().id, Order("quality", "somebody", datetime.now(UTC), "archive"))
        made.step()
        assert sorted(one.state for one in made.job().deliveries) == ["delivered", "delivered", "waiting"]
        assert made.account().discrepancies == ()


def test_what_came_before_is_left_out(bench: SteppedBench) -> None:
    _closed(bench)
    _remove_file(bench)
    bench.change("UPDATE instances SET received_at = received_at - interval '2 days'")
    since = datetime.now(UTC) - timedelta(days=1)
    found = bench.account(since=since)
    assert found.agrees
    assert found.totals["instances"] == {}
    assert found.totals["jobs"] == {"closed": 2}


def test_what_lives_is_counted_whatever_its_age(bench: SteppedBench) -> None:
    """Of jobs and of deliveries; what has ended counts by its age."""
    _one_closed(bench)
    bench.receive_study(2)
    bench.create_jobs()
    bench.step()
    bench.step()  # one of its two objects is delivered
    bench.receive_study(3)
    bench.create_jobs()
    bench.change("UPDATE jobs SET created_at = created_at - interval '2 days'")
    found = bench.account(since=datetime.now(UTC) - timedelta(days=1))
    assert found.agrees
    assert found.totals["jobs"] == {"delivering": 1, "queued": 1}
    assert found.totals["deliveries"] == {"waiting": 1}


def test_sums_of_all_states(bench: SteppedBench) -> None:
    _closed(bench)
    bench.receive_study(3)
    bench.without_job("no-rule")
    bench.receive_study(4, series=2)
    bench.kept.quarantine(b"refused", code="not-dicom")
    assert bench.account().totals == {
        "instances": {"routed": 4, "no-rule": 2, "receiving": 4},
        "files": {"kept": 10},
        "series": {"routed": 2, "no-rule": 1, "receiving": 2},
        "jobs": {"closed": 2},
        "deliveries": {"delivered": 4},
        "quarantine": {"not-dicom": 1},
    }


def test_a_file_whose_record_comes_a_moment_later_is_no_alarm(bench: SteppedBench) -> None:
    """As on a busy server: the file is there before its row."""
    kept = bench.kept.keep(b"instance")
    late = replace(instance(1), digest=kept.digest, size_bytes=kept.size_bytes)
    timer = threading.Timer(0.3, lambda: bench.records.record_instance(late))
    timer.start()
    assert bench.account(settle_seconds=1.0).agrees
    timer.join()


# --- no false alarm -------------------------------------------------------------------------------------------------

_ACTIONS = (
    *("receive", "late", "again", "corrected", "decide", "no-rule", "own-result", "withdraw"),
    *("step", "step", "step", "any"),
)
_GRAPHS = ("well", "well", "refuses", "fails", "inference", "disagrees")
_studies = itertools.count(1000)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    graph=st.sampled_from(_GRAPHS),
    down=st.booleans(),
    history=st.lists(st.tuples(st.sampled_from(_ACTIONS), st.integers(0, 5)), min_size=3, max_size=25),
)
def test_no_healthy_history_is_an_alarm(
    lived: SteppedBench, graph: str, down: bool, history: list[tuple[str, int]]
) -> None:
    """Real workflow, real records, any order; the account is taken after every step."""
    _behave(lived, graph, down)
    studies = [next(_studies)]
    for action, number in history:
        _act(lived, action, number, studies)
        found = lived.account()
        assert found.discrepancies == (), (action, found.discrepancies[0])
        assert sum(found.totals["instances"].values()) == sum(found.totals["files"].values())
    _behave(lived, "well", down=False)
    lived.finish()
    assert lived.account().discrepancies == ()


@pytest.fixture
def lived(tmp_path: Path, url: str) -> Iterator[SteppedBench]:
    """One bench for all histories: they go on beside what earlier ones left."""
    generalist = GeneralistSettings(model="sam")
    with stepped_bench(
        tmp_path,
        url,
        graph=WritesDicom(),
        generalist=generalist,
        on_disagreement="hold",
        rule={"no_result": "nothing"},
    ) as made:
        yield made


def _behave(bench: SteppedBench, graph: str, down: bool) -> None:
    """Let the graph and the first destination behave in a way."""

    def plan(run: int) -> None:
        if graph == "refuses":
            raise SeriesRefused("planted", code="planted")
        if graph == "fails":
            raise GraphFailed("planted", code="graph-crashed")
        if graph == "inference":
            raise InferenceFailed("planted", code="planted")

    assert isinstance(bench.graph, PlantedGraph)
    bench.graph.plan = plan
    bench.graph.agreement = DISAGREEING if graph == "disagrees" else AGREEING
    sign = bench.settings.data_folder / "archive.down"
    sign.touch() if down else sign.unlink(missing_ok=True)


def _act(bench: SteppedBench, action: str, number: int, studies: list[int]) -> None:
    match action:
        case "receive":
            studies.append(next(_studies))
            bench.receive_study(studies[-1], series=1 + number % 2)
        case "late":
            bench.receive(instance(10 + number, study=studies[-1]))
        case "again":
            bench.receive_study(studies[-1])
        case "corrected":
            bench.receive_study(studies[-1], content=str(number))
        case "decide":
            bench.create_jobs()
        case "no-rule" | "own-result":
            bench.without_job(action)
        case "withdraw":
            order = Order("quality", "somebody", datetime.now(UTC))
            for job in bench.records.jobs(1):
                with contextlib.suppress(JobError):  # nothing to withdraw, or done before
                    ask_to_withdraw(bench.records, job.id, order)
        case "step":
            bench.step()
        case _:
            held = [one for one in bench.records.jobs() if one.state == "held"]
            if held:
                ask_for_decision(bench.records, (RELEASE, DISCARD)[number % 2], held[0].id, "somebody")
            else:
                bench.step(lambda count: number % count)
