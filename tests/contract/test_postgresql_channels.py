"""Models with several channels on a real PostgreSQL: the series of a study are bound once, by rule, or refused."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from app.jobs.binding import StudyBinding
from app.jobs.identity import ModelFacts
from app.jobs.records import Job
from app.routing.completion import CompletionScanner, CreateStudyJob
from app.routing.rules import RuleSet
from app.settings_listener import ListenerSettings, SourceSettings
from app.settings_pipeline import URGENT_PRIORITY, RuleSettings
from tests.database_fixture import fresh_database
from tests.job_harness import DESTINATIONS, Bench, bench, instance

T1, FLAIR, LOCALIZER, SECOND_T1, BOTH, CT = 1, 2, 3, 4, 5, 6
_DESCRIPTIONS = {
    T1: "AX T1 MPRAGE",
    FLAIR: "AX FLAIR",
    LOCALIZER: "LOCALIZER",
    SECOND_T1: "COR T1",
    BOTH: "T1 FLAIR",
    CT: "HEAD",
}
_MODEL = ModelFacts("planted", "1.0", "0" * 64, Path("/models/planted"), ("T1", "FLAIR"))
_RULE = RuleSettings(
    name="brain",
    pipeline="liver",
    destinations=DESTINATIONS,
    after="study",
    match={"Modality": "MR"},
    # not the model's order, which is the one that counts
    channels={
        "FLAIR": {"SeriesDescription": {"pattern": ".*FLAIR.*"}},
        "T1": {"SeriesDescription": {"pattern": ".*T1.*"}},
    },
)


@pytest.fixture
def made(tmp_path: Path, postgres: str) -> Iterator[Bench]:
    with fresh_database(postgres) as url, bench(tmp_path, url) as opened:
        opened.models["liver"] = _MODEL
        yield opened


def _scanner(
    made: Bench, create: CreateStudyJob | None = None, rule: RuleSettings = _RULE, **changed: Any
) -> CompletionScanner:
    return CompletionScanner(
        settings=made.settings.model_copy(update=changed),
        records=made.records,
        audit=made.audit,
        rules=RuleSet([rule]),
        spool_path_of=lambda digest: made.spool / f"{digest}.dcm",
        create_job=made.workflow.create_job,
        create_study_job=create or made.workflow.create_study_job,
    )


def _receive(made: Bench, *series: int, number: int = 1, study: int = 1, calling: str = "MODALITY") -> None:
    for one in series:
        kept = replace(instance(number, series=one, study=study), calling_ae_title=calling)
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = kept.sop_class_uid, kept.sop_instance_uid
        dataset.Modality = "CT" if one == CT else "MR"
        dataset.SeriesDescription = _DESCRIPTIONS[one]
        dataset.PatientName = "Planted^Name"
        made.receive(kept)
        dataset.save_as(made.spool / f"{kept.digest}.dcm", enforce_file_format=True)


def _settle(made: Bench, scanner: CompletionScanner | None = None) -> None:
    """Scan until nothing is undecided."""
    looking, deadline = scanner or _scanner(made), time.monotonic() + 20
    while made.records.undecided_series():
        assert time.monotonic() < deadline, [one.state for one in made.records.series()]
        looking.scan()
        time.sleep(0.05)


def _uid(series: int, study: int = 1) -> str:
    return instance(1, series=series, study=study).series_instance_uid


def _states(made: Bench) -> dict[str, tuple[str, str | None]]:
    return {one.series_instance_uid: (one.state, one.reason) for one in made.records.series()}


def _channels(made: Bench, job: Job) -> set[tuple[str, str]]:
    """Channel and SOP Instance UID of each input."""
    return {(one.channel, one.sop_instance_uid) for one in made.records.job_inputs(job.id)}


def _expected(*inputs: tuple[str, int], number: int = 1) -> set[tuple[str, str]]:
    return {(channel, instance(number, series=series).sop_instance_uid) for channel, series in inputs}


def _audited(made: Bench, event: str) -> list[dict[str, Any]]:
    lines = [line for path in made.settings.audit_folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    return [record["detail"] for record in map(json.loads, lines) if record["event"] == event]


# --- what is bound ---


def test_a_study_becomes_one_job_with_a_series_a_channel(made: Bench) -> None:
    _receive(made, LOCALIZER, FLAIR, T1, CT)
    _settle(made)
    job = made.job()
    assert (job.state, job.rule, job.series_instance_uid, job.instances) == ("queued", "brain", _uid(T1), 2)
    assert _channels(made, job) == _expected(("T1", T1), ("FLAIR", FLAIR))
    assert _states(made) == {
        _uid(T1): ("routed", f"channel T1 of job {job.id}"),
        _uid(FLAIR): ("routed", f"channel FLAIR of job {job.id}"),
        _uid(LOCALIZER): ("no-channel", "it fits none of the channels T1, FLAIR"),
        _uid(CT): ("no-rule", None),
    }
    assert made.queued_tasks() == [("segment", "todo")]
    (created,) = _audited(made, "JOB_CREATED")
    assert (created["channels"], created["channel_series_instance_uids"]) == (["T1", "FLAIR"], [_uid(T1), _uid(FLAIR)])
    (unused,) = _audited(made, "NO_CHANNEL_FITS")
    assert unused["series_instance_uid"] == _uid(LOCALIZER)
    assert _scanner(made).scan() == 0  # once


def test_one_urgent_series_makes_its_study_urgent(made: Bench) -> None:
    urgent = _RULE.model_copy(update={"urgent": {"SeriesDescription": {"pattern": ".*FLAIR.*"}}})
    _receive(made, T1, FLAIR)
    _receive(made, T1, study=2)
    _settle(made, _scanner(made, rule=urgent))
    assert {job.study_instance_uid: job.priority for job in made.records.jobs()} == {
        instance(1, study=1).study_instance_uid: URGENT_PRIORITY,
        instance(1, study=2).study_instance_uid: 0,
    }


def test_the_graph_gets_the_channels_in_the_models_order(made: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    run = made.graph.run

    def watched(request: Any, application: str, **limits: Any) -> Any:
        seen.append(request)
        return run(request, application, **limits)

    monkeypatch.setattr(made.graph, "run", watched)
    _receive(made, FLAIR, T1)
    _receive(made, T1, number=2)
    _settle(made)
    made.work(made.all_ended)
    assert made.job().state == "closed"
    (request,) = seen
    assert [(one.channel, len(one.files)) for one in request.inputs] == [("T1", 2), ("FLAIR", 1)]
    t1 = {made.spool / f"{instance(number, series=T1).digest}.dcm" for number in (1, 2)}
    assert set(request.primary_files) == t1


def test_studies_are_bound_each_by_itself(made: Bench) -> None:
    for study in (1, 2):
        _receive(made, T1, FLAIR, study=study)
    _settle(made)
    jobs = made.records.jobs()
    assert {job.series_instance_uid for job in jobs} == {_uid(T1), _uid(T1, study=2)}
    assert [job.state for job in jobs] == ["queued", "queued"]


def test_a_source_that_is_slower_than_a_study_is_waited_for(made: Bench) -> None:
    slow = ListenerSettings(source=(SourceSettings(ae_title="SLOW", quiet_seconds=3600),))
    _receive(made, T1)
    _receive(made, FLAIR, calling="SLOW")
    scanner, deadline = _scanner(made, listener=slow), time.monotonic() + 1.5
    while time.monotonic() < deadline:
        scanner.scan()
        time.sleep(0.05)
    assert made.records.jobs() == []
    assert _states(made)[_uid(T1)] == ("waiting-for-study", None)
    _settle(made)  # by the common quiet times
    assert made.job().state == "queued"


# --- what is refused ---


def test_a_missing_channel_is_refused_with_its_name_and_what_was_looked_for(made: Bench) -> None:
    _receive(made, T1, LOCALIZER)
    _settle(made)
    job = made.job()
    assert (job.state, job.code, job.attempt, job.ended) == ("refused", "channel-missing", 0, True)
    assert "no series for the channel FLAIR (SeriesDescription: matches the pattern '.*FLAIR.*')" in job.reason
    assert "T1" not in job.reason
    assert "Planted" not in job.reason
    assert job.finished_at is not None
    assert _channels(made, job) == _expected(("T1", T1))
    assert _states(made)[_uid(T1)] == ("routed", f"channel T1 of job {job.id}, refused: channel-missing")
    assert _states(made)[_uid(LOCALIZER)][0] == "no-channel"
    assert made.queued_tasks() == []
    (refused,) = _audited(made, "JOB_REFUSED")
    assert (refused["code"], refused["reason"], refused["job_id"]) == ("channel-missing", job.reason, str(job.id))


def test_without_the_primary_another_series_carries_the_refusal(made: Bench) -> None:
    _receive(made, LOCALIZER, FLAIR)
    _settle(made)
    job = made.job()
    assert (job.state, job.code, job.series_instance_uid) == ("refused", "channel-missing", _uid(FLAIR))
    assert "no series for the channel T1 " in job.reason


def test_with_no_channel_at_all_the_first_series_of_the_rule_carries_the_refusal(made: Bench) -> None:
    for study in (1, 2):
        _receive(made, LOCALIZER, study=study)
    _settle(made)
    first, second = made.records.jobs()
    assert (first.state, first.code, first.instances) == ("refused", "channel-missing", 1)
    assert "the channel T1" in first.reason
    assert "the channel FLAIR" in first.reason
    assert {first.series_instance_uid, second.series_instance_uid} == {_uid(LOCALIZER), _uid(LOCALIZER, study=2)}
    assert {state for state, _ in _states(made).values()} == {"no-channel"}


def test_several_series_for_a_channel_are_refused_with_their_number(made: Bench) -> None:
    _receive(made, T1, SECOND_T1, FLAIR)
    _settle(made)
    job = made.job()
    assert (job.state, job.code, job.series_instance_uid) == ("refused", "channel-ambiguous", _uid(T1))
    assert "2 series for the channel T1 (" in job.reason
    assert _channels(made, job) == _expected(("T1", T1), ("T1", SECOND_T1), ("FLAIR", FLAIR))
    assert {state for state, _ in _states(made).values()} == {"routed"}


def test_one_series_for_two_channels_is_refused(made: Bench) -> None:
    _receive(made, BOTH)
    _settle(made)
    job = made.job()
    assert (job.state, job.code) == ("refused", "channel-ambiguous")
    assert "one series that fits the channels FLAIR, T1 at once" in job.reason
    assert _channels(made, job) == _expected(("T1", BOTH), ("FLAIR", BOTH))


def test_what_is_missing_and_what_is_doubled_are_said_together(made: Bench) -> None:
    _receive(made, T1, SECOND_T1)
    _settle(made)
    job = made.job()
    assert job.code == "channel-missing"
    assert "2 series for the channel T1" in job.reason


# --- late arrivals ---


def test_a_channel_that_comes_late_makes_the_job(made: Bench) -> None:
    _receive(made, T1)
    _settle(made)
    _receive(made, FLAIR)
    _settle(made)
    job, refused = made.records.jobs()
    assert (refused.state, job.state) == ("refused", "queued")
    assert _channels(made, job) == _expected(("T1", T1), ("FLAIR", FLAIR))
    assert _states(made)[_uid(T1)] == ("routed", f"channel T1 of job {job.id}")
    assert _states(made)[_uid(FLAIR)] == ("routed", f"channel FLAIR of job {job.id}")


@pytest.mark.parametrize("late", [T1, FLAIR])
def test_a_late_instance_of_any_channel_makes_a_second_job_of_the_whole(made: Bench, late: int) -> None:
    _receive(made, T1, FLAIR)
    _settle(made)
    _receive(made, late, number=2)
    _settle(made)
    assert [job.instances for job in made.records.jobs()] == [3, 2]


def test_a_late_series_for_no_channel_changes_nothing(made: Bench) -> None:
    _receive(made, T1, FLAIR)
    _settle(made)
    before = _states(made)
    _receive(made, LOCALIZER)
    _settle(made)
    assert made.job().state == "queued"
    assert _states(made) == {**before, _uid(LOCALIZER): ("no-channel", "it fits none of the channels T1, FLAIR")}
    assert made.queued_tasks() == [("segment", "todo")]


def test_a_refusal_is_not_repeated(made: Bench) -> None:
    _receive(made, T1)
    _settle(made)
    _receive(made, LOCALIZER)
    _settle(made)
    assert made.job().code == "channel-missing"
    assert len(_audited(made, "JOB_REFUSED")) == 1


def test_a_refusal_does_not_stand_in_the_way_of_a_rule_that_was_mended(made: Bench) -> None:
    made.models["liver"] = replace(_MODEL, channels=("T1",))
    narrow = _RULE.model_copy(update={"channels": {"T1": _RULE.channels["T1"]}})
    _receive(made, LOCALIZER)
    _settle(made, _scanner(made, rule=narrow))
    assert made.job().code == "channel-missing"
    with made.records.transaction() as connection:
        connection.execute("UPDATE series SET state = 'receiving'")
    _settle(made, _scanner(made, rule=_RULE.model_copy(update={"channels": {}})))
    assert [job.state for job in made.records.jobs()] == ["queued", "refused"]


def test_a_replaced_model_has_the_whole_study_decided_again(made: Bench) -> None:
    _receive(made, T1, FLAIR)
    _settle(made)
    made.models["liver"] = replace(_MODEL, weights_digest="1" * 64)
    made.work(made.all_ended)
    assert made.job().code == "model-replaced"
    _settle(made)
    job, _ = made.records.jobs()
    assert (job.state, job.instances, job.weights_digest) == ("queued", 2, "1" * 64)


def test_a_worker_with_an_older_model_does_not_strand_a_study(made: Bench) -> None:
    _receive(made, T1, FLAIR)
    _settle(made)
    decided = _states(made)
    made.models["liver"] = replace(_MODEL, weights_digest="1" * 64)  # the worker's; the listener has the other one
    made.work(made.all_ended)
    made.models["liver"] = _MODEL
    _settle(made)
    assert (made.job().state, made.job().weights_digest) == ("queued", _MODEL.weights_digest)
    assert _states(made) == decided
    made.work(made.all_ended)
    assert made.job().state == "closed"


# --- once, whatever happens ---


def test_what_fails_on_the_way_leaves_nothing_behind(made: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _receive(made, T1, FLAIR)
    conclude, calls = made.records.conclude_locked_series, []

    def fail_at_the_second(*arguments: Any, **facts: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise psycopg.OperationalError("the power fails")
        conclude(*arguments, **facts)

    monkeypatch.setattr(made.records, "conclude_locked_series", fail_at_the_second)
    with pytest.raises(psycopg.OperationalError, match="power"):
        _settle(made)
    assert made.records.jobs() == []
    assert made.queued_tasks() == []
    assert {state for state, _ in _states(made).values()} == {"waiting-for-study"}
    _settle(made)
    assert made.job().state == "queued"
    assert made.queued_tasks() == [("segment", "todo")]


def test_content_that_comes_while_the_study_is_decided_is_waited_for(made: Bench) -> None:
    seen: list[int] = []

    def while_it_decides(binding: StudyBinding) -> int:
        if not seen:
            _receive(made, FLAIR, number=2)
        seen.append(made.workflow.create_study_job(binding))
        return seen[-1]

    _receive(made, T1, FLAIR)
    _settle(made, _scanner(made, while_it_decides))
    assert seen == [0, 2]
    assert made.job().instances == 3


def test_two_that_look_at_once_make_one_job(made: Bench) -> None:
    _receive(made, T1, FLAIR, LOCALIZER)
    barrier = threading.Barrier(2)

    def together(binding: StudyBinding) -> int:
        barrier.wait(20)
        return made.workflow.create_study_job(binding)

    scanner = _scanner(made, together)
    while {state for state, _ in _states(made).values()} != {"waiting-for-study"}:
        scanner.scan()
    time.sleep(made.settings.routing.study_quiet_seconds)
    with ThreadPoolExecutor(2) as pool:
        decided = sorted(pool.map(lambda _: scanner.scan(), range(2)))
    assert decided == [0, 3]
    assert made.job().state == "queued"
    assert made.queued_tasks() == [("segment", "todo")]
