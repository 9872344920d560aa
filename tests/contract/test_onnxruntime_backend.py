"""The embedded Triton's ONNX Runtime: what it makes of a configuration, and what memory it keeps."""

import json
import subprocess

import numpy as np
import psutil
import pytest

from app.serving.triton import EmbeddedTriton
from operators.nnunet.network import INPUT_NAME, open_network
from operators.nnunet.plans import read_configuration
from tests.triton_fixture import REPOSITORY_ROOT, running_triton, triton_python
from tests.unit.operators.nnunet.oracle import demo_package

BACKEND = REPOSITORY_ROOT / "app" / "serving" / "backends" / "onnxruntime"
READS_OPTIONS = """
import json, sys
sys.modules["triton_python_backend_utils"] = sys  # nothing of Triton is needed here
sys.path.insert(0, sys.argv[1])
import model
options = model.session_options(json.loads(sys.argv[2]))
print(json.dumps([
    options.intra_op_num_threads, options.inter_op_num_threads, options.enable_cpu_mem_arena,
    options.enable_mem_pattern, options.enable_mem_reuse, options.execution_mode.name,
    options.graph_optimization_level.name,
]))
"""
LITTLE_BYTES = 8 << 20


def options_of(config: dict[str, object]) -> list[object]:
    """What a configuration makes of ONNX Runtime's options, in Triton's own interpreter."""
    said = subprocess.run(
        [triton_python(), "-c", READS_OPTIONS, BACKEND, json.dumps(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return list(json.loads(said.stdout))


@pytest.mark.parametrize(
    ("parameters", "level", "expected"),
    [
        ({}, None, [0, 0, True, False, True, "ORT_SEQUENTIAL", "ORT_ENABLE_ALL"]),
        (
            {"intra_op_thread_count": "2", "inter_op_thread_count": "3", "execution_mode": "1"},
            "1",
            [2, 3, True, False, True, "ORT_PARALLEL", "ORT_ENABLE_EXTENDED"],
        ),
        (
            {"enable_mem_arena": "0", "enable_mem_pattern": "1", "enable_mem_reuse": "0"},
            "2",
            [0, 0, False, True, False, "ORT_SEQUENTIAL", "ORT_DISABLE_ALL"],
        ),
    ],
)
def test_a_configuration_is_read_as_the_other_backend_reads_it(
    parameters: dict[str, str], level: str | None, expected: list[object]
) -> None:
    config: dict[str, object] = {"parameters": {key: {"string_value": value} for key, value in parameters.items()}}
    if level is not None:
        config["optimization"] = {"graph": {"level": level}}
    assert options_of(config) == expected


def resident(server: EmbeddedTriton) -> int:
    """Bytes of memory that the processes of the models' instances hold."""
    return sum(psutil.Process(pid).memory_info().rss for pid in server.stub_pids())


def test_requests_after_the_first_take_no_more_memory() -> None:
    (network,) = demo_package().networks
    configuration = read_configuration(network)
    tile = np.zeros((1, configuration.channels, *configuration.patch_size), np.float32)
    with (
        running_triton() as server,
        open_network(network, server.target, deadline_seconds=90.0, shared_memory=True) as model,
    ):
        at_the_start = resident(server)
        model.infer({INPUT_NAME: tile})
        after_one = resident(server)
        for _ in range(3):
            model.infer({INPUT_NAME: tile})
        # a network's intermediate results are kept from run to run, and only once
        assert after_one - at_the_start > LITTLE_BYTES
        assert resident(server) - after_one < LITTLE_BYTES
