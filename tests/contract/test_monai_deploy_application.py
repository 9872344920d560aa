"""The graph on the real SDK and a real Triton: in the server's child process, and alone on a folder."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest

import operators.sdk as sdk
from app.app import SegmentationApp
from app.graph import LABELS_FILE, RECORD_FILE, ChannelInput, CompletionRecord, GateRequest, GraphRequest
from app.jobs.graph_process import GraphProcess
from app.jobs.verification import verify_results
from operators.errors import InferenceFailed, ModelPackageError, SeriesRefused
from operators.series_volume import SeriesVolume
from operators.series_volume_operator import SeriesVolumeOperator
from tests.gate_fixture import localizer, renamed, write_beside
from tests.phantom import SAGITTAL, Phantom, write_phantom_series

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = REPOSITORY / "triton_models" / "nnunet_liver_spleen_demo"
APPLICATION = "app.app:SegmentationApp"


@pytest.fixture(scope="module")
def graphs() -> Iterator[GraphProcess]:
    graphs = GraphProcess()
    graphs.warm()
    yield graphs
    graphs.cancel()


def _request(files: list[Path], folder: Path, target: str) -> GraphRequest:
    return GraphRequest(
        inputs=(ChannelInput("", tuple(files)),),
        output_folder=folder,
        model_folder=MODEL,
        triton_target=target,
        identity="identity",
        series_description="",
        request_seconds=120,
        shared_memory=True,
    )


def _run(graphs: GraphProcess, request: GraphRequest, seen: list[tuple[str, int, int]]) -> CompletionRecord:
    return graphs.run(
        request,
        APPLICATION,
        time_limit_seconds=240,
        memory_limit_bytes=4 << 30,
        progress=lambda *facts: seen.append(facts),
    )


def _labels(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / LABELS_FILE) as stored:
        return dict(stored)


def test_a_child_process_segments_the_real_ct(
    graphs: GraphProcess, triton: Any, abdominal_ct: list[Path], tmp_path: Path
) -> None:
    seen: list[tuple[str, int, int]] = []
    record = _run(graphs, _request(abdominal_ct, tmp_path, triton.target), seen)
    (verified,) = verify_results(record, tmp_path, abdominal_ct)
    assert verified.path.name == "segmentation.dcm"
    assert [(segment.label, segment.volume_ml > 50) for segment in record.findings[0].segments] == [
        ("Liver", True),
        ("Spleen", True),
    ]
    assert [step for step, done, total in seen if done == total] == ["read", "infer", "write"]
    assert set(record.steps) == {"read", "infer", "write"}
    assert all(seconds > 0 for seconds in record.steps.values())


def test_its_probabilities_are_those_of_its_labels(
    graphs: GraphProcess, triton: Any, abdominal_ct: list[Path], tmp_path: Path
) -> None:
    files = abdominal_ct[:12]
    request = replace(_request(files, tmp_path, triton.target), kinds=("segmentation", "fractional"))
    record = _run(graphs, request, [])
    verified = {one.kind: one for one in verify_results(record, tmp_path, files)}
    fractional = highdicom.seg.segread(verified["fractional"].path)
    read = fractional.get_volume(combine_segments=False, rescale_fractional=True)
    read = read.match_geometry(highdicom.Volume(_labels(tmp_path)["labels"], _labels(tmp_path)["affine"], "PATIENT"))
    liver, spleen = (read.array[..., number] for number in range(2))
    labels = _labels(tmp_path)["labels"]
    half_a_step = 0.5 / 255
    assert np.all(liver[labels == 1] >= spleen[labels == 1] - half_a_step)
    assert np.all(np.maximum(liver, spleen)[labels > 0] >= 1 / 3 - half_a_step)
    assert np.all(np.maximum(liver, spleen)[labels == 0] <= 1 / 2 + half_a_step)
    assert np.median(liver[labels == 1]) > 0.9


def test_alone_on_a_folder_it_gives_the_same_label_map(
    graphs: GraphProcess, triton: Any, abdominal_ct: list[Path], tmp_path: Path
) -> None:
    _run(graphs, _request(abdominal_ct, tmp_path / "server", triton.target), [])
    result = _python_m_app(abdominal_ct[0].parent, tmp_path / "alone", triton.target)
    assert result.returncode == 0, result.stderr
    assert "Liver" in result.stdout
    server, alone = _labels(tmp_path / "server"), _labels(tmp_path / "alone")
    assert server.keys() == alone.keys()
    assert all(np.array_equal(server[key], alone[key]) for key in server)


def test_alone_a_channel_may_be_named(triton: Any, tmp_path: Path) -> None:
    write_phantom_series(tmp_path / "ct")
    unnamed = _python_m_app(tmp_path / "ct", tmp_path / "1", triton.target)
    named = _run_alone(["--channel", f"CT={tmp_path / 'ct'}"], tmp_path / "2", triton.target)
    assert (unnamed.returncode, named.returncode) == (0, 0), unnamed.stderr + named.stderr
    first, second = _labels(tmp_path / "1"), _labels(tmp_path / "2")
    assert np.array_equal(first["labels"], second["labels"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["-c", "CT=IN", "-c", "PET=IN"],
            "settings: the model nnunet_liver_spleen_demo has the input channels CT, and",
        ),
        (["-c", "CT=IN", "-c", "CT=IN"], "--channel names CT, CT"),
        (["-c", "CT=IN/none"], "there is no input folder"),
        (["-c", "CT"], "'CT' is not NAME=FOLDER"),
    ],
)
def test_alone_other_channels_than_the_models_are_told(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    told = _run_alone([one.replace("IN", str(tmp_path / "in")) for one in arguments], tmp_path / "out", "unix:/none")
    assert told.returncode != 0
    assert message in told.stderr
    assert "Traceback" not in told.stderr


def test_alone_it_takes_the_variables_of_a_map(triton: Any, abdominal_ct: list[Path], tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HOLOSCAN_INPUT_PATH": str(abdominal_ct[0].parent),
        "HOLOSCAN_OUTPUT_PATH": str(tmp_path / "out"),
        "HOLOSCAN_MODEL_PATH": str(MODEL.parent),
        "TRITON_SERVER_NETLOC": triton.target,
    }
    result = subprocess.run(
        [sys.executable, "-m", "app"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / RECORD_FILE).is_file()


def test_alone_a_refusal_is_told_and_leaves_no_record(triton: Any, abdominal_ct: list[Path], tmp_path: Path) -> None:
    for number, path in enumerate(abdominal_ct):
        if number != 7:
            (tmp_path / "in").mkdir(exist_ok=True)
            (tmp_path / "in" / path.name).symlink_to(path)
    result = _python_m_app(tmp_path / "in", tmp_path / "out", triton.target)
    assert result.returncode == 1
    assert result.stderr.startswith("slice-missing: expected a slice every 2.00 mm")
    assert not (tmp_path / "out" / RECORD_FILE).exists()


def test_a_refusal_crosses_from_the_graph(graphs: GraphProcess, triton: Any, tmp_path: Path) -> None:
    files = write_phantom_series(tmp_path / "ct")
    with pytest.raises(SeriesRefused) as caught:
        _run(graphs, _request(files[:1], tmp_path / "out", triton.target), [])
    assert caught.value.code == "too-few-slices"


def test_no_triton_is_an_inference_that_failed(graphs: GraphProcess, tmp_path: Path) -> None:
    files = write_phantom_series(tmp_path / "ct")
    request = replace(_request(files, tmp_path / "out", f"unix:{tmp_path}/none.sock"), request_seconds=3)
    with pytest.raises(InferenceFailed) as caught:
        _run(graphs, request, [])
    assert caught.value.code == "triton-unreachable"


def test_no_model_is_said_so(graphs: GraphProcess, tmp_path: Path) -> None:
    files = write_phantom_series(tmp_path / "ct")
    request = replace(_request(files, tmp_path / "out", "unix:/none"), model_folder=tmp_path / "no-model")
    with pytest.raises(ModelPackageError):
        _run(graphs, request, [])


def test_a_phantom_goes_through_and_a_retry_is_the_same_object(
    graphs: GraphProcess, triton: Any, tmp_path: Path
) -> None:
    files = write_phantom_series(tmp_path / "ct")
    first = _run(graphs, _request(files, tmp_path / "1", triton.target), [])
    second = _run(graphs, _request(files[::-1], tmp_path / "2", triton.target), [])
    assert first.findings == second.findings


def _with_strays(folder: Path) -> list[Path]:
    """The phantom's series as it may come: compressed with loss once, with a localizer and one slice twice."""
    files = write_phantom_series(folder)
    again = renamed(pydicom.dcmread(files[3]), "again")
    files += write_beside(folder, [localizer(Phantom(rows=64, columns=80, origin=(-104.0, -83.0, 0.0))), again])
    for path in files:
        dataset = pydicom.dcmread(path)
        dataset.LossyImageCompression, dataset.LossyImageCompressionRatio = "01", "8"
        dataset.save_as(path)
    return files


def test_a_series_with_strays_gives_the_labels_of_the_clean_one_and_notes(
    graphs: GraphProcess, triton: Any, tmp_path: Path
) -> None:
    _run(graphs, _request(write_phantom_series(tmp_path / "clean"), tmp_path / "1", triton.target), [])
    files = _with_strays(tmp_path / "ct")
    record = _run(graphs, _request(files, tmp_path / "2", triton.target), [])
    verify_results(record, tmp_path / "2", files)
    clean, labels = _labels(tmp_path / "1"), _labels(tmp_path / "2")
    assert all(np.array_equal(clean[key], labels[key]) for key in clean)
    assert [(note.code, note.policy) for note in record.notes] == [
        ("localizer", "repair"),
        ("duplicate-slice", "repair"),
        ("lossy-compression", "warn"),
    ]
    assert len(record.dropped) == 2


def test_the_pipelines_policies_reach_the_gate(graphs: GraphProcess, tmp_path: Path) -> None:
    request = _request(_with_strays(tmp_path / "ct"), tmp_path / "out", "unix:/none")
    with pytest.raises(SeriesRefused) as caught:
        _run(graphs, replace(request, gate=GateRequest({"localizer": "refuse"})), [])
    assert caught.value.code == "localizer"
    with pytest.raises(SeriesRefused) as caught:
        _run(graphs, replace(request, gate=GateRequest(take={"AcquisitionNumber": 5})), [])
    assert caught.value.code == "phase-missing"


def test_what_the_models_card_excludes_is_refused_before_triton_is_asked(graphs: GraphProcess, tmp_path: Path) -> None:
    files = Phantom(slices=12, rows=20, columns=20, orientation=SAGITTAL).write(tmp_path / "ct")
    with pytest.raises(SeriesRefused, match="the model is for axial slices, and these are sagittal") as caught:
        _run(graphs, _request(files, tmp_path / "out", "unix:/none"), [])
    assert caught.value.code == "wrong-orientation"


def test_alone_notes_are_told_beside_the_results(triton: Any, tmp_path: Path) -> None:
    _with_strays(tmp_path / "ct")
    result = _python_m_app(tmp_path / "ct", tmp_path / "out", triton.target)
    assert result.returncode == 0, result.stderr
    assert "localizer (repair): 1 of 14 images are localizers" in result.stderr
    assert "lossy-compression (warn): 12 of 12 images were compressed with loss, at most 8 to 1" in result.stderr
    assert "localizer" not in result.stdout


class _Keeper(sdk.Operator):
    """Keeps what it receives."""

    def __init__(self, fragment: sdk.Fragment, kept: list[Any], **kwargs: Any) -> None:
        self._kept = kept
        super().__init__(fragment, **kwargs)

    def setup(self, spec: sdk.OperatorSpec) -> None:
        spec.input("series")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        self._kept.append(op_input.receive("series"))


class _Reading(sdk.Application):
    """Reads the series of several channels, keeps what comes of it."""

    def __init__(self, inputs: dict[str, list[Path]], kept: list[SeriesVolume]) -> None:
        self._inputs, self._kept = inputs, kept
        super().__init__(argv=[sys.executable, "limner"])

    def compose(self) -> None:
        source = SeriesVolumeOperator(self, sdk.CountCondition(self, 1), inputs=self._inputs, name="read")
        self.add_flow(source, _Keeper(self, self._kept, name="keeper"), {("series", "series")})


def test_several_channels_cross_the_graph_on_one_grid(tmp_path: Path) -> None:
    t1 = Phantom(slices=5, rows=12, columns=12)
    flair = Phantom(slices=9, rows=20, columns=9, slice_spacing=1.2, orientation=SAGITTAL, series="flair")
    kept: list[SeriesVolume] = []
    _Reading({"T1": t1.write(tmp_path / "t1"), "FLAIR": flair.write(tmp_path / "flair")}, kept).run()
    (series,) = kept
    assert [channel.spatial_shape for channel in series.channels] == [(5, 12, 12)] * 2
    assert np.array_equal(series.channels[0].affine, series.channels[1].affine)
    assert [str(header.SeriesInstanceUID) for header in series.datasets] == [t1.uid("series", "")] * 5


def test_the_sdk_leaves_the_logging_of_its_host_alone(triton: Any, tmp_path: Path) -> None:
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    files = write_phantom_series(tmp_path / "ct")
    request = _request(files, tmp_path / "out", triton.target)
    request.output_folder.mkdir()
    SegmentationApp(request, lambda step, done, total: None).run()
    assert (root.level, list(root.handlers)) == before
    assert (request.output_folder / RECORD_FILE).is_file()


def _python_m_app(source: Path, output: Path, target: str) -> subprocess.CompletedProcess[str]:
    return _run_alone(["-i", str(source)], output, target)


def _run_alone(inputs: list[str], output: Path, target: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", *inputs, "-o", str(output), "-m", str(MODEL.parent), "-t", target]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
