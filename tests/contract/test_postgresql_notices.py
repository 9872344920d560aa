"""Notices that there is no result, on a real PostgreSQL and its queue: who gets them, and that they change nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from app.graph import CompletionRecord
from app.jobs.records import Instance
from operators.errors import SeriesRefused
from operators.object_kinds import Kind
from tests.database_fixture import fresh_database
from tests.job_harness import Bench, PlantedGraph, bench, instance
from tests.phantom import Phantom

BOTH = {"no_result": "notice-and-page"}
PHANTOM = Phantom(slices=3)
_DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


def _refusing(_: int) -> None:
    raise SeriesRefused("expected a slice every 2.5 mm; missing: 1 between 5 and 10 mm", code="slice-missing")


def _receive(made: Bench, *, without: Sequence[str] = ()) -> list[Instance]:
    """A series whose headers can be read; `without` these attributes."""
    kept = [instance(number) for number in range(1, PHANTOM.slices + 1)]
    for number, one in enumerate(kept):
        made.receive(one)
        dataset = PHANTOM.dataset(number)
        dataset.SOPInstanceUID = str(one.sop_instance_uid)
        dataset.SeriesInstanceUID = str(one.series_instance_uid)
        dataset.StudyInstanceUID = str(one.study_instance_uid)
        del dataset.file_meta.MediaStorageSOPInstanceUID
        for keyword in without:
            if keyword in dataset:
                del dataset[keyword]
        dataset.save_as(made.spool / f"{one.digest}.dcm", enforce_file_format=True)
    return kept


def _run(folder: Path, url: str, graph: PlantedGraph, check: Callable[[Bench], None], **tables: Any) -> None:
    with bench(folder, url, graph=graph, **tables) as made:
        _receive(made)
        made.create_jobs()
        made.work(lambda: made.all_ended() and _all_sent(made))
        check(made)


def _all_sent(made: Bench) -> bool:
    return all(one.finished_at is not None for one in made.job().deliveries)


def _kinds_sent(made: Bench) -> dict[str, list[Kind]]:
    kinds = {one.digest: one.kind for one in made.job().results}
    return {name: sorted(kinds[digest] for digest in one.got()) for name, one in made.destinations.items()}


def test_a_refused_series_is_told_of_in_its_study(tmp_path: Path, url: str) -> None:
    def check(made: Bench) -> None:
        assert (made.job().state, made.job().code) == ("refused", "slice-missing")
        assert _kinds_sent(made) == dict.fromkeys(made.destinations, ["notice", "notice-page"])
        source = PHANTOM.dataset(0)
        for one in made.job().results:
            dataset = pydicom.dcmread(one.path)
            assert dataset.StudyInstanceUID == made.job().study_instance_uid
            assert (dataset.PatientID, dataset.PatientName) == (source.PatientID, source.PatientName)
            said = " ".join(str(element.value) for element in dataset.iterall() if element.VR in ("UT", "LT", "LO"))
            assert "slice-missing" in said
            assert "missing: 1 between 5 and 10 mm" in said
        (page,) = (pydicom.dcmread(one.path) for one in made.job().results if one.kind == "notice-page")
        assert len(np.unique(page.pixel_array.reshape(-1, 3), axis=0)) > 2

    _run(tmp_path, url, PlantedGraph(plan=_refusing), check, rule=BOTH)


def test_a_failure_is_told_of(tmp_path: Path, url: str) -> None:
    def fail(_: int) -> None:
        raise ValueError("a defect")

    def check(made: Bench) -> None:
        assert (made.job().state, made.job().code) == ("failed", "internal-error")
        assert _kinds_sent(made) == dict.fromkeys(made.destinations, ["notice"])

    _run(tmp_path, url, PlantedGraph(plan=fail), check, rule={"no_result": "notice"})


class _FindsNothing(PlantedGraph):
    def run(self, *arguments: Any, **options: Any) -> CompletionRecord:
        record = super().run(*arguments, **options)
        (finding,) = record.findings
        empty = tuple(replace(one, voxels=0, volume_ml=0.0) for one in finding.segments)
        return replace(record, findings=(replace(finding, segments=empty),))


def test_a_run_that_found_nothing_is_told_of_beside_its_result(tmp_path: Path, url: str) -> None:
    def check(made: Bench) -> None:
        assert made.job().state == "closed"
        assert _kinds_sent(made) == dict.fromkeys(made.destinations, ["notice", "segmentation"])

    _run(tmp_path, url, _FindsNothing(), check, rule={"no_result": "notice"})


def test_nothing_is_told_where_the_rule_does_not_ask_for_it(tmp_path: Path, url: str) -> None:
    def check(made: Bench) -> None:
        assert made.job().state == "refused"
        assert _kinds_sent(made) == {"archive": [], "viewer": []}

    _run(tmp_path, url, PlantedGraph(plan=_refusing), check)


def test_nothing_is_told_where_something_was_found(tmp_path: Path, url: str) -> None:
    def check(made: Bench) -> None:
        assert _kinds_sent(made) == dict.fromkeys(made.destinations, ["segmentation"])

    _run(tmp_path, url, PlantedGraph(), check, rule=BOTH)


def test_headers_that_can_not_be_read_change_nothing(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, graph=PlantedGraph(plan=_refusing), rule=BOTH) as made:
        made.receive(instance(1))  # of which the spool holds no DICOM
        made.create_jobs()
        made.work(made.all_ended)
        assert (made.job().state, made.job().code) == ("refused", "slice-missing")
        assert made.job().results == ()


def test_a_defect_in_a_notice_does_not_keep_its_job_from_ending(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object) -> None:
        raise IndexError("a defect")

    monkeypatch.setattr("app.jobs.notices._write", break_down)

    def check(made: Bench) -> None:
        assert (made.job().state, made.job().code, made.job().attempt) == ("refused", "slice-missing", 1)
        assert made.job().results == ()

    _run(tmp_path, url, PlantedGraph(plan=_refusing), check, rule=BOTH)


def test_a_destination_gets_those_that_it_takes(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, graph=PlantedGraph(plan=_refusing), rule=BOTH) as made:
        made.destinations["archive"].accepted = ("notice-page", "segmentation")
        address = made.settings.destination_named("archive").address
        made.records.keep_profile("archive", address, ["notice-page", "segmentation"])
        _receive(made)
        made.create_jobs()
        made.work(lambda: made.all_ended() and _all_sent(made))
        assert _kinds_sent(made) == {"archive": ["notice-page"], "viewer": ["notice", "notice-page"]}


def test_a_replay_that_fails_as_before_says_nothing_new_and_one_that_succeeds_sends_its_result(
    tmp_path: Path, url: str
) -> None:
    def fail_twice(run: int) -> None:
        if run <= 2:
            raise ValueError("a defect")

    with bench(tmp_path, url, graph=PlantedGraph(plan=fail_twice), rule={"no_result": "notice"}) as made:
        _receive(made)
        made.create_jobs()
        made.work(lambda: made.all_ended() and _all_sent(made))
        for runs, state in ((2, "failed"), (3, "closed")):
            made.workflow._decisions["replay"](made.job().id, "erika")
            made.work(partial(_has_ended, made, runs))
            assert made.job().state == state
            assert len({one.sop_instance_uid for one in made.job().results if one.kind == "notice"}) == 1
        kinds = _kinds_sent(made)["archive"]
        assert kinds.count("segmentation") == 1
        assert {one.state for one in made.job().deliveries} == {"delivered"}


def test_a_dead_letter_that_is_replayed_says_another_sentence_in_another_object(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, rule=BOTH) as made:
        _receive(made)
        made.create_jobs()
        for lost in (3, 7):  # the fourth attempt of each round finds that all before were lost
            for _ in range(3):
                made.records.begin_attempt(made.job().id)
            made.work(lambda: made.all_ended() and _all_sent(made))
            assert made.job().reason.endswith(f"attempt {lost} was lost with its worker")
            made.workflow._decisions["replay"](made.job().id, "erika")
        assert [len(digests) for digests in _digests(made).values()] == [1] * 4
        assert sorted(one.kind for one in made.job().results) == ["notice"] * 2 + ["notice-page"] * 2


def test_a_source_without_dates_is_told_of_with_the_same_bytes_again(tmp_path: Path, url: str) -> None:
    def fail(_: int) -> None:
        raise ValueError("a defect")

    with bench(tmp_path, url, graph=PlantedGraph(plan=fail), rule=BOTH) as made:
        _receive(made, without=_DATES)
        made.create_jobs()
        made.work(lambda: made.all_ended() and _all_sent(made))
        created = made.job().created_at.astimezone(UTC)
        for one in made.job().results:
            dataset = pydicom.dcmread(one.path)
            assert (dataset.ContentDate, dataset.ContentTime) == (f"{created:%Y%m%d}", f"{created:%H%M%S}")
        made.workflow._decisions["replay"](made.job().id, "erika")
        made.work(partial(_has_ended, made, 2))
        assert [len(digests) for digests in _digests(made).values()] == [1, 1]


def _digests(made: Bench) -> dict[str, set[str]]:
    """What the job's objects are, by SOP Instance UID."""
    found: dict[str, set[str]] = defaultdict(set)
    for one in made.job().results:
        found[one.sop_instance_uid].add(one.digest)
    return found


def _has_ended(made: Bench, runs: int) -> bool:
    return made.graph.runs == runs and made.all_ended() and _all_sent(made)
