"""Prompt objects on a real PostgreSQL: each is made a job together with its images, waits for them, or is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from app.graph import PROMPTED_CHANNELS, CompletionRecord, EmbeddingsRequest, GraphRequest
from app.identifiers import UID
from app.jobs.identity import ModelFacts
from app.jobs.records import Instance, Job
from app.routing.completion import CompletionScanner
from app.routing.rules import RuleSet
from app.settings_pipeline import PipelineSettings, RuleSettings
from app.settings_prompt import PromptSettings
from tests.database_fixture import fresh_database
from tests.job_harness import DESTINATIONS, Bench, bench
from tests.phantom import Phantom
from tests.prompt_objects import in_patient, presentation_state, rectangle, structure_set

PHANTOM = Phantom(slices=3)
OUTLINE = rectangle(2, 1.5, 9, 7)
_RULE = RuleSettings(
    name="drawn", pipeline="liver", destinations=DESTINATIONS, match={"Modality": ["PR", "RTSTRUCT", "SEG"]}
)
_MODEL = ModelFacts("planted", "1.0", "0" * 64, Path("/models/planted"), PROMPTED_CHANNELS)


@pytest.fixture
def made(tmp_path: Path, postgres: str) -> Iterator[Bench]:
    with fresh_database(postgres) as url, bench(tmp_path, url) as opened:
        opened.models["liver"] = _MODEL
        _set(opened, PromptSettings())
        yield opened


def _set(made: Bench, prompt: PromptSettings) -> None:
    """Have the pipeline prompted so: the workflow has its settings already, and they are frozen for all others."""
    pipeline = PipelineSettings(name="liver", model="planted", prompt=prompt)
    object.__setattr__(made.settings, "pipeline", (pipeline,))


def _scan(made: Bench, *, quiet_seconds: float = 1e-6, own_results: bool = False) -> int:
    routing = made.settings.routing.model_copy(update={"series_quiet_seconds": quiet_seconds})
    return CompletionScanner(
        settings=made.settings.model_copy(update={"routing": routing}),
        records=made.records,
        audit=made.audit,
        rules=RuleSet([_RULE.model_copy(update={"own_results": own_results})]),
        spool_path_of=lambda digest: made.spool / f"{digest}.dcm",
        create_job=made.workflow.create_job,
        create_study_job=made.workflow.create_study_job,
    ).scan()


def _receive(made: Bench, *datasets: Dataset) -> None:
    for dataset in datasets:
        uid = str(dataset.SOPInstanceUID)
        digest = uid.replace(".", "").rjust(64, "0")[-64:]
        dataset.save_as(made.spool / f"{digest}.dcm", enforce_file_format=True)
        made.records.record_instance(
            Instance(
                sop_instance_uid=UID(uid),
                sop_class_uid=UID(str(dataset.SOPClassUID)),
                transfer_syntax_uid=UID(str(dataset.file_meta.TransferSyntaxUID)),
                series_instance_uid=UID(str(dataset.SeriesInstanceUID)),
                study_instance_uid=UID(str(dataset.StudyInstanceUID)),
                digest=digest,
                size_bytes=1000,
                calling_ae_title="PACS",
                source_host="127.0.0.1",
            )
        )


def _images(phantom: Phantom = PHANTOM) -> list[Dataset]:
    return [phantom.dataset(index) for index in range(phantom.slices)]


def _state(phantom: Phantom = PHANTOM) -> Dataset:
    return presentation_state(phantom, 1, [("POLYLINE", OUTLINE)])


def _decided(made: Bench) -> dict[str, str]:
    return {one.series_instance_uid: one.state for one in made.records.series()}


def _codes(made: Bench) -> list[str]:
    return [job.code for job in made.records.jobs()]


def test_a_prompt_and_its_images_are_one_job_and_its_results_are_delivered(made: Bench) -> None:
    _receive(made, *_images(), _state())
    assert _scan(made) == 2
    job = made.job()
    channels = [one.channel for one in made.records.job_inputs(job.id)]
    assert channels == ["images"] * 3 + ["prompt"]
    assert job.series_instance_uid == _state().SeriesInstanceUID
    made.work(made.all_ended)
    assert made.job().state == "closed"


def test_its_graph_keeps_embeddings_where_sessions_do(made: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[GraphRequest] = []
    run = made.graph.run

    def noted(request: GraphRequest, application: str, **more: Any) -> CompletionRecord:
        asked.append(request)
        return run(request, application, **more)

    monkeypatch.setattr(made.graph, "run", noted)
    _receive(made, *_images(), _state())
    _scan(made)
    made.work(made.all_ended)
    settings = made.settings
    assert [one.prompt.embeddings for one in asked] == [
        EmbeddingsRequest(settings.embeddings_folder, settings.web.embedding_bytes)
    ]


def test_a_worker_with_an_older_model_does_not_strand_a_prompt(made: Bench) -> None:
    _receive(made, *_images(), _state())
    assert _scan(made) == 2
    made.models["liver"] = replace(_MODEL, weights_digest="1" * 64)  # the worker's; the listener has the other one
    made.work(made.all_ended)
    assert _codes(made) == ["model-replaced"]
    made.models["liver"] = _MODEL
    assert _scan(made) == 1
    assert made.job().state == "queued"
    made.work(made.all_ended)
    assert made.job().state == "closed"


def test_instances_of_the_images_that_still_come_are_waited_for(made: Bench) -> None:
    _receive(made, _state())
    _receive(made, *_images())
    assert _scan(made, quiet_seconds=3600) == 0
    with made.records.transaction() as connection:
        connection.execute(
            "UPDATE series SET last_received_at = last_received_at - interval '1 hour' WHERE series_instance_uid = %s",
            (_state().SeriesInstanceUID,),
        )
    assert _scan(made, quiet_seconds=60) == 0  # the prompt is quiet, its images are not
    assert made.records.jobs() == []
    said = {one.series_instance_uid: one.waits_for for one in made.records.waiting_series()}
    assert said.pop(_state().SeriesInstanceUID) == "the images that it refers to are still coming"
    assert set(said.values()) == {None}
    assert _scan(made) + _scan(made) == 2
    assert made.job().instances == 4


def test_images_that_come_later_end_the_refusal(made: Bench) -> None:
    _receive(made, _state())
    assert _scan(made) == 1
    assert (made.job().state, made.job().code) == ("refused", "images-not-held")
    assert _scan(made) == 0  # nothing came
    _receive(made, Phantom(series="other").dataset(0))
    assert _scan(made) == 1
    assert _scan(made) == 1  # looked at again, refused as before: no second job
    assert len(made.records.jobs()) == 1
    _receive(made, *_images())
    assert _scan(made) == 1
    assert _scan(made) == 1
    newest, refused = made.records.jobs()
    assert (newest.state, newest.instances, refused.code) == ("queued", 4, "images-not-held")
    _receive(made, Phantom(series="third").dataset(0))
    assert _scan(made) == 1
    assert _scan(made) == 0  # it has its job
    assert set(_decided(made).values()) == {"routed", "no-rule"}


def test_images_of_another_study_are_not_those(made: Bench) -> None:
    stranger = _state()
    stranger.StudyInstanceUID = "2.25.1"
    _receive(made, *_images(), stranger)
    _scan(made)
    assert _codes(made) == ["images-not-held"]


def test_objects_of_one_series_for_several_series_are_refused(made: Bench) -> None:
    other = Phantom(slices=3, series="other")
    second = structure_set(other, [("liver", [("CLOSED_PLANAR", in_patient(other, 1, OUTLINE[:-1]))])])
    second.SeriesInstanceUID = _state().SeriesInstanceUID
    _receive(made, *_images(), *_images(other), _state(), second)
    _scan(made)
    assert _codes(made) == ["prompt-references-several-series"]


def test_an_object_that_can_not_be_a_prompt_is_refused(made: Bench) -> None:
    nameless = _state()
    del nameless.ReferencedSeriesSequence
    _receive(made, *_images(), nameless)
    _scan(made)
    assert _codes(made) == ["prompt-references-nothing"]


def test_too_many_structures_are_refused_until_more_are_allowed(made: Bench) -> None:
    drawn = presentation_state(PHANTOM, 1, [("POLYLINE", OUTLINE)] * 3)
    _set(made, PromptSettings(most_structures=2))
    _receive(made, *_images(), drawn)
    _scan(made)
    (refused,) = made.records.jobs()
    assert (refused.state, refused.code) == ("refused", "prompt-too-many-structures")
    _set(made, PromptSettings(most_structures=3))
    drawn.SeriesInstanceUID, drawn.SOPInstanceUID = "2.25.7", "2.25.8"
    del drawn.file_meta.MediaStorageSOPInstanceUID
    _receive(made, drawn)  # stored anew
    _scan(made)
    allowed, refused = made.records.jobs()
    assert (allowed.state, allowed.instances, refused.state) == ("queued", 4, "refused")


@pytest.mark.parametrize("own_results", [False, True])
def test_a_result_that_comes_back_is_not_answered(made: Bench, own_results: bool) -> None:
    _receive(made, *_images(), _state())
    _scan(made)
    made.work(made.all_ended)
    returned = _state(Phantom(slices=3))
    (result,) = made.job().results
    returned.SOPInstanceUID, returned.SeriesInstanceUID = str(result.sop_instance_uid), "2.25.9"
    del returned.file_meta.MediaStorageSOPInstanceUID
    _receive(made, returned)
    _scan(made, own_results=own_results)
    jobs: list[Job] = made.records.jobs()
    refused = [("refused", "prompt-made-here")] if own_results else []
    assert [(job.state, job.code) for job in jobs] == [*refused, ("closed", "")]
    assert _decided(made)["2.25.9"] == ("routed" if own_results else "own-result")
