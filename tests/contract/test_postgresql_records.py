"""The records on a real PostgreSQL: what is recorded once, what starts a series anew, what an outage answers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from app.audit.events import AuditEvent
from app.errors import OutOfResources, ServingError
from app.jobs import migrations
from app.jobs.arrival_entries import Transfer
from app.jobs.migrations import migrate
from app.jobs.records import Records
from app.listener.adoption import adopt_unrecorded
from app.listener.spool import Spool
from tests.database_fixture import fresh_database
from tests.job_harness import instance
from tests.listening import RecordedAudit, make_ct


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


@pytest.fixture
def records(url: str) -> Iterator[Records]:
    with Records(url) as opened:
        yield opened


def test_migrations_apply_once_even_when_programs_start_together(url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, [url] * 4))
    migrate(url)
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT name FROM migrations WHERE name NOT LIKE 'procrastinate/%'").fetchall()
        assert [name for (name,) in found] == sorted(path.name for path in migrations.FOLDER.glob("[0-9]*.sql"))
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


def test_a_migration_that_reads_differently_is_refused(url: str) -> None:
    migrate(url)
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE migrations SET digest = 'other' WHERE name = '001_records.sql'")
    with pytest.raises(ServingError, match="another text"):
        migrate(url)


def test_an_instance_is_recorded_once(records: Records) -> None:
    first = instance(1)
    records.record_instance(first)
    (before,) = records.series()
    records.record_instance(first)
    (after,) = records.series()
    assert before == after
    assert (after.state, after.revision, after.calling_ae_title) == ("receiving", 1, "MODALITY")


def test_the_backlog_counts_series_and_jobs_that_wait(records: Records, url: str) -> None:
    assert records.backlog() == 0
    records.record_instance(instance(1))
    assert records.backlog() == 1
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE series SET state = 'no-rule'")
    assert records.backlog() == 0


def test_other_content_of_an_instance_counts_from_then_on(records: Records) -> None:
    corrected = instance(1, content="corrected")
    assert not records.record_instance(instance(1))
    for _ in range(2):  # as long as it is not told, also where telling fails
        assert records.record_instance(corrected)
    assert not records.record_instance(corrected, is_told=True)
    for one in (corrected, instance(1)):
        assert not records.record_instance(one)
    (series,) = records.undecided_series()
    with records.transaction() as connection:
        inputs = records.series_inputs(connection, series)
    assert inputs == [(instance(1).sop_instance_uid, instance(1, content="corrected").digest, "")]


def test_content_after_the_decision_makes_a_new_revision(records: Records) -> None:
    records.record_instance(instance(1))
    (series,) = records.undecided_series()
    assert records.conclude_series(series, "no-rule")
    assert records.undecided_series() == []
    records.record_instance(instance(1))  # known: nothing new
    assert records.undecided_series() == []
    records.record_instance(instance(2))
    (again,) = records.undecided_series()
    assert (again.state, again.revision) == ("receiving", 2)


def test_a_decision_about_what_has_changed_meanwhile_is_not_recorded(records: Records) -> None:
    records.record_instance(instance(1))
    (series,) = records.undecided_series()
    records.record_instance(instance(2))
    assert not records.conclude_series(series, "no-rule")
    with records.transaction() as connection:
        assert not records.lock_series(connection, series)


def test_a_clock_that_was_set_back_does_not_hold_a_series(records: Records) -> None:
    records.record_instance(instance(1))
    with records.transaction() as connection:
        connection.execute("UPDATE series SET last_received_at = clock_timestamp() + interval '1 hour'")
    (series,) = records.undecided_series()
    assert 0 <= series.quiet_seconds < 10


def test_the_time_that_the_server_was_down_is_not_quiet_time(records: Records) -> None:
    records.record_instance(instance(1))
    with records.transaction() as connection:
        connection.execute("UPDATE series SET last_received_at = clock_timestamp() - interval '1 hour'")
    records.restart_quiet_times()
    (series,) = records.undecided_series()
    assert 0 <= series.quiet_seconds < 10


def test_many_associations_record_one_series_at_once(records: Records) -> None:
    instances = [instance(number) for number in range(60)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(records.record_instance, instances * 2))
    (series,) = records.undecided_series()
    with records.transaction() as connection:
        inputs = records.series_inputs(connection, series)
    assert len(inputs) == 60


def test_files_without_a_record_are_adopted(records: Records) -> None:
    known, unknown = instance(1), instance(2)
    records.record_instance(known)
    assert records.unknown_digests([known.digest, unknown.digest]) == {unknown.digest}
    records.adopt([unknown])
    assert records.unknown_digests([known.digest, unknown.digest]) == set()


def test_what_is_adopted_after_a_crash_keeps_the_source_of_its_series(records: Records) -> None:
    """Else its quiet time would be the default's: the series could be decided before the source has sent the rest."""
    records.record_instance(instance(1))
    records.adopt([replace(instance(2), calling_ae_title="", source_host="")])
    assert [one.calling_ae_title for one in records.undecided_series()] == ["MODALITY"]


def test_a_repeat_says_who_sent_what_was_adopted_and_changes_nothing_else(records: Records, url: str) -> None:
    records.adopt([replace(instance(1), calling_ae_title="", source_host="")])
    (before,) = records.series()
    assert before.calling_ae_title == ""
    for one in (instance(1), replace(instance(1), calling_ae_title="VIEWER", source_host="elsewhere")):
        records.record_instance(one)  # the second is known, with its source
        assert records.series() == [replace(before, calling_ae_title="MODALITY")]
        with psycopg.connect(url) as connection:
            found = connection.execute("SELECT calling_ae_title, source_host FROM instances").fetchall()
        assert found == [("MODALITY", "127.0.0.1")]


def test_a_repeat_says_who_sent_a_series_that_is_decided_and_does_not_open_it(records: Records) -> None:
    records.adopt([replace(instance(1), calling_ae_title="", source_host="")])
    (series,) = records.undecided_series()
    assert records.conclude_series(series, "no-rule")
    records.record_instance(instance(1))
    (after,) = records.series()
    assert (after.state, after.revision, after.calling_ae_title) == ("no-rule", 1, "MODALITY")


def test_content_that_is_to_be_told_first_says_nothing_of_the_source_yet(records: Records) -> None:
    records.adopt([replace(instance(1), calling_ae_title="", source_host="")])
    corrected = instance(1, content="corrected")
    assert records.record_instance(corrected)
    assert [one.calling_ae_title for one in records.series()] == [""]
    assert not records.record_instance(corrected, is_told=True)
    assert [one.calling_ae_title for one in records.series()] == ["MODALITY"]


def test_adopted_content_that_changed_is_told_to_the_audit_log_once(records: Records, tmp_path: Path) -> None:
    spool, audit, image = Spool(tmp_path, 0), RecordedAudit(), make_ct(1)
    spool.prepare()
    for expected, adopted in (([], 1), ([image.SOPInstanceUID], 1), ([image.SOPInstanceUID], 0)):
        image.save_as(tmp_path / "image.dcm", enforce_file_format=True)
        spool.keep((tmp_path / "image.dcm").read_bytes())
        assert adopt_unrecorded(spool, records, audit) == adopted  # type: ignore[arg-type]
        assert [one["sop_instance_uid"] for one in audit.of(AuditEvent.INSTANCE_CHANGED)] == expected
        image.PatientName = "Roe^Jane"


def test_the_study_counts_as_quiet_only_when_all_its_series_are(records: Records) -> None:
    records.record_instance(instance(1, series=1))
    with records.transaction() as connection:
        connection.execute("UPDATE series SET last_received_at = clock_timestamp() - interval '1 hour'")
    records.record_instance(instance(1, series=2))
    first, second = records.undecided_series()
    assert first.quiet_seconds > 3000
    assert first.study_quiet_seconds < 100
    assert second.study_quiet_seconds < 100


def test_an_unreachable_database_asks_the_sender_to_try_again(url: str) -> None:
    records = Records(url, timeout_seconds=0.5)
    with records:
        records.close()
        with pytest.raises(OutOfResources) as refused:
            records.record_instance(instance(1))
    assert refused.value.dimse_status == 0xA700


def test_a_database_that_only_reads_asks_the_sender_to_try_again(records: Records, postgres: str) -> None:
    """As a standby does, or one that was set so because it is full."""
    name = psycopg.conninfo.conninfo_to_dict(records.url)["dbname"]
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
    transfer = Transfer(uuid.uuid4(), "1.2.3", "1.2.3.1", "MODALITY", "here 104")
    with pytest.raises(OutOfResources, match="ReadOnlySqlTransaction") as refused:
        records.record_instance(instance(1))
    assert refused.value.dimse_status == 0xA700
    with pytest.raises(OutOfResources, match="ReadOnlySqlTransaction"):
        records.begin_transfer(transfer)
    assert records.backlog() == 0


@pytest.mark.parametrize("table", ["instances", "series", "transfers", "jobs"])
def test_a_database_that_is_locked_asks_the_sender_to_try_again(url: str, table: str) -> None:
    """By whoever mends it by hand, or by a long VACUUM FULL: a sender is answered before it takes us for dead."""
    transfer = Transfer(uuid.uuid4(), "1.2.3", "1.2.3.1", "MODALITY", "here 104")
    with Records(url, timeout_seconds=0.5) as impatient:
        impatient.record_instance(instance(1))
        asked: dict[str, Callable[[], object]] = {
            "instances": lambda: impatient.record_instance(instance(2)),
            "series": lambda: impatient.record_instance(instance(2)),
            "transfers": lambda: impatient.begin_transfer(transfer),
            "jobs": impatient.backlog,
        }
        with psycopg.connect(url) as other:
            other.execute(f"LOCK TABLE {table}")
            with pytest.raises(OutOfResources, match="QueryCanceled") as refused:
                asked[table]()
            other.rollback()
        assert refused.value.dimse_status == 0xA700
        asked[table]()


def test_a_lost_connection_is_replaced(records: Records, postgres: str) -> None:
    records.record_instance(instance(1))
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            (psycopg.conninfo.conninfo_to_dict(records.url)["dbname"],),
        )
    records.record_instance(instance(2))
    assert len(records.series()) == 1


def test_an_unknown_job_is_none(records: Records) -> None:
    assert records.jobs() == []
    assert records.job(uuid.uuid4()) is None


def test_an_instance_is_recorded_though_the_database_has_ended_its_connections(records: Records, url: str) -> None:
    """A database that was started again: the connections of before are dead, and nobody has noticed yet."""
    records.record_instance(instance(1))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    records.record_instance(instance(2))
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM instances").fetchone() == (2,)


def test_a_recorded_instance_is_committed(records: Records, url: str) -> None:
    records.record_instance(instance(1))
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT xact_start FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'")
        assert found.fetchall() == []
        assert connection.execute("SELECT count(*) FROM instances").fetchone() == (1,)
