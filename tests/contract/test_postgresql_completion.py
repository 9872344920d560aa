"""Completion on a real PostgreSQL: quiet series and studies are decided, once a revision."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from app.errors import AuditError
from app.identifiers import UID
from app.jobs.entries import SeenSeries
from app.routing.completion import CompletionScanner
from app.routing.rules import RuleSet
from app.routing.waiting import explain_waiting
from app.settings_listener import ListenerSettings, SourceSettings
from app.settings_pipeline import RuleSettings
from tests.database_fixture import fresh_database
from tests.job_harness import DESTINATIONS, Bench, bench, instance


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


def _scanner(made: Bench, *rules: RuleSettings, **changed: Any) -> CompletionScanner:
    return CompletionScanner(
        settings=made.settings.model_copy(update=changed),
        records=made.records,
        audit=made.audit,
        rules=RuleSet(rules or made.settings.rule),
        spool_path_of=lambda digest: made.spool / f"{digest}.dcm",
        create_job=made.workflow.create_job,
        create_study_job=made.workflow.create_study_job,
    )


def rule(**changed: Any) -> RuleSettings:
    return RuleSettings.model_validate({"name": "every", "pipeline": "liver", "destinations": DESTINATIONS, **changed})


def receive(
    made: Bench,
    number: int,
    *,
    series: int = 1,
    modality: str = "CT",
    manufacturer: str = "",
    uid: str = "",
    digest: str = "",
) -> None:
    one = instance(number, series=series)
    one = replace(one, digest=digest) if digest else one
    one = replace(one, sop_instance_uid=UID(uid)) if uid else one
    made.receive(one)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = one.sop_class_uid
    dataset.SOPInstanceUID = one.sop_instance_uid
    dataset.Modality = modality
    dataset.Manufacturer = manufacturer
    dataset.save_as(made.spool / f"{one.digest}.dcm", enforce_file_format=True)


def states(made: Bench) -> list[str]:
    return [one.state for one in made.records.series()]


def _scan_until(scanner: CompletionScanner, decided: int) -> None:
    deadline = time.monotonic() + 20
    while decided and time.monotonic() < deadline:
        decided -= scanner.scan()
        time.sleep(0.02)
    assert decided == 0


def _quiet(made: Bench) -> None:
    """Wait until nothing came for the quiet time."""
    deadline = time.monotonic() + 20
    quiet = made.settings.routing.series_quiet_seconds
    while any(one.quiet_seconds < quiet for one in made.records.undecided_series()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def _run_until(made: Bench, decided: list[str]) -> None:
    """Run a scanner as the server does until the series are in these states."""
    stop = asyncio.Event()
    running = asyncio.create_task(_scanner(made).run(stop))
    while states(made) != decided and not running.done():
        await asyncio.sleep(0.02)
    stop.set()
    await asyncio.wait_for(running, 10)


def audited(made: Bench, event_type: str) -> list[dict[str, Any]]:
    lines = [line for path in made.settings.audit_folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines if f'"{event_type}"' in line]


def test_a_series_is_decided_when_it_is_quiet(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1)
        scanner = _scanner(made)
        assert scanner.scan() == 0  # it may still come
        _scan_until(scanner, 1)
        assert states(made) == ["routed"]
        assert made.job().rule == "every"
        assert len(audited(made, "job-created")) == 1
        assert made.queued_tasks() == [("segment", "todo")]
        assert scanner.scan() == 0  # once


def test_the_quiet_time_of_its_source_counts(tmp_path: Path, url: str) -> None:
    patient = ListenerSettings(source=(SourceSettings(ae_title="MODALITY", quiet_seconds=3600),))
    with bench(tmp_path, url) as made:
        receive(made, 1)
        time.sleep(0.3)
        assert _scanner(made, listener=patient).scan() == 0
        assert _scanner(made).scan() == 1


def test_no_rule_is_a_recorded_outcome(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1, modality="MR")
        _scan_until(_scanner(made, rule(match={"Modality": "CT"})), 1)
        assert states(made) == ["no-rule"]
        assert made.records.jobs() == []
        assert len(audited(made, "no-rule-applies")) == 1


@pytest.mark.parametrize(("first", "corrected"), [("0", "f"), ("f", "0")])
def test_a_rule_sees_what_an_instance_was_corrected_to(tmp_path: Path, url: str, first: str, corrected: str) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1, modality="MR", digest=first * 64)
        receive(made, 1, modality="CT", digest=corrected * 64)
        (seen,) = made.records.undecided_series()
        assert made.records.series_of_study(seen.study_instance_uid)[0].header_digest == seen.header_digest
        assert [one.digest for one in made.records.latest_inputs(seen)] == [seen.header_digest] == [corrected * 64]
        _scan_until(_scanner(made, rule(match={"Modality": "CT"})), 1)
        assert states(made) == ["routed"]


@pytest.mark.parametrize("late", ["0", "f"])
def test_what_comes_late_does_not_say_which_rule_takes_the_series(tmp_path: Path, url: str, late: str) -> None:
    """Whatever its digest: a header that differs in one slice of many must not decide by chance."""
    with bench(tmp_path, url) as made:
        receive(made, 1, modality="CT", digest="7" * 64)
        receive(made, 2, modality="OT", digest=late * 64)
        (seen,) = made.records.undecided_series()
        assert made.records.series_of_study(seen.study_instance_uid)[0].header_digest == seen.header_digest == "7" * 64
        _scan_until(_scanner(made, rule(match={"Modality": "CT"})), 1)
        assert states(made) == ["routed"]


def test_what_came_first_stays_the_first_when_it_is_corrected(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1, modality="OT", digest="7" * 64)
        receive(made, 2, modality="OT", digest="0" * 64)
        receive(made, 1, modality="CT", digest="f" * 64)
        (seen,) = made.records.undecided_series()
        assert made.records.series_of_study(seen.study_instance_uid)[0].header_digest == seen.header_digest == "f" * 64


def test_of_what_retention_removed_nothing_is_read_while_there_is_more(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made, psycopg.connect(url, autocommit=True) as connection:
        receive(made, 1, digest="1" * 64)
        receive(made, 1, digest="0" * 64)
        receive(made, 2, digest="2" * 64)
        connection.execute("UPDATE instances SET pruned_at = clock_timestamp() WHERE digest = %s", ("0" * 64,))
        (seen,) = made.records.undecided_series()
        assert seen.header_digest == "1" * 64  # the latest that is left of the instance
        connection.execute("UPDATE instances SET pruned_at = clock_timestamp()")
        (seen,) = made.records.undecided_series()
        assert seen.header_digest == "0" * 64


def test_a_series_that_cannot_be_read_is_a_recorded_outcome(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        made.receive(instance(1))  # what lies in the spool is no DICOM
        made.receive(instance(1, series=2))
        (made.spool / f"{instance(1, series=2).digest}.dcm").unlink()  # and here nothing
        _scan_until(_scanner(made), 2)
        assert states(made) == ["unreadable", "unreadable"]
        assert [one.reason for one in made.records.series()] != [None, None]
        assert made.records.jobs() == []


def test_a_result_that_comes_back_starts_no_job(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1)
        _scan_until(_scanner(made), 1)
        made.work(made.all_ended)
        receive(made, 2, series=2, modality="SEG", uid=made.job().results[0].sop_instance_uid)
        receive(made, 3, series=3, modality="SR", manufacturer="Limner")  # of another server, or of lost records
        _scan_until(_scanner(made), 2)
        assert sorted(states(made)) == ["own-result", "own-result", "routed"]
        assert len(made.records.jobs()) == 1
        assert len(audited(made, "own-result-returned")) == 2


def test_a_manufacturer_that_is_no_text_is_nobody_and_ends_nothing(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1, series=1, manufacturer="ACME")
        receive(made, 2, series=2)
        path = made.spool / f"{instance(1, series=1).digest}.dcm"
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"\x08\x00\x70\x00LO", b"\x08\x00\x70\x00FD"))  # a number of 4 bytes: none is
        assert path.read_bytes() != whole
        asyncio.run(asyncio.wait_for(_run_until(made, ["routed", "routed"]), 30))


def test_an_error_of_ours_keeps_only_its_own_series_waiting(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench(tmp_path, url) as made, structlog.testing.capture_logs() as logs:
        receive(made, 1, series=1)
        receive(made, 2, series=2)
        (first, _) = made.records.undecided_series()
        original, calls = made.workflow.create_job, []

        def stumble(series: SeenSeries, rule: RuleSettings) -> bool:
            if series.series_instance_uid != first.series_instance_uid:
                return original(series, rule)
            calls.append(series)
            raise ZeroDivisionError("CanaryPatient")

        with monkeypatch.context() as patched:
            patched.setattr(made.workflow, "create_job", stumble)
            scanner = _scanner(made)
        _scan_until(scanner, 1)
        assert [scanner.scan() for _ in range(3)] == [0, 0, 0]
        assert len(calls) == 1  # the next time is a minute away
        (left,) = made.records.undecided_series()
        (verdict,) = explain_waiting([left], made.settings).values()
        (line,) = [one for one in logs if one["event"] == "completion.defect"]
        assert (line["code"], line["digest"]) == ("decision-failed", first.header_digest)
        assert "decision-failed" in verdict.waits_for
        assert line["log_id"] in verdict.waits_for
        assert "CanaryPatient" not in str(verdict) + str({**line, "exc_info": None})
        receive(made, 3, series=1)  # what comes has it decided anew at once
        _quiet(made)
        assert scanner.scan() == 0
        assert len(calls) == 2
        _scan_until(_scanner(made), 1)  # as by a version that mends it
        assert states(made) == ["routed", "routed"]


def test_while_the_audit_log_can_not_be_written_every_complete_series_says_so(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1, series=1)
        receive(made, 2, series=2)
        _quiet(made)
        made.receive(instance(3, series=3))

        def fail(*_: object, **__: object) -> None:
            raise AuditError("the audit log can't be written: no room", code="audit-write")

        scanner = _scanner(made, routing=made.settings.routing.model_copy(update={"series_quiet_seconds": 0.2}))
        with monkeypatch.context() as patched:
            patched.setattr(made.audit, "append", fail)
            with pytest.raises(AuditError):
                scanner.scan()
        said = [one.waits_for for one in made.records.waiting_series()]
        assert said == ["it can't be decided: the audit log can't be written: no room"] * 2 + [None]
        _scan_until(scanner, 3)
        assert states(made) == ["routed", "routed", "unreadable"]


def test_a_rule_may_take_results_on_purpose(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1, modality="SEG", manufacturer="Limner")
        _scan_until(_scanner(made, rule(own_results=True)), 1)
        assert states(made) == ["routed"]


def test_a_rule_may_wait_for_the_whole_study(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        scanner = _scanner(made, rule(after="study"))
        receive(made, 1, series=1)
        _scan_until(scanner, 1)
        assert states(made) == ["waiting-for-study"]
        receive(made, 1, series=2)
        assert scanner.scan() == 0
        assert made.records.jobs() == []
        _scan_until(scanner, 3)  # the second series begins to wait, then both go on
        assert states(made) == ["routed", "routed"]
        assert len(made.records.jobs()) == 2


def test_a_clock_that_was_set_back_keeps_no_study_waiting(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made, psycopg.connect(url, autocommit=True) as connection:
        receive(made, 1, series=1)
        receive(made, 1, series=2)
        (decided, other) = made.records.undecided_series()
        connection.execute(  # before the clock was set back by an hour
            "UPDATE series SET state = 'no-rule', decided_at = clock_timestamp() + interval '1 hour', "
            "last_received_at = clock_timestamp() + interval '1 hour' WHERE series_instance_uid = %s",
            (decided.series_instance_uid,),
        )
        assert made.records.conclude_series(other, "waiting-for-study", rule="every")
        _scan_until(_scanner(made, rule(after="study")), 1)
        seen = {one.series_instance_uid: one for one in made.records.series_of_study(decided.study_instance_uid)}
        assert seen[other.series_instance_uid].state == "routed"
        assert seen[decided.series_instance_uid].study_quiet_seconds > 0


def test_a_clock_that_was_set_ahead_ends_no_quiet_time(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made, psycopg.connect(url, autocommit=True) as connection:
        read, _ = made.records.follow_clock(None)
        receive(made, 1, series=1)
        connection.execute(
            "UPDATE series SET last_received_at = last_received_at - interval '1 hour'"
        )  # set ahead since
        receive(made, 1, series=2)
        hour_ago = read._replace(database=read.database - timedelta(hours=1))
        assert not made.records.follow_clock(read)[1]
        assert sorted(one.quiet_seconds > 3000 for one in made.records.undecided_series()) == [False, True]
        assert made.records.follow_clock(hour_ago)[1]
        assert all(-1 < one.quiet_seconds < 60 for one in made.records.undecided_series())


def test_a_late_instance_makes_a_second_job_of_the_whole(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        scanner = _scanner(made)
        receive(made, 1)
        _scan_until(scanner, 1)
        receive(made, 2)
        _scan_until(scanner, 1)
        assert [job.instances for job in made.records.jobs()] == [2, 1]


def test_it_runs_until_it_is_stopped(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1)
        asyncio.run(asyncio.wait_for(_run_until(made, ["routed"]), 30))
