"""Whether a series is complete, and what it waits for, by what the records know of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.identifiers import UID
from app.jobs.entries import SeenSeries
from app.routing.waiting import Patience, explain_waiting, judge_series, judge_study
from app.settings import ArchiveSettings, Settings
from app.settings_listener import ListenerSettings, SourceSettings
from app.settings_routing import RoutingSettings

PATIENCE = Patience(quiet_seconds=10, study_quiet_seconds=60, incomplete_seconds=600)
ASKING = replace(PATIENCE, archive="pacs")


def series(**facts: Any) -> SeenSeries:
    known: dict[str, Any] = {
        "study_instance_uid": UID("1.2"),
        "series_instance_uid": UID("1.2.3"),
        "state": "receiving",
        "revision": 1,
        "calling_ae_title": "MODALITY",
        "last_received_at": datetime(2026, 1, 1, tzinfo=UTC),
        "quiet_seconds": 20.0,
        "study_quiet_seconds": 20.0,
        "header_digest": "0" * 64,
    }
    return SeenSeries(**{**known, **facts})


def answered(expected: int | None, came: int, *, ago: float = 4.0, **facts: Any) -> SeenSeries:
    told = {"asked_archive": "pacs", "asked_code": "", "asks": 1, "asked_seconds": ago, "answered_seconds": ago}
    return series(**{**told, "expected": expected, "instances": came, **facts})


@pytest.mark.parametrize(
    ("seen", "patience", "words"),
    [
        (series(quiet_seconds=3.0), PATIENCE, "quiet for 3 s of 10 s"),
        (series(quiet_seconds=0.25), PATIENCE, "quiet for 0.2 s of 10 s"),
        (series(), PATIENCE, ""),
        (series(), ASKING, "the archive pacs is about to be asked"),
        (
            series(asked_archive="pacs", asked_code="asking", asks=1, asked_seconds=2.0),
            ASKING,
            "the archive pacs was asked 2 s ago and has not answered",
        ),
        (series(asked_archive="pacs", asked_code="asking", asks=1, asked_seconds=12.0), ASKING, ""),
        (series(asked_archive="pacs", asked_code="unreachable", asks=1, asked_seconds=2.0), ASKING, ""),
        (series(asked_archive="old", asked_seconds=2.0), ASKING, "the archive pacs is about to be asked"),
        (answered(None, 17), ASKING, ""),
        (answered(17, 17), ASKING, ""),
        (answered(16, 17), ASKING, ""),
        (answered(20, 17), ASKING, "17 of 20 instances came, the archive pacs was asked 4 s ago"),
        (answered(20, 17, ago=21), ASKING, "the archive pacs is about to be asked"),  # older than the last instance
        (answered(20, 17, asked_code="asking", asked_seconds=1), ASKING, "17 of 20 instances came, the archive pacs"),
        (answered(20, 17, asked_code="no-answer", asked_seconds=1), ASKING, "17 of 20 instances came, the archive"),
        (answered(20, 17, ago=21, asked_code="no-answer", asked_seconds=1), ASKING, ""),
        (answered(20, 17, quiet_seconds=600.0), ASKING, ""),
        (series(quiet_seconds=600.0), replace(ASKING, on_release=True), "the archive pacs is about to be asked"),
        (series(open_associations=1), replace(PATIENCE, on_release=True), "association open from MODALITY"),
        (series(open_associations=1), PATIENCE, ""),
        (series(quiet_seconds=0.1, released=True), replace(PATIENCE, on_release=True), ""),
        (series(quiet_seconds=0.1, released=True), PATIENCE, "quiet for 0.1 s of 10 s"),
        (series(quiet_seconds=3.0), replace(PATIENCE, on_release=True), "quiet for 3 s of 10 s"),
        (series(quiet_seconds=601.0, open_associations=1), replace(PATIENCE, on_release=True), ""),
        (series(quiet_seconds=0.0, state="waiting-for-study"), PATIENCE, ""),
    ],
)
def test_what_a_series_waits_for(seen: SeenSeries, patience: Patience, words: str) -> None:
    verdict = judge_series(seen, patience)
    assert verdict.complete == (not words)
    assert verdict.waits_for.startswith(words)
    assert bool(verdict.waits_for) == bool(words)


def test_only_what_was_waited_for_long_enough_is_short() -> None:
    assert judge_series(answered(20, 17, quiet_seconds=600.0), ASKING).is_short
    assert not judge_series(answered(20, 20, quiet_seconds=600.0), ASKING).is_short
    assert not judge_series(answered(20, 17, ago=21, asked_code="no-answer", asked_seconds=1), ASKING).is_short


def test_an_archive_is_asked_again_later_and_later() -> None:
    def asks(asks: int, ago: float) -> bool:
        return judge_series(answered(20, 17, ago=ago, asks=asks, quiet_seconds=599.0), ASKING).must_ask

    assert [asks(1, 4.9), asks(1, 5.0), asks(2, 9.9), asks(2, 10.0), asks(9, 59.9), asks(9, 60.0)] == [
        False, True, False, True, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "patience", "words"),
    [
        (series(study_quiet_seconds=20.0), PATIENCE, "waits for its study: nothing new in it for 20 s of 60 s"),
        (series(study_quiet_seconds=60.0), PATIENCE, ""),
        (answered(20, 20, study_quiet_seconds=60.0, series_missing=2), ASKING, ""),
        (
            answered(20, 20, study_quiet_seconds=60.0, series_missing=2),
            replace(ASKING, whole_study=True),
            "2 series of the study have not come, the archive pacs was asked 4 s ago",
        ),
        (answered(20, 20, study_quiet_seconds=600.0, series_missing=2), replace(ASKING, whole_study=True), ""),
        (series(study_quiet_seconds=60.0), replace(ASKING, whole_study=True), "the archive pacs is about to be asked"),
    ],
)
def test_what_a_study_waits_for(seen: SeenSeries, patience: Patience, words: str) -> None:
    verdict = judge_study(seen, patience)
    assert verdict.complete == (not words)
    assert verdict.waits_for == words


def test_a_study_waits_for_its_other_series() -> None:
    whole = series(study_quiet_seconds=60.0)
    others = [series(series_instance_uid=UID(f"1.2.{number}")) for number in (4, 5)]
    elsewhere = series(study_instance_uid=UID("9.9"), series_instance_uid=UID("9.9.1"))
    assert judge_study(whole, PATIENCE, [elsewhere]).complete
    one, two = judge_study(whole, PATIENCE, others[:1]), judge_study(whole, PATIENCE, others)
    assert one.waits_for == "waits for its study: series 1.2.4 still receiving"
    assert two.waits_for == "waits for its study: series 1.2.4 and 1 more still receiving"


def test_what_is_said_of_a_series_that_is_decided() -> None:
    assert series().remark == ""
    assert answered(20, 20).remark == ""
    assert answered(20, 17).remark == "17 of 20 instances came, and the archive pacs has more"
    assert answered(None, 17).remark == "the archive pacs does not know the series: the quiet time decided"
    slow, down = (series(asked_archive="pacs", asked_code=code) for code in ("asking", "unreachable"))
    assert slow.remark == "the archive pacs did not answer in time: the quiet time decided"
    assert down.remark == "the archive pacs could not be asked (unreachable): the quiet time decided"


def test_every_undecided_series_is_explained_as_the_scanner_sees_it() -> None:
    settings = Settings(
        routing=RoutingSettings(ask="pacs"), archive=(ArchiveSettings(name="pacs", ae_title="A", host="h", port=1),)
    )
    found = [
        series(series_instance_uid=UID("1.2.1"), quiet_seconds=3.0),
        series(series_instance_uid=UID("1.2.2"), state="waiting-for-study", study_quiet_seconds=61.0),
        answered(20, 17, series_instance_uid=UID("9.1"), study_instance_uid=UID("9")),
        answered(20, 20, series_instance_uid=UID("8.1"), study_instance_uid=UID("8")),
        answered(2, 2, series_instance_uid=UID("7.1"), study_instance_uid=UID("7"), waits_for="its images are fetched"),
        series(series_instance_uid=UID("6.1"), study_instance_uid=UID("6"), state="waiting-for-study"),
    ]
    explained = explain_waiting(found, settings)
    assert {series: (verdict.code, verdict.waits_for) for (_, series), verdict in explained.items()} == {
        "1.2.1": ("quiet", "quiet for 3 s of 10 s"),
        "1.2.2": ("study", "waits for its study: series 1.2.1 still receiving"),
        "9.1": ("instances", "17 of 20 instances came, the archive pacs was asked 4 s ago"),
        "8.1": ("decision", "complete: it is about to be decided"),
        "7.1": ("decision", "its images are fetched"),
        "6.1": ("study", "waits for its study: nothing new in it for 20 s of 60 s"),
    }


def test_a_complete_series_that_no_scan_decides_says_for_how_long() -> None:
    late = [
        series(series_instance_uid=UID("1.1"), study_instance_uid=UID("1"), quiet_seconds=69.0),
        series(series_instance_uid=UID("2.1"), study_instance_uid=UID("2"), quiet_seconds=310.0),
        series(
            series_instance_uid=UID("3.1"),
            study_instance_uid=UID("3"),
            state="waiting-for-study",
            quiet_seconds=500.0,
            study_quiet_seconds=160.0,
        ),
        series(series_instance_uid=UID("4.1"), study_instance_uid=UID("4"), quiet_seconds=310.0, waits_for="the disk"),
    ]
    explained = explain_waiting(late, Settings())
    undecided = "complete, and no scan has decided it for {}: see whether a server with a listener runs, and its log"
    assert {series: verdict.waits_for for (_, series), verdict in explained.items()} == {
        "1.1": "complete: it is about to be decided",
        "2.1": undecided.format("300 s"),
        "3.1": undecided.format("100 s"),
        "4.1": "the disk",
    }


def test_what_an_archive_may_have_been_waited_for_is_no_time_without_a_scan() -> None:
    archive = ArchiveSettings(name="pacs", ae_title="A", host="h", port=1)
    settings = Settings(routing=RoutingSettings(ask="pacs"), archive=(archive,))
    waited = answered(20, 20, quiet_seconds=600.0)
    later = replace(waited, series_instance_uid=UID("1.2.4"), quiet_seconds=700.0)
    about, late = (one.waits_for for one in explain_waiting([waited, later], settings).values())
    assert about == "complete: it is about to be decided"
    assert "for 100 s" in late


def test_a_source_has_its_own_patience() -> None:
    settings = Settings(
        routing=RoutingSettings(series_quiet_seconds=7, ask="pacs", incomplete_seconds=20),
        archive=tuple(ArchiveSettings(name=name, ae_title="A", host="h", port=1) for name in ("pacs", "other")),
        listener=ListenerSettings(
            source=(
                SourceSettings(ae_title="SLOW", quiet_seconds=30, ask="other"),
                SourceSettings(ae_title="BRISK", complete_on_release=True),
            )
        ),
    )
    anyone, slow, brisk = (Patience.of(settings, title) for title in ("ANYONE", "SLOW", "BRISK"))
    assert (anyone.quiet_seconds, anyone.archive, anyone.on_release) == (7, "pacs", False)
    assert (slow.quiet_seconds, slow.archive, slow.incomplete_seconds) == (30, "other", 30)
    assert (brisk.quiet_seconds, brisk.archive, brisk.on_release) == (7, "pacs", True)


ages = st.none() | st.floats(0, 2000)


@given(
    seen=st.builds(
        series,
        quiet_seconds=st.floats(0, 2000),
        released=st.booleans(),
        open_associations=st.integers(0, 2),
        instances=st.integers(1, 5),
        expected=st.none() | st.integers(0, 5),
        asked_archive=st.sampled_from(["", "pacs", "other"]),
        asked_code=st.sampled_from(["", "asking", "unreachable"]),
        asks=st.integers(0, 70),
        asked_seconds=ages,
        answered_seconds=ages,
    ),
    archive=st.sampled_from(["", "pacs"]),
    on_release=st.booleans(),
)
def test_whatever_is_known_the_waiting_ends_and_is_explained(seen: SeenSeries, archive: str, on_release: bool) -> None:
    patience = replace(PATIENCE, archive=archive, on_release=on_release)
    verdict = judge_series(seen, patience)
    assert verdict.complete == (not verdict.waits_for)
    if seen.quiet_seconds < patience.quiet_seconds and not (on_release and seen.released):
        assert not verdict.complete  # nothing but a release is quicker than the quiet time
    if verdict.must_ask:
        assert archive
        assert not verdict.complete
    if verdict.is_short:
        assert verdict.complete
        assert seen.shortfall
        assert seen.quiet_seconds >= patience.incomplete_seconds
    # once asked and long quiet, nothing is waited for any more, whatever the archive said or did not say
    late = replace(seen, quiet_seconds=3000.0, asked_archive="pacs", asked_seconds=max(seen.asked_seconds or 0.0, 10.0))
    assert judge_series(late, patience).complete
