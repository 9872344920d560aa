"""The graph with a generalist, in its own process, over a real Triton that serves a planted one beside the nnU-Net."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from app.errors import GraphFailed
from app.graph import (
    IMAGES_CHANNEL,
    PROMPT_CHANNEL,
    RECORD_FILE,
    SPECIALIST_RECORD_FILE,
    ChannelInput,
    CompletionRecord,
    EmbeddingsRequest,
    FailureRecord,
    GateRequest,
    GeneralistRequest,
    GraphRequest,
    PromptRequest,
    specialist_alone,
)
from app.jobs.graph_process import GraphProcess
from app.jobs.verification import verify_results
from app.settings_prompt import PROMPTED_APPLICATION
from operators.agreement_limits import AgreementLimits
from operators.errors import ModelPackageError
from operators.object_kinds import Kind
from operators.triton_connection import connect
from tests.sam_fixture import put_generalist
from tests.triton_fixture import MODEL_REPOSITORY, running_triton
from tests.web_fixture import MODEL as BRIGHT_AROUND_POINTS
from tests.web_fixture import generalist_repository

SPECIALIST = "nnunet_liver_spleen_demo"
APPLICATION = "app.app:SegmentationApp"
KINDS: tuple[Kind, ...] = (
    *("segmentation", "labelmap", "fractional", "report", "report-on-labelmap", "report-alone"),
    *("structure-set", "capture", "presentation-state"),
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    generalist_repository(folder)
    (folder / SPECIALIST).symlink_to(MODEL_REPOSITORY / SPECIALIST)
    put_generalist(folder, "planted")
    return folder


@pytest.fixture(scope="module")
def target(repository: Path) -> Iterator[str]:
    with running_triton(repository) as triton:
        yield triton.target


@pytest.fixture(scope="module")
def graphs() -> Iterator[GraphProcess]:
    graphs = GraphProcess()
    graphs.warm()
    yield graphs
    graphs.cancel()


@pytest.fixture
def request_for(repository: Path, target: str, abdominal_ct: list[Path], tmp_path: Path) -> GraphRequest:
    """A request for both models."""
    return GraphRequest(
        inputs=(ChannelInput("", tuple(abdominal_ct[4:10])),),
        output_folder=tmp_path / "out",
        model_folder=repository / SPECIALIST,
        triton_target=target,
        identity="identity",
        series_description="organs",
        request_seconds=120,
        shared_memory=True,
        generalist=GeneralistRequest(repository / "planted", "soft-tissue", 5.0, AgreementLimits(least_dice=0.8)),
        gate=GateRequest({"wrong-slice-count": "warn"}),  # a few slices are enough here
    )


def _run(
    graphs: GraphProcess,
    request: GraphRequest,
    application: str = APPLICATION,
    seen: list[tuple[str, int, int]] | None = None,
) -> CompletionRecord:
    told = [] if seen is None else seen
    return graphs.run(
        request,
        application,
        time_limit_seconds=240,
        memory_limit_bytes=4 << 30,
        progress=lambda *facts: told.append(facts),
    )


def test_a_second_finding_and_how_far_the_two_agree(graphs: GraphProcess, request_for: GraphRequest) -> None:
    seen: list[tuple[str, int, int]] = []
    record = _run(graphs, request_for, seen=seen)
    specialist, generalist = verify_results(record, request_for.output_folder, request_for.primary_files)
    assert (specialist.path.name, generalist.path.name) == ("segmentation.dcm", "generalist-segmentation.dcm")
    assert [one.model.name for one in record.findings] == [SPECIALIST, "planted"]
    assert [one.label for one in record.agreement] == ["Liver", "Spleen"]
    # it paints whole slices, and is the surer the further right and down a box lies: the spleen's
    liver, spleen = record.agreement
    assert (liver.dice, liver.distance_mm, liver.beyond) == (0, None, ("one-empty",))
    assert 0 < spleen.dice < 0.8
    assert spleen.beyond == ("dice",)
    assert [facts for facts in seen if facts[0] == "generalist"][-1] == ("generalist", 6, 6)
    assert set(record.steps) == {"read", "infer", "write", "generalist"}


def test_points_within_the_segments_and_windows_of_their_own(graphs: GraphProcess, request_for: GraphRequest) -> None:
    """A generalist that finds what is bright around a point finds some of each organ, and nothing far from both."""
    asked = GeneralistRequest(
        request_for.model_folder.parent / BRIGHT_AROUND_POINTS,
        window="",
        box_margin_pixels=5.0,
        windows={"Liver": "liver"},
        prompts="points",
    )
    request = replace(request_for, generalist=asked)
    record = _run(graphs, request)
    _, generalist = verify_results(record, request.output_folder, request.primary_files)
    assert all(0.1 < one.dice < 1 for one in record.agreement), record.agreement
    (algorithm,) = pydicom.dcmread(generalist.path).SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    parameters = algorithm.AlgorithmParameters.split(",")
    assert {"prompts=points", "window=by modality", "window of Liver=liver"} < set(parameters)
    assert not any(one.startswith("box_margin") for one in parameters)


def _encoded(target: str) -> int:
    """How many images Triton's encoder was asked for, since it began."""
    (statistics,) = connect(target).get_inference_statistics(BRIGHT_AROUND_POINTS).model_stats
    return int(statistics.inference_count)


def test_what_the_chain_encoded_is_kept_for_whoever_prompts_its_slices_and_for_a_retry(
    graphs: GraphProcess, request_for: GraphRequest, target: str, tmp_path: Path
) -> None:
    kept = EmbeddingsRequest(tmp_path / "embeddings", 1 << 24)
    model = request_for.model_folder.parent / BRIGHT_AROUND_POINTS
    chain = replace(request_for, generalist=GeneralistRequest(model, "liver", 5.0, embeddings=kept))
    before = _encoded(target)
    _run(graphs, chain)
    encoded = _encoded(target)
    assert encoded > before
    _run(graphs, replace(chain, output_folder=tmp_path / "again"))
    assert _encoded(target) == encoded

    def prompted(window: str) -> CompletionRecord:
        """What a person makes of the specialist's segments, on each slice that has one."""
        segmentation = ChannelInput(PROMPT_CHANNEL, (chain.output_folder / "segmentation.dcm",))
        images = ChannelInput(IMAGES_CHANNEL, chain.primary_files)
        asked = replace(
            chain,
            inputs=(images, segmentation),
            model_folder=model,
            output_folder=tmp_path / window,
            generalist=None,
            prompt=PromptRequest(window, "slice", "box", kept),
        )
        return _run(graphs, asked, PROMPTED_APPLICATION)

    (found,) = prompted("liver").findings
    assert [one.voxels > 0 for one in found.segments] == [True, True]
    assert _encoded(target) == encoded
    prompted("lung")  # another picture
    assert _encoded(target) > encoded


def test_without_a_folder_the_chain_keeps_no_embeddings(
    graphs: GraphProcess, request_for: GraphRequest, target: str
) -> None:
    model = request_for.model_folder.parent / BRIGHT_AROUND_POINTS
    request = replace(request_for, generalist=GeneralistRequest(model, "liver", 5.0))
    before = _encoded(target)
    _run(graphs, request)
    once = _encoded(target) - before
    _run(graphs, request)
    assert _encoded(target) == before + 2 * once
    assert not list(request.output_folder.rglob("*.single"))


def test_a_report_says_where_the_two_disagree(graphs: GraphProcess, request_for: GraphRequest) -> None:
    request = replace(request_for, kinds=KINDS)
    record = _run(graphs, request)
    verified = verify_results(record, request.output_folder, request.primary_files)
    assert {(one.role, one.kind) for one in verified} == {
        (role, kind) for role in ("specialist", "generalist") for kind in KINDS
    } - {("generalist", "fractional")}  # only an nnU-Net has probabilities
    assert len({one.path for one in verified}) == len({one.sop_instance_uid for one in verified}) == len(verified)
    (report,) = (one.path for one in verified if (one.role, one.kind) == ("specialist", "report"))
    said = [str(element.value) for element in pydicom.dcmread(report).iterall() if element.keyword == "TextValue"]
    assert "A second model disagrees: Liver: found by the specialist alone" in said
    assert any(one.startswith("A second model disagrees: Spleen: Dice 0.") for one in said)
    before = CompletionRecord.from_json((request.output_folder / SPECIALIST_RECORD_FILE).read_bytes())
    verify_results(before, request.output_folder, request.primary_files)  # what is left if the generalist dies


def test_the_specialists_result_is_the_same_as_alone_and_a_retry_gives_the_same_objects(
    graphs: GraphProcess, request_for: GraphRequest
) -> None:
    both = _run(graphs, request_for)
    again = _run(graphs, replace(request_for, output_folder=request_for.output_folder / "again"))
    alone = _run(graphs, replace(request_for, output_folder=request_for.output_folder / "alone", generalist=None))
    assert both.findings == again.findings
    assert both.findings[:1] == alone.findings
    assert (alone.agreement, alone.generalist_failure) == ((), None)


def test_a_process_that_dies_in_the_generalist_leaves_the_specialists_result(
    graphs: GraphProcess, request_for: GraphRequest
) -> None:
    with pytest.raises(GraphFailed) as raised:
        _run(graphs, request_for, "tests.journey.planted:CrashesInTheGeneralist")
    folder = request_for.output_folder
    assert not (folder / RECORD_FILE).exists()
    record = specialist_alone(folder, raised.value.code, "it died")
    assert record is not None
    assert record.generalist_failure == FailureRecord("graph-crashed", "it died")
    (one,) = verify_results(record, folder, request_for.primary_files)
    assert one.role == "specialist"


def test_a_generalist_that_is_not_there_is_said_so_after_the_specialist(
    graphs: GraphProcess, request_for: GraphRequest
) -> None:
    assert request_for.generalist is not None
    missing = replace(request_for.generalist, model_folder=Path("/no/model"))
    with pytest.raises(ModelPackageError) as raised:
        _run(graphs, replace(request_for, generalist=missing))
    assert raised.value.code == "file-missing"
    assert specialist_alone(request_for.output_folder, "file-missing", "") is not None


def test_what_the_specialist_alone_left_is_no_record_of_its_own(tmp_path: Path) -> None:
    assert specialist_alone(tmp_path, "graph-crashed", "") is None
    (tmp_path / SPECIALIST_RECORD_FILE).write_text('{"identity": "cut o')
    assert specialist_alone(tmp_path, "graph-crashed", "") is None
