"""OpenVINO as the accelerator of the embedded Triton's ONNX Runtime backend."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import ServingError
from app.serving.triton import EmbeddedTriton
from operators.triton import TritonModel
from tests.triton_fixture import (
    MODEL_REPOSITORY,
    REPOSITORY_ROOT,
    fixture_repository,
    running_triton,
    triton_python,
)

DEMO, SINGLE, PROBE = "nnunet_liver_spleen_demo", "limner_single", "limner_probe"
BACKEND = REPOSITORY_ROOT / "app" / "serving" / "backends" / "onnxruntime"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fixture_repository(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[EmbeddedTriton]:
    with running_triton(repository, probe_seconds=60.0) as triton:
        yield triton


@pytest.fixture(scope="module")
def openvino_server(repository: Path) -> Iterator[EmbeddedTriton]:
    with running_triton(repository, probe_seconds=60.0, model_configuration="openvino") as triton:
        yield triton


def handle(server: EmbeddedTriton, model: str) -> TritonModel:
    return TritonModel(server.target, model, version="1", deadline_seconds=90.0, shared_memory=True)


def log_of(server: EmbeddedTriton) -> str:
    folder = Path(server.target.removeprefix("unix:")).parents[2]
    return (folder / "triton.log").read_text()


def test_openvino_gives_the_answers_of_onnx_runtime(server: EmbeddedTriton, openvino_server: EmbeddedTriton) -> None:
    rows = np.random.default_rng(0).standard_normal((3, 1, 16, 128, 128), dtype=np.float32)
    requests: list[dict[str, Any]] = [{"image": rows[:1]}, {"image": rows[1:]}]
    with handle(server, DEMO) as one, handle(openvino_server, DEMO) as other:
        for request in requests:
            expected, found = one.infer(request)["logits"], other.infer(request)["logits"]
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert f"serves {DEMO} on the CPU" in log_of(server)
    assert "openvino" not in log_of(server)
    (line,) = [line for line in log_of(openvino_server).splitlines() if f"serves {DEMO}" in line]
    assert "openvino 2026" in line
    (line,) = [line for line in log_of(openvino_server).splitlines() if f"serves {PROBE}" in line]
    assert "onnxruntime" in line, "a model without configs/openvino.pbtxt has its config.pbtxt"


@pytest.mark.parametrize("which", ["server", "openvino_server"])
def test_requests_of_a_batch_that_fails_are_answered_one_by_one(which: str, request: pytest.FixtureRequest) -> None:
    rows = np.arange(16, dtype=np.float32).reshape(4, 1, 4)
    triton: EmbeddedTriton = request.getfixturevalue(which)
    with handle(triton, SINGLE) as model:
        answers = model.stream(({"numbers": row} for row in rows), in_flight=4)
        found = [answer["numbers_plus_one"].copy() for answer in answers]
    np.testing.assert_array_equal(found, rows + 1)
    assert "a batch failed; its requests are answered one by one" in log_of(triton)


def test_the_demo_models_two_configurations_differ_in_the_accelerator_alone() -> None:
    plain = (MODEL_REPOSITORY / DEMO / "config.pbtxt").read_text()
    accelerated = (MODEL_REPOSITORY / DEMO / "configs" / "openvino.pbtxt").read_text()
    assert accelerated.startswith(plain)
    assert accelerated.removeprefix(plain).split() == [
        *("optimization", "{", "execution_accelerators", "{"),
        *("cpu_execution_accelerator", "[", "{", "name:", '"openvino"', "}", "]", "}", "}"),
    ]


def test_a_configuration_that_no_model_has_is_refused(repository: Path, tmp_path: Path) -> None:
    triton = EmbeddedTriton(
        triton_python(), repository, tmp_path, start_seconds=1.0, probe_seconds=1.0, model_configuration="absent"
    )
    with pytest.raises(ServingError, match=r"no model .* has configs/absent.pbtxt") as caught:
        triton.start()
    assert caught.value.code == "triton-repository"


OPENS_A_NETWORK = """
import json, pathlib, sys
sys.modules["triton_python_backend_utils"] = sys  # what of Triton is needed here is one exception and a log
sys.TritonModelException = RuntimeError
sys.modules.update({name: None for name in sys.argv[4:]})
sys.path.insert(0, sys.argv[1])
import model
model.open_network(pathlib.Path(sys.argv[2]), json.loads(sys.argv[3]))
"""


@pytest.mark.parametrize(
    ("config", "missing", "message"),
    [
        ('[{"name": "openvino"}]', ["openvino"], "install the package openvino into Triton's environment"),
        ('[{"name": "onednn"}]', [], "expected the CPU accelerator openvino or none, got ['onednn']"),
    ],
)
def test_an_accelerator_that_can_not_be_had_is_an_error(config: str, missing: list[str], message: str) -> None:
    ended = subprocess.run(
        [
            *(triton_python(), "-c", OPENS_A_NETWORK, BACKEND, MODEL_REPOSITORY / PROBE / "1" / "model.onnx"),
            f'{{"optimization": {{"execution_accelerators": {{"cpu_execution_accelerator": {config}}}}}}}',
            *missing,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert message in ended.stderr


def test_threads_and_precision_are_as_asked(repository: Path) -> None:
    program = (
        "import pathlib, sys; sys.path.insert(0, sys.argv[1]); from openvino_network import OpenVinoNetwork\n"
        "compiled = OpenVinoNetwork(pathlib.Path(sys.argv[2]), 1)._compiled\n"
        "print(compiled.get_property('INFERENCE_PRECISION_HINT').to_string(),"
        " compiled.get_property('INFERENCE_NUM_THREADS'), compiled.inputs[0].partial_shape)"
    )
    said = subprocess.run(
        [triton_python(), "-c", program, BACKEND, repository / DEMO / "1" / "model.onnx"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert said.stdout.split() == ["f32", "1", "[?,1,16,128,128]"]
