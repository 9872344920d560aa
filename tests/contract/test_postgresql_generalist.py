"""A generalist beside the specialist on a real PostgreSQL and its queue: what is sent, flagged, held and decided."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.audit.log import verify as verify_audit
from app.errors import GraphFailed, JobError
from app.graph import CompletionRecord, EmbeddingsRequest, GraphRequest
from app.jobs import queue
from app.jobs.holding import ask_for_decision
from app.jobs.records import Agreement, Finding
from app.settings_pipeline import GeneralistSettings
from operators.errors import InferenceFailed, ModelPackageError, OperatorError, SeriesRefused
from tests.database_fixture import fresh_database
from tests.job_harness import AGREEING, DESTINATIONS, DISAGREEING, Bench, PlantedGraph, bench, instance

SAM = GeneralistSettings(model="sam")
BOTH = ["specialist", "generalist"]


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


def _bench(folder: Path, url: str, graph: PlantedGraph, **options: Any) -> AbstractContextManager[Bench]:
    return bench(folder, url, graph=graph, **{"generalist": SAM, **options})


def _run(made: Bench, until: Callable[[], bool] | None = None) -> None:
    made.receive(instance(1), instance(2))
    made.create_jobs()
    made.work(until or made.all_ended)


def _is_held(made: Bench) -> bool:
    return made.job().state == "held"


def _sent(made: Bench) -> dict[str, list[str]]:
    """Whose objects each destination got."""
    roles = {one.digest: one.role for one in made.job().results}
    return {
        name: sorted((roles[digest] for digest in one.got()), reverse=True) for name, one in made.destinations.items()
    }


def _to_all(*roles: str) -> dict[str, list[str]]:
    return {name: list(roles) for name in DESTINATIONS}


def _audited(made: Bench) -> list[str]:
    """The event types that tell of flags and decisions, in order."""
    lines = [line for path in made.settings.audit_folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    told = ("results-flagged", "job-held", "job-released", "job-discarded", "job-closed")
    return [event for line in lines for event in told if f'"{event}"' in line]


def _raising(error: Exception) -> Callable[[int], None]:
    def fail(run: int) -> None:
        raise error

    return fail


@pytest.mark.parametrize(("deliver", "sent"), [(False, ["specialist"]), (True, BOTH)])
def test_where_they_agree_the_settings_say_what_is_sent(
    deliver: bool, sent: list[str], tmp_path: Path, url: str
) -> None:
    with _bench(tmp_path, url, PlantedGraph(), generalist=_delivering(deliver), on_disagreement="hold") as made:
        _run(made)
        job = made.job()
        assert (job.state, job.flag, job.generalist_name, job.generalist_version) == ("closed", "", "sam", "2.0")
        assert sorted((one.role for one in job.results), reverse=True) == BOTH
        assert _sent(made) == _to_all(*sent)
        assert _audited(made) == ["job-closed"]
        liver = '(10200004, SCT, "Liver")'
        assert made.records.findings(job.id) == [Finding(role, 1, "Liver", liver, 100.0) for role in BOTH]  # type: ignore[arg-type]
        assert made.records.agreement(job.id) == [Agreement(1, "Liver", 0.95, 1.5, -2.0, -2.0, ())]


def test_its_graph_keeps_embeddings_where_sessions_do(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[GraphRequest] = []
    with _bench(tmp_path, url, PlantedGraph()) as made:
        run = made.graph.run

        def noted(request: GraphRequest, application: str, **more: Any) -> CompletionRecord:
            asked.append(request)
            return run(request, application, **more)

        monkeypatch.setattr(made.graph, "run", noted)
        _run(made)
        settings = made.settings
        expected = EmbeddingsRequest(settings.embeddings_folder, settings.web.embedding_bytes)
        assert [one.generalist.embeddings for one in asked if one.generalist is not None] == [expected]


def _delivering(deliver: bool) -> GeneralistSettings:
    return SAM.model_copy(update={"deliver": deliver})


@pytest.mark.parametrize(("on_disagreement", "sent"), [("warn", ["specialist"]), ("both", BOTH)])
def test_a_disagreement_is_flagged_and_the_rule_says_what_is_sent(
    on_disagreement: str, sent: list[str], tmp_path: Path, url: str
) -> None:
    graph = PlantedGraph(agreement=DISAGREEING)
    with _bench(tmp_path, url, graph, on_disagreement=on_disagreement) as made:
        _run(made)
        job = made.job()
        assert (job.state, job.flag, job.flag_reason) == ("closed", "disagreement", "Liver: Dice 0.410")
        assert _sent(made) == _to_all(*sent)
        assert _audited(made) == ["results-flagged", "job-closed"]


def test_a_held_job_sends_nothing_until_it_is_released(tmp_path: Path, url: str) -> None:
    graph = PlantedGraph(agreement=DISAGREEING)
    with _bench(tmp_path, url, graph, on_disagreement="hold") as made:
        _run(made, partial(_is_held, made))
        job = made.job()
        assert not job.ended
        assert [one.state for one in job.deliveries] == ["held"] * len(DESTINATIONS)
        assert _sent(made) == _to_all()
        assert made.queued_tasks() == []
        ask_for_decision(made.records, queue.RELEASE, job.id, "radiologist")
        ask_for_decision(made.records, queue.RELEASE, job.id, "radiologist")  # twice, before the first was heard
        made.work(made.all_ended)
        assert made.job().state == "closed"
        assert _sent(made) == _to_all("specialist")
        assert _audited(made) == ["results-flagged", "job-held", "job-released", "job-closed"]
        with pytest.raises(JobError) as raised:
            ask_for_decision(made.records, queue.DISCARD, job.id, "radiologist")
        assert raised.value.code == "job-not-held"
    released = [line for line in _lines(tmp_path) if '"job-released"' in line]
    assert len(released) == 1
    assert json.loads(released[0])["detail"]["person"] == "radiologist"
    report = verify_audit(tmp_path / "audit")
    assert report.ok, report.problems


def _lines(folder: Path) -> list[str]:
    return [line for path in (folder / "audit").glob("*.jsonl") for line in path.read_text().splitlines()]


def test_a_held_job_that_is_discarded_never_sends(tmp_path: Path, url: str) -> None:
    graph = PlantedGraph(agreement=DISAGREEING)
    with _bench(tmp_path, url, graph, on_disagreement="hold", generalist=_delivering(True)) as made:
        _run(made, partial(_is_held, made))
        ask_for_decision(made.records, queue.DISCARD, made.job().id, "radiologist")
        ask_for_decision(made.records, queue.RELEASE, made.job().id, "radiologist")  # too late
        made.work(lambda: made.all_ended() and made.queued_tasks() == [])
        job = made.job()
        assert (job.state, job.finished_at is not None) == ("discarded", True)
        assert [one.state for one in job.deliveries] == ["discarded"] * 2 * len(DESTINATIONS)
        assert _sent(made) == _to_all()
        assert _audited(made) == ["results-flagged", "job-held", "job-discarded"]
        made.work(made.all_ended)  # a server that starts anew leaves it as it is
        assert made.job().state == "discarded"


@pytest.mark.parametrize(
    "error",
    [
        ModelPackageError("the folder is broken", code="file-missing"),
        InferenceFailed("it is not served", code="model-missing"),
        SeriesRefused("nothing is seen in it", code="image-empty"),
        GraphFailed("the process died", code="graph-crashed"),
    ],
    ids=lambda error: error.code,
)
def test_a_generalist_that_fails_leaves_the_specialists_result(error: OperatorError, tmp_path: Path, url: str) -> None:
    graph = PlantedGraph(second=_raising(error))
    with _bench(tmp_path, url, graph, on_disagreement="both") as made:
        _run(made)
        job = made.job()
        assert (job.state, job.flag, graph.runs) == ("closed", "generalist-failed", 1)
        assert job.flag_reason == f"{error.code}: {error}"
        assert _sent(made) == _to_all("specialist")
        assert _audited(made) == ["results-flagged", "job-closed"]
        assert made.records.agreement(job.id) == []
        assert [one.role for one in made.records.findings(job.id)] == ["specialist"]


def test_a_generalist_that_fails_holds_the_job_where_the_rule_says_so(tmp_path: Path, url: str) -> None:
    graph = PlantedGraph(second=_raising(ModelPackageError("the folder is broken", code="file-missing")))
    with _bench(tmp_path, url, graph, on_disagreement="hold") as made:
        _run(made, partial(_is_held, made))
        ask_for_decision(made.records, queue.RELEASE, made.job().id, "radiologist")
        made.work(made.all_ended)
        assert _sent(made) == _to_all("specialist")


def test_a_specialist_that_fails_is_no_matter_of_the_generalist(tmp_path: Path, url: str) -> None:
    graph = PlantedGraph(plan=_raising(SeriesRefused("slices are missing", code="slice-missing")))
    with _bench(tmp_path, url, graph, on_disagreement="hold") as made:
        _run(made)
        assert (made.job().state, made.job().code, made.job().flag) == ("refused", "slice-missing", "")


def test_a_job_whose_generalist_was_replaced_is_made_anew(tmp_path: Path, url: str) -> None:
    with _bench(tmp_path, url, PlantedGraph(agreement=AGREEING)) as made:
        made.receive(instance(1))
        made.create_jobs()
        facts = made.models["liver"]
        assert facts.generalist is not None
        made.models["liver"] = replace(facts, generalist=replace(facts.generalist, weights_digest="2" * 64))
        made.work(made.all_ended)
        assert made.job().code == "model-replaced"
        made.create_jobs()
        made.work(made.all_ended)
        assert [one.state for one in made.records.jobs()] == ["closed", "failed"]


def test_an_unknown_job_can_not_be_decided_on(tmp_path: Path, url: str) -> None:
    with _bench(tmp_path, url, PlantedGraph()) as made, pytest.raises(JobError) as raised:
        ask_for_decision(made.records, queue.RELEASE, uuid.UUID(int=5), "radiologist")
    assert raised.value.code == "job-unknown"
