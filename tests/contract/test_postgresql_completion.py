"""Completion on a real PostgreSQL: quiet series and studies are decided, once a revision."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from app.identifiers import UID
from app.routing.completion import CompletionScanner
from app.routing.rules import RuleSet
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
    made: Bench, number: int, *, series: int = 1, modality: str = "CT", manufacturer: str = "", uid: str = ""
) -> None:
    one = instance(number, series=series)
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


def test_a_late_instance_makes_a_second_job_of_the_whole(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        scanner = _scanner(made)
        receive(made, 1)
        _scan_until(scanner, 1)
        receive(made, 2)
        _scan_until(scanner, 1)
        assert [job.instances for job in made.records.jobs()] == [2, 1]


def test_it_runs_until_it_is_stopped(tmp_path: Path, url: str) -> None:
    async def run_until_decided(made: Bench) -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(_scanner(made).run(stop))
        while states(made) != ["routed"]:
            await asyncio.sleep(0.02)
        stop.set()
        await asyncio.wait_for(running, 10)

    with bench(tmp_path, url) as made:
        receive(made, 1)
        asyncio.run(asyncio.wait_for(run_until_decided(made), 30))
