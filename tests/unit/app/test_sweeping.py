from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from app.errors import DeliveryRefused
from app.jobs.records import Records
from app.routing.rules import RuleSet
from app.settings import ArchiveSettings, Settings
from app.settings_pipeline import RuleSettings
from app.sweeping import may_be_taken, never_seen, not_held, sweep

_MAY = datetime(2026, 5, 1, tzinfo=UTC)


def _rules(*matches: dict[str, Any]) -> RuleSet:
    return RuleSet(
        [
            RuleSettings(name=f"rule-{number}", pipeline="p", destinations=(), match=match)
            for number, match in enumerate(matches)
        ]
    )


class _Archive:
    """Holds series as (study, series, attributes); tells an attribute only if it has it."""

    def __init__(self, *series: tuple[str, str, dict[str, str]]) -> None:
        self.series = series
        self.questions: list[tuple[str, Mapping[str, Any]]] = []

    def find(self, level: str, keys: Mapping[str, Any], wanted: Sequence[str] = ()) -> tuple[Mapping[str, str], ...]:
        self.questions.append((level, keys))
        if level == "STUDY":
            studies = dict.fromkeys(study for study, _, _ in self.series)
            return tuple({"StudyInstanceUID": one, **dict.fromkeys(wanted[1:], "")} for one in studies)
        return tuple(
            {"SeriesInstanceUID": series, **{name: told.get(name, "") for name in wanted[1:]}}
            for study, series, told in self.series
            if study == keys["StudyInstanceUID"]
        )


class _Destination:
    def __init__(self, *held: str, can_be_asked: bool = True, refuses: bool = False) -> None:
        self.held, self.can_be_asked, self.refuses = held, can_be_asked, refuses

    def holds(self, study: str, series: str, sop: str) -> bool:
        if self.refuses:
            raise DeliveryRefused("it takes no questions", code="context-refused")
        return (study, series) == ("1", "1.9") and sop in self.held


class _Seen:
    def __init__(self, **series: set[str]) -> None:
        self.series = series

    def delivered(self, since: datetime) -> list[Mapping[str, Any]]:
        return []

    def seen_series(self, study: str) -> set[str]:
        return self.series.get(f"study_{study}", set())


def _named(archive: _Archive, rules: RuleSet, **seen: set[str]) -> list[tuple[str, str, str]]:
    records = cast(Records, _Seen(**seen))
    found = never_seen(archive, rules, records, _MAY)
    return [(one.code, one.study_instance_uid, one.series_instance_uid) for one in found]


def test_a_study_of_which_nothing_came_is_named_once() -> None:
    archive = _Archive(
        ("1", "1.1", {"Modality": "CT"}), ("1", "1.2", {"Modality": "CT"}), ("2", "2.1", {"Modality": "MR"})
    )
    assert _named(archive, _rules({"Modality": "CT"})) == [("study-never-seen", "1", "")]
    assert archive.questions[0] == ("STUDY", {"StudyDate": "20260501-"})


def test_a_series_that_did_not_come_with_its_study_is_named() -> None:
    archive = _Archive(
        ("1", "1.1", {"Modality": "CT"}), ("1", "1.2", {"Modality": "CT"}), ("1", "1.3", {"Modality": "SR"})
    )
    named = _named(archive, _rules({"Modality": "CT"}), study_1={"1.1"})
    assert named == [("series-never-seen", "1", "1.2")]


def test_what_came_or_was_made_here_is_not_named() -> None:
    archive = _Archive(("1", "1.1", {"Modality": "CT"}), ("1", "1.2", {"Modality": "SEG"}))
    assert _named(archive, _rules({}), study_1={"1.1", "1.2"}) == []


@pytest.mark.parametrize(
    ("told", "taken"),
    [
        ({"Modality": "CT", "SeriesDescription": "liver"}, True),
        ({"Modality": "CT", "SeriesDescription": "head"}, False),
        ({"Modality": "MR", "SeriesDescription": "liver"}, False),
        ({"Modality": "CT", "SeriesDescription": ""}, True),  # not told
        ({"Modality": "CT", "SeriesNumber": "not a number", "SeriesDescription": "liver"}, True),
        ({}, True),
    ],
)
def test_what_is_not_told_counts_neither_way(told: dict[str, str], taken: bool) -> None:
    rules = _rules({"Modality": "CT", "SeriesDescription": {"pattern": "liver.*"}, "SliceThickness": {"maximum": 5}})
    assert may_be_taken(rules, told) is taken


def test_any_rule_will_do_and_without_rules_none() -> None:
    assert may_be_taken(_rules({"Modality": "MR"}, {"Modality": "CT"}), {"Modality": "CT"})
    assert not may_be_taken(_rules(), {"Modality": "CT"})


def _row(destination: str, sop: str) -> dict[str, Any]:
    return {
        "job_id": "j", "digest": "d", "destination": destination, "study_instance_uid": "1",
        "series_instance_uid": "1.9", "sop_instance_uid": sop,
    }  # fmt: skip


def test_results_that_a_destination_lacks_are_named_and_who_does_not_tell_is_not_blamed() -> None:
    rows = [_row("pacs", "a"), _row("pacs", "b"), _row("viewer", "a"), _row("gone", "a"), _row("quiet", "a")]
    destinations = {
        "pacs": _Destination("a"),
        "viewer": _Destination(refuses=True),
        "quiet": _Destination(can_be_asked=False),
    }
    found = not_held(destinations, rows)
    assert [(one.code, one.sop_instance_uid, one.destination) for one in found.discrepancies] == [
        ("result-not-held", "b", "pacs")
    ]
    assert found.unasked == {
        "gone": "the settings name it no more",
        "quiet": "the settings say that it is not asked",
        "viewer": "context-refused: it takes no questions",
    }


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # the toolkit drops what did not connect
def test_an_archive_that_does_not_tell_hides_nothing_else(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        archive = ArchiveSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=nobody.getsockname()[1])
        settings = Settings(data_folder=tmp_path, archive=(archive,))
        found = sweep(settings, cast(Records, _Seen()), {}, "pacs", _MAY)
    assert found.discrepancies == ()
    assert found.unasked["archive pacs"].startswith("unreachable: ")
