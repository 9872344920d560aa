"""The graph that annotations prompt, in its own process, over a real Triton that serves a planted generalist."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from app.graph import (
    IMAGES_CHANNEL,
    PROMPT_CHANNEL,
    ChannelInput,
    CompletionRecord,
    EmbeddingsRequest,
    GraphRequest,
    PromptRequest,
)
from app.jobs.graph_process import PROMPTED_PRELOAD, GraphProcess
from app.jobs.verification import verify_results
from app.settings_prompt import PROMPTED_APPLICATION
from operators.sam.prompted import PromptReach
from operators.triton_connection import connect
from tests.ball_segmentation import ball_segmentation
from tests.judges import run_dciodvfy
from tests.peers import require
from tests.prompt_objects import in_patient, presentation_state, rectangle, structure_set
from tests.triton_fixture import running_triton
from tests.web_fixture import BALL, MODEL, generalist_repository, write_ball

MIDDLE = 5
PLACE = BALL.slices - 1 - MIDDLE
"""Where the volume has it: its slices run the other way."""
OUTLINE = rectangle(20, 12, 45, 37)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generalist_repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def target(repository: Path) -> Iterator[str]:
    with running_triton(repository) as triton:
        yield triton.target


@pytest.fixture(scope="module")
def graphs() -> Iterator[GraphProcess]:
    graphs = GraphProcess(PROMPTED_PRELOAD)
    graphs.warm()
    yield graphs
    graphs.cancel()


@pytest.fixture
def request_for(repository: Path, target: str, tmp_path: Path) -> GraphRequest:
    """A request without a prompt."""
    return GraphRequest(
        inputs=(ChannelInput(IMAGES_CHANNEL, tuple(write_ball(tmp_path / "ball"))),),
        output_folder=tmp_path / "out",
        model_folder=repository / MODEL,
        triton_target=target,
        identity="identity",
        series_description="drawn",
        request_seconds=60,
        shared_memory=True,
    )


def _run(graphs: GraphProcess, request: GraphRequest, *prompts: Dataset, name: str = "first") -> CompletionRecord:
    """The record of a run of its own, its objects read back."""
    folder = request.output_folder / name
    folder.mkdir(parents=True)
    files = []
    for number, prompt in enumerate(prompts):
        files.append(folder / f"prompt-{number}.dcm")
        prompt.save_as(files[-1], enforce_file_format=True)
    inputs = (*request.inputs, ChannelInput(PROMPT_CHANNEL, tuple(files)))
    asked = replace(request, inputs=inputs, output_folder=folder, identity=name)
    record = graphs.run(
        asked,
        PROMPTED_APPLICATION,
        time_limit_seconds=120,
        memory_limit_bytes=4 << 30,
        progress=lambda step, done, total: None,
    )
    verify_results(record, folder, asked.primary_files)
    return record


def _encoded(target: str) -> int:
    """How many images Triton's encoder was asked for, since it began."""
    (statistics,) = connect(target).get_inference_statistics(MODEL).model_stats
    return int(statistics.inference_count)


def test_a_second_prompt_on_a_slice_does_not_pay_for_the_encoder(
    graphs: GraphProcess, request_for: GraphRequest, target: str, tmp_path: Path
) -> None:
    first = presentation_state(BALL, MIDDLE, [("POLYLINE", OUTLINE)])
    second = presentation_state(BALL, MIDDLE, [("POLYLINE", rectangle(26, 18, 38, 30))])
    folder = tmp_path / "embeddings"
    request = replace(request_for, prompt=PromptRequest(embeddings=EmbeddingsRequest(folder, 1 << 24)))
    before = _encoded(target)
    one = _run(graphs, request, first)
    assert _encoded(target) == before + 1
    other = _run(graphs, request, second, name="second")
    assert _encoded(target) == before + 1
    assert [record.findings[0].segments[0].voxels > 0 for record in (one, other)] == [True, True]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_bound_of_the_embeddings_is_the_requests(
    graphs: GraphProcess, request_for: GraphRequest, target: str, tmp_path: Path
) -> None:
    state = presentation_state(BALL, MIDDLE, [("POLYLINE", OUTLINE)])
    request = replace(request_for, prompt=PromptRequest(embeddings=EmbeddingsRequest(tmp_path / "embeddings", 0)))
    before = _encoded(target)
    _run(graphs, request, state)
    _run(graphs, request, state, name="second")
    assert _encoded(target) == before + 2


def test_without_a_folder_embeddings_last_as_long_as_the_run(
    graphs: GraphProcess, request_for: GraphRequest, target: str
) -> None:
    state = presentation_state(BALL, MIDDLE, [("POLYLINE", OUTLINE)])
    before = _encoded(target)
    _run(graphs, request_for, state)
    assert not [path for path in request_for.output_folder.rglob("*") if "embeddings" in path.name]
    _run(graphs, request_for, state, name="second")
    assert _encoded(target) == before + 2


@pytest.mark.parametrize("reach", ["slice", "volume"])
def test_a_series_of_one_slice_is_prompted_as_others_are(
    graphs: GraphProcess, request_for: GraphRequest, tmp_path: Path, reach: PromptReach
) -> None:
    alone = [path for path in request_for.primary_files if pydicom.dcmread(path).InstanceNumber == MIDDLE + 1]
    inputs = (ChannelInput(IMAGES_CHANNEL, tuple(alone)),)
    prompt = PromptRequest(reach=reach)
    request = replace(request_for, inputs=inputs, prompt=prompt, kinds=("segmentation", "report", "structure-set"))
    state = presentation_state(BALL, MIDDLE, [("POLYLINE", OUTLINE)])
    record = _run(graphs, request, state)
    whole = _run(graphs, replace(request_for, prompt=PromptRequest()), state, name="whole")
    (found,), (expected,) = record.findings[0].segments, whole.findings[0].segments
    assert (found.voxels, found.volume_ml) == (expected.voxels, expected.volume_ml)
    require("dciodvfy")
    for one in record.findings[0].objects:
        assert run_dciodvfy(tmp_path / "out" / "first" / one.file) == []


@pytest.mark.parametrize(
    ("drawn_by", "algorithm_type"),
    [("AUTOMATIC", "AUTOMATIC"), ("SEMIAUTOMATIC", "SEMIAUTOMATIC"), ("MANUAL", "SEMIAUTOMATIC")],
)
def test_a_result_says_whether_a_persons_hand_guided_it(
    graphs: GraphProcess, request_for: GraphRequest, tmp_path: Path, drawn_by: str, algorithm_type: str
) -> None:
    request = replace(request_for, kinds=("segmentation", "structure-set"))
    prompt = ball_segmentation(request.primary_files, PLACE, [drawn_by], tmp_path)
    record = _run(graphs, request, prompt)
    written = {one.kind: pydicom.dcmread(tmp_path / "out" / "first" / one.file) for one in record.findings[0].objects}
    (segment,) = written["segmentation"].SegmentSequence
    (region,) = written["structure-set"].StructureSetROISequence
    assert segment.SegmentAlgorithmType == region.ROIGenerationAlgorithm == algorithm_type
    assert record.findings[0].segments[0].voxels > 0


def test_what_is_left_out_is_recorded_and_the_result_refers_to_what_was_followed(
    graphs: GraphProcess, request_for: GraphRequest, tmp_path: Path
) -> None:
    beyond = in_patient(BALL, 40, OUTLINE[:-1])
    elsewhere = structure_set(BALL, [("there", [("CLOSED_PLANAR", beyond)])])
    state = presentation_state(BALL, MIDDLE, [("POLYLINE", OUTLINE)])
    record = _run(graphs, request_for, elsewhere, state)
    assert record.left_out == ("7: prompt-outside",)
    assert [note.code for note in record.notes] == ["prompt-outside"]
    assert record.prompted_by == {state.SOPInstanceUID: state.SeriesInstanceUID}
    (written,) = record.findings[0].objects
    dataset = pydicom.dcmread(tmp_path / "out" / "first" / written.file)
    assert len(dataset.SegmentSequence) == 1
    named = {one.SeriesInstanceUID for one in dataset.ReferencedSeriesSequence}
    assert state.SeriesInstanceUID in named
    assert elsewhere.SeriesInstanceUID not in named


def test_the_record_and_the_report_tell_what_structures_gave_to_others(
    graphs: GraphProcess, request_for: GraphRequest, tmp_path: Path
) -> None:
    lesion = ("lesion", [("CLOSED_PLANAR", in_patient(BALL, MIDDLE, rectangle(28, 20, 37, 29)[:-1]))])
    organ = ("organ", [("CLOSED_PLANAR", in_patient(BALL, MIDDLE, OUTLINE[:-1]))])
    request = replace(request_for, kinds=("segmentation", "report"))
    record = _run(graphs, request, structure_set(BALL, [lesion, organ]))
    inner, outer = record.findings[0].segments
    (note,) = record.notes
    assert (note.code, note.policy) == ("prompts-overlap", "warn")
    assert f"segment 2 keeps {outer.voxels} of the {inner.voxels + outer.voxels} voxels found of it" in note.message
    assert f"{inner.voxels} went to segment 1" in note.message
    written = {one.kind: tmp_path / "out" / "first" / one.file for one in record.findings[0].objects}
    assert note.message.encode() in written["report"].read_bytes()
