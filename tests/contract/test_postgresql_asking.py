"""An archive's word on a real PostgreSQL: one that has more is waited for, one that says nothing holds nobody up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import DeliveryError
from app.routing.asking import ArchiveQuestions
from app.routing.completion import CompletionScanner
from app.routing.rules import RuleSet
from app.settings_pipeline import RuleSettings
from app.settings_routing import RoutingSettings
from tests.contract.test_postgresql_completion import audited, receive, rule, states
from tests.database_fixture import fresh_database
from tests.job_harness import Bench, bench, instance

STUDY = instance(1).study_instance_uid
FIRST, SECOND = (instance(1, series=number).series_instance_uid for number in (1, 2))


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


class PlantedArchive:
    """Has what it is told to have; down while it has an error."""

    def __init__(self, **series: int) -> None:
        self.series = {FIRST: series.get("first", 0), SECOND: series.get("second", 0)}
        self.error: Exception | None = None
        self.seconds = 0.0
        self.asked = 0

    def count_series_instances(self, study_instance_uid: str, series_instance_uid: str = "") -> dict[str, int]:
        self.asked += 1
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return {uid: count for uid, count in self.series.items() if count and study_instance_uid == STUDY}


def scanner(made: Bench, archive: PlantedArchive, *rules: RuleSettings, **routing: Any) -> CompletionScanner:
    known: dict[str, Any] = {
        "series_quiet_seconds": 0.2, "study_quiet_seconds": 0.4, "incomplete_seconds": 60, "ask": "pacs",
        "ask_seconds": 5, "ask_again_seconds": 0.1, **routing,
    }  # fmt: skip
    return CompletionScanner(
        settings=made.settings.model_copy(update={"routing": RoutingSettings(**known)}),
        records=made.records,
        audit=made.audit,
        rules=RuleSet(rules or made.settings.rule),
        spool_path_of=lambda digest: made.spool / f"{digest}.dcm",
        create_job=made.workflow.create_job,
        create_study_job=made.workflow.create_study_job,
        questions=ArchiveQuestions({"pacs": archive}, made.records, made.audit),
    )


def scan_until(looking: CompletionScanner, holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        looking.scan()
        time.sleep(0.02)


def scan_for(looking: CompletionScanner, seconds: float) -> int:
    ends = time.monotonic() + seconds
    decided = 0
    while time.monotonic() < ends:
        decided += looking.scan()
        time.sleep(0.02)
    return decided


def test_a_series_of_which_the_archive_has_more_is_waited_for(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        archive = PlantedArchive(first=3)
        looking = scanner(made, archive)
        receive(made, 1)
        receive(made, 2)
        assert scan_for(looking, 1.0) == 0
        [waiting] = made.records.undecided_series()
        assert (waiting.instances, waiting.expected, waiting.asked_archive) == (2, 3, "pacs")
        assert waiting.shortfall == "2 of 3 instances came"
        assert 2 <= archive.asked <= 6  # it is asked again, later and later
        receive(made, 3)
        scan_until(looking, lambda: states(made) == ["routed"])
        assert made.job().instances == 3
        assert made.records.notes(made.job().id) == []
        assert len(audited(made, "archive-asked")) == archive.asked


def test_an_archive_that_loses_instances_is_believed(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        archive = PlantedArchive(first=3)
        looking = scanner(made, archive)
        receive(made, 1)
        assert scan_for(looking, 0.5) == 0
        archive.series[FIRST] = 1
        scan_until(looking, lambda: states(made) == ["routed"])


def test_what_was_waited_for_long_enough_is_decided_with_a_note(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        looking = scanner(made, PlantedArchive(first=20), incomplete_seconds=0.8)
        for number in range(17):
            receive(made, number)
        scan_until(looking, lambda: states(made) == ["routed"])
        made.work(made.all_ended)
        [note] = made.records.notes(made.job().id)
        assert (note.code, note.policy) == ("incomplete", "warn")
        assert note.message.startswith("17 of 20 instances came, and the archive pacs has more")


def test_or_it_ends_as_incomplete_until_the_rest_comes(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        looking = scanner(made, PlantedArchive(first=2), incomplete_seconds=0.8, incomplete="refuse")
        receive(made, 1)
        scan_until(looking, lambda: states(made) == ["incomplete"])
        [ended] = made.records.series()
        assert ended.reason is not None
        assert ended.reason.startswith("1 of 2 instances came")
        assert made.records.jobs() == []
        assert len(audited(made, "series-incomplete")) == 1
        receive(made, 2)
        scan_until(looking, lambda: states(made) == ["routed"])
        assert made.job().instances == 2


@pytest.mark.parametrize("error", [None, DeliveryError("it is down", code="unreachable")], ids=["unknown", "down"])
def test_an_archive_that_knows_nothing_or_is_down_holds_nothing_up(
    tmp_path: Path, url: str, error: Exception | None
) -> None:
    with bench(tmp_path, url) as made:
        archive = PlantedArchive()
        archive.error = error
        looking = scanner(made, archive)
        receive(made, 1)
        scan_until(looking, lambda: states(made) == ["routed"], seconds=3)
        assert archive.asked == 1
        [asked] = made.records.series_of_study(STUDY)
        assert asked.asked_code == ("" if error is None else "unreachable")
        receive(made, 1, series=2)
        scan_until(looking, lambda: states(made) == ["routed", "routed"], seconds=3)
        assert archive.asked == (2 if error is None else 1)  # one that is down is left alone for a while


def test_an_archive_that_does_not_answer_is_waited_for_so_long_and_the_scan_never(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        archive = PlantedArchive(first=9)
        archive.seconds = 3.0
        looking = scanner(made, archive, ask_seconds=1)
        receive(made, 1)
        began = time.monotonic()
        while states(made) != ["routed"]:
            looked = time.monotonic()
            looking.scan()
            assert time.monotonic() - looked < 0.9
            time.sleep(0.02)
        assert 1.0 < time.monotonic() - began < 2.9


def test_a_study_rule_may_wait_for_series_that_have_not_come(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        archive = PlantedArchive(first=1, second=1)
        looking = scanner(made, archive, rule(after="study"), ask_whole_study=True)
        receive(made, 1)
        assert scan_for(looking, 1.5) == 1  # it begins to wait for its study
        assert states(made) == ["waiting-for-study"]
        [waiting] = made.records.undecided_series()
        assert waiting.series_missing == 1
        receive(made, 1, series=2)
        scan_until(looking, lambda: states(made) == ["routed", "routed"])


@pytest.mark.parametrize("incomplete", ["decide", "refuse"])
def test_what_did_not_come_of_a_study_is_noted(tmp_path: Path, url: str, incomplete: str) -> None:
    """No series is refused for what others lack: a model that needs them has channels, and names them."""
    waits = {"ask_whole_study": True, "incomplete_seconds": 1.5, "incomplete": incomplete}
    with bench(tmp_path, url, routing=waits) as made:
        archive = PlantedArchive(first=1, second=1)
        looking = scanner(made, archive, rule(after="study"), **waits)
        receive(made, 1)
        scan_until(looking, lambda: states(made) == ["routed"])
        [note] = made.records.notes(made.job().id)
        assert (note.code, note.message) == (
            "incomplete",
            "1 series of the study have not come, and the archive pacs has more",
        )


def test_own_results_are_no_series_that_have_to_come(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        archive = PlantedArchive(first=1)
        looking = scanner(made, archive, rule(after="study"), ask_whole_study=True)
        receive(made, 1)
        scan_until(looking, lambda: states(made) == ["routed"])
        made.work(made.all_ended)
        archive.series[FIRST] = 2
        archive.series[made.job().results[0].series_instance_uid] = 1  # the archive got the result
        receive(made, 2)
        scan_until(looking, lambda: states(made) == ["routed"])
        assert len(made.records.jobs()) == 2


def test_answers_to_older_questions_are_dropped(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1)
        older = made.records.begin_question(STUDY, "pacs")
        newer = made.records.begin_question(STUDY, "pacs")
        made.records.answer_question(STUDY, older, {FIRST: 1})
        [seen] = made.records.undecided_series()
        assert (seen.expected, seen.asked_code, seen.asks, seen.answered_seconds) == (None, "asking", 2, None)
        made.records.answer_question(STUDY, newer, {FIRST: 2})
        [seen] = made.records.undecided_series()
        assert (seen.expected, seen.asked_code, seen.shortfall) == (2, "", "1 of 2 instances came")
        made.records.fail_question(STUDY, made.records.begin_question(STUDY, "pacs"), "no-answer")
        [seen] = made.records.undecided_series()
        assert (seen.expected, seen.asked_code, seen.asks) == (2, "no-answer", 3)
        receive(made, 2)
        made.records.begin_question(STUDY, "pacs")
        [seen] = made.records.undecided_series()
        assert seen.asks == 1  # since the last content
