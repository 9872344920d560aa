"""The embedded Triton and the handle on it, on the real server."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from app.errors import ServingError
from app.serving.triton import EmbeddedTriton
from app.serving.triton_folder import TritonFolder
from app.serving.triton_process import TritonParts, TritonProcess
from operators.errors import InferenceFailed
from operators.nnunet.network import INPUT_NAME, OUTPUT_NAME, network_signature
from operators.nnunet.plans import read_configuration
from operators.shared_memory import REGION_PREFIX, SHARED_MEMORY_FOLDER, remove_stale_regions
from operators.tensors import Signature, TensorSpec
from operators.triton import PROBE_MODEL, TritonModel, probe
from tests.triton_fixture import MODEL_REPOSITORY, REPOSITORY_ROOT, START_SECONDS, running_triton, triton_python
from tests.unit.operators.nnunet.oracle import demo_package

SINGLE = np.dtype(np.float32)
PATIENCE_SECONDS = 90.0


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedTriton]:
    """One server for all tests that leave it as it was, or wait until it is whole again."""
    with running_triton(probe_seconds=0.5) as triton:
        yield triton


def handle(server: EmbeddedTriton, **changes: Any) -> TritonModel:
    (network,) = demo_package().networks
    arguments: dict[str, Any] = {
        "version": network.triton_version,
        "deadline_seconds": PATIENCE_SECONDS,
        "shared_memory": True,
        "signature": network_signature(read_configuration(network)),
    }
    return TritonModel(server.target, changes.pop("model", network.name), **{**arguments, **changes})


def probe_handle(target: str, **changes: Any) -> TritonModel:
    arguments = {"version": "1", "deadline_seconds": PATIENCE_SECONDS, "shared_memory": False, **changes}
    return TritonModel(target, PROBE_MODEL, **arguments)


def until(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def own_regions() -> list[str]:
    return [path.name for path in SHARED_MEMORY_FOLDER.glob(f"{REGION_PREFIX}{os.getpid()}_*")]


# --- the server ---


def test_it_computes_and_opens_no_tcp_port(server: EmbeddedTriton) -> None:
    assert server.is_alive()
    probe(server.target, deadline_seconds=PATIENCE_SECONDS)
    assert server.pid is not None
    processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    assert [process.net_connections("inet") for process in processes] == [[]] * len(processes)


def test_it_says_how_many_rows_one_request_may_hold(server: EmbeddedTriton) -> None:
    with handle(server) as network, probe_handle(server.target) as adder:
        assert network.longest_batch == 4
        assert adder.longest_batch == 1  # it takes no batches


def test_only_this_user_can_reach_it(server: EmbeddedTriton) -> None:
    path = Path(server.target.removeprefix("unix:"))
    assert path.is_socket()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))


def test_a_killed_server_comes_back_at_the_same_address(server: EmbeddedTriton) -> None:
    target, restarts, pid = server.target, server.restarts, server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: server.restarts > restarts)
    server.wait_ready(PATIENCE_SECONDS)
    assert server.target == target
    probe(target, deadline_seconds=PATIENCE_SECONDS)
    assert server.is_alive()


def test_a_killed_model_process_is_noticed_and_replaced(server: EmbeddedTriton) -> None:
    restarts, stubs = server.restarts, server.stub_pids()
    models = list(MODEL_REPOSITORY.glob("*/config.pbtxt"))  # LiteMedSAM's two, where it was put there
    assert len(stubs) == len(models) >= 2, "one process an instance: the probe's, and each network's"
    for stub in stubs:
        os.kill(stub, signal.SIGKILL)
    until(lambda: server.restarts > restarts)
    server.wait_ready(PATIENCE_SECONDS)
    with handle(server) as model:
        assert model.infer({INPUT_NAME: patch()})[OUTPUT_NAME].shape == (1, 3, 16, 128, 128)


def test_a_hung_server_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.serving.triton._PROBE_DEADLINE_SECONDS", 1.0)
    with running_triton(probe_seconds=0.2) as triton:
        pid = triton.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        until(lambda: triton.restarts > 0)
        triton.wait_ready(PATIENCE_SECONDS)
        assert triton.pid != pid
        assert not psutil.pid_exists(pid)


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """The run folder's path is longer than a socket's may be, so the socket goes elsewhere."""
    folder = tmp_path / ("long-" * 20)
    triton = EmbeddedTriton(triton_python(), MODEL_REPOSITORY, folder, start_seconds=START_SECONDS, probe_seconds=5.0)
    with triton:
        private = Path(triton.target.removeprefix("unix:")).parent
        assert private.stat().st_mode & 0o777 == 0o700
        assert triton.pid is not None
        children = psutil.Process(triton.pid).children(recursive=True)
        assert list(SHARED_MEMORY_FOLDER.glob(f"limner_triton_{os.getpid()}_*"))
        with pytest.raises(ServingError, match="running already"):
            triton.start()
    assert [path.name for path in folder.iterdir()] == ["triton.log"]
    assert not private.exists()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    assert not triton.is_alive()
    with pytest.raises(ServingError, match="not started"):
        _ = triton.target


STARTS_AND_IS_KILLED = """
import os, signal, sys
from pathlib import Path
from app.serving.triton import EmbeddedTriton
triton = EmbeddedTriton(
    Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), start_seconds=180, probe_seconds=5
)
triton.start()
print(triton.pid, os.path.dirname(triton.target.removeprefix("unix:")), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("path", ["run", "long-" * 20], ids=["short", "too long for a socket"])
def test_it_ends_with_a_killed_limner_and_the_next_start_cleans_up(path: str) -> None:
    with tempfile.TemporaryDirectory(prefix="limner-test-") as short:
        folder = Path(short, path)
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", STARTS_AND_IS_KILLED, triton_python(), MODEL_REPOSITORY, folder],
            capture_output=True,
            text=True,
            cwd=REPOSITORY_ROOT,
            timeout=240,
            check=False,
        )
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        pid, socket_folder = ended.stdout.split()
        until(lambda: not psutil.pid_exists(int(pid)))
        assert Path(socket_folder).is_dir()
        assert Path(socket_folder).is_relative_to(folder) == (path == "run")
        triton = EmbeddedTriton(
            triton_python(), MODEL_REPOSITORY, folder, start_seconds=START_SECONDS, probe_seconds=5.0
        )
        with triton:
            assert not Path(socket_folder).exists()
            assert len(list(folder.glob("triton-*-*"))) == 1
        assert [left.name for left in folder.iterdir()] == ["triton.log"]


# --- a server that can't start says why ---


def test_a_broken_model_is_named(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    (repository / "broken" / "1").mkdir(parents=True)
    (repository / PROBE_MODEL).symlink_to(MODEL_REPOSITORY / PROBE_MODEL)
    (repository / "broken" / "1" / "model.onnx").write_bytes(b"not ONNX")
    (repository / "broken" / "config.pbtxt").write_text(
        (MODEL_REPOSITORY / PROBE_MODEL / "config.pbtxt").read_text().replace(PROBE_MODEL, "broken")
    )
    triton = EmbeddedTriton(
        triton_python(), repository, tmp_path / "run", start_seconds=START_SECONDS, probe_seconds=5.0
    )
    with pytest.raises(ServingError, match="broken") as caught:
        triton.start()
    assert caught.value.code == "triton-start"
    assert not list((tmp_path / "run").glob("triton-*-*"))


def test_a_repository_without_the_probe_is_refused(tmp_path: Path) -> None:
    triton = EmbeddedTriton(triton_python(), tmp_path, tmp_path, start_seconds=1.0, probe_seconds=1.0)
    with pytest.raises(ServingError, match=PROBE_MODEL) as caught:
        triton.start()
    assert caught.value.code == "triton-repository"


def test_a_missing_interpreter_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="can't be run") as caught:
        TritonParts.find(tmp_path / "python")
    assert caught.value.code == "triton-environment"


def test_an_environment_without_the_server_is_said_to_be_so(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare")
    with pytest.raises(ServingError, match="nvidia-pytriton is not installed") as caught:
        TritonParts.find(tmp_path / "bare" / "bin" / "python")
    assert caught.value.code == "triton-environment"


def test_numpy_2_is_refused_clearly(tmp_path: Path) -> None:
    """A package that says it is numpy 2 stands before the real one on the interpreter's path."""
    fake = tmp_path / "packages" / "numpy"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("__version__ = '2.4.6'\n")
    (tmp_path / "packages" / "onnxruntime.py").write_text("")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "packages"} exec {triton_python()} "$@"\n')
    python.chmod(0o700)
    with pytest.raises(ServingError, match="needs numpy<2") as caught:
        TritonParts.find(python)
    assert caught.value.code == "triton-environment"
    backend = REPOSITORY_ROOT / "app" / "serving" / "backends" / "onnxruntime" / "model.py"
    (tmp_path / "packages" / "triton_python_backend_utils.py").write_text("")
    (tmp_path / "packages" / "onnxruntime.py").write_text("")
    (fake / "typing.py").write_text("NDArray = list\n")
    loaded = subprocess.run([python, backend], capture_output=True, text=True, timeout=60, check=False)
    assert loaded.returncode != 0
    assert "needs numpy<2, found numpy 2.4.6" in loaded.stderr


# --- the handle ---


def patch(seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((1, 1, 16, 128, 128), dtype=np.float32)


def test_both_ways_give_the_same_bits(server: EmbeddedTriton) -> None:
    with handle(server) as shared, handle(server, shared_memory=False) as sent:
        first = shared.infer({INPUT_NAME: patch()})[OUTPUT_NAME]
        assert len(own_regions()) == 2
        again = shared.infer({INPUT_NAME: patch(1)})[OUTPUT_NAME]
        assert len(own_regions()) == 2, "regions are reused"
        np.testing.assert_array_equal(first, sent.infer({INPUT_NAME: patch()})[OUTPUT_NAME])
        assert first.dtype == SINGLE
        assert not np.array_equal(first, again), "an answer is the caller's own, not a view of the region"
    assert own_regions() == []


def test_a_larger_batch_gets_larger_regions(server: EmbeddedTriton) -> None:
    both = np.concatenate([patch(), patch(1)])
    with handle(server) as model:
        alone = [model.infer({INPUT_NAME: one})[OUTPUT_NAME] for one in (both[:1], both[1:])]
        together = model.infer({INPUT_NAME: both})[OUTPUT_NAME]
        assert len(own_regions()) == 2
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-4)


def test_regions_are_private(server: EmbeddedTriton) -> None:
    with probe_handle(server.target, shared_memory=True) as model:
        answer = model.infer({"numbers": np.arange(4, dtype=SINGLE)})
        np.testing.assert_array_equal(answer["numbers_plus_one"], [1, 2, 3, 4])
        modes = [(SHARED_MEMORY_FOLDER / name).stat().st_mode & 0o777 for name in own_regions()]
        assert modes == [0o600, 0o600]


def test_where_shared_memory_can_not_be_had_tensors_go_through_grpc(
    server: EmbeddedTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a Triton on another host: it does not see the region it is told of."""
    monkeypatch.setattr("operators.shared_memory.SHARED_MEMORY_FOLDER", tmp_path)
    with probe_handle(server.target, shared_memory=True) as model:
        for _ in range(2):
            answer = model.infer({"numbers": np.arange(4, dtype=SINGLE)})
            np.testing.assert_array_equal(answer["numbers_plus_one"], [1, 2, 3, 4])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({"image": TensorSpec(SINGLE, (-1, 2, 16, 128, 128))}, {"logits": TensorSpec(SINGLE, (-1, 3, 16, 128, 128))}),
        ({"image": TensorSpec(SINGLE, (-1, 1, 16, 128, 128))}, {"logits": TensorSpec(SINGLE, (-1, 4, 16, 128, 128))}),
        ({"image": TensorSpec(np.dtype("f8"), (-1, 1, 16, 128, 128))}, {}),
        ({"x": TensorSpec(SINGLE, (-1, 1, 16, 128, 128))}, {"logits": TensorSpec(SINGLE, (-1, 3, 16, 128, 128))}),
    ],
)
def test_another_model_than_expected_is_refused_at_the_start(
    server: EmbeddedTriton, inputs: dict[str, TensorSpec], outputs: dict[str, TensorSpec]
) -> None:
    with (
        pytest.raises(InferenceFailed, match="expected") as caught,
        handle(server, signature=Signature(inputs, outputs)),
    ):
        pass
    assert caught.value.code == "model-mismatch"


@pytest.mark.parametrize("changes", [{"model": "absent"}, {"version": "7"}])
def test_a_model_that_is_not_served_is_said_to_be_so(server: EmbeddedTriton, changes: dict[str, str]) -> None:
    with pytest.raises(InferenceFailed, match="does not serve") as caught, handle(server, **changes):
        pass
    assert caught.value.code == "model-missing"


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"x": np.zeros(4, np.float32)},
        {"numbers": np.zeros(4, np.float64)},
        {"numbers": np.zeros(5, np.float32)},
        {"numbers": np.zeros((1, 4), np.float32)},
    ],
)
def test_an_array_that_does_not_fit_is_not_sent(server: EmbeddedTriton, inputs: dict[str, Any]) -> None:
    with probe_handle(server.target) as model, pytest.raises(InferenceFailed) as caught:
        model.infer(inputs)
    assert caught.value.code == "model-mismatch"


def test_an_answer_that_takes_too_long_ends_at_the_deadline(server: EmbeddedTriton) -> None:
    started = time.monotonic()
    with handle(server, deadline_seconds=0.01) as model, pytest.raises(InferenceFailed) as caught:
        model.infer({INPUT_NAME: patch()})
    assert caught.value.code == "deadline"
    assert caught.value.retryable
    assert time.monotonic() - started < 30
    assert own_regions() == []


def test_a_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operators.triton._CONNECT_SECONDS", 0.5)
    target = f"unix:{tmp_path / 'nobody'}"
    with pytest.raises(InferenceFailed) as caught, probe_handle(target):
        pass
    assert caught.value.code == "triton-unreachable"
    with pytest.raises(InferenceFailed) as caught:
        probe(target, deadline_seconds=5.0)
    assert caught.value.code == "triton-unreachable"


@pytest.fixture
def triton_folder(tmp_path: Path) -> Iterator[TritonFolder]:
    folder = TritonFolder.make(tmp_path)
    yield folder
    folder.remove()


def test_a_server_that_is_just_starting_is_waited_for(triton_folder: TritonFolder, tmp_path: Path) -> None:
    parts = TritonParts.find(triton_python())
    parts.lay_out_backends(triton_folder.backends)
    processes: list[TritonProcess] = []
    begun, done = threading.Event(), threading.Event()

    def start_late() -> None:
        begun.wait()
        time.sleep(0.5)
        processes.append(
            TritonProcess(parts, MODEL_REPOSITORY, triton_folder, tmp_path / "log", f"limner_test_{os.getpid()}_")
        )
        done.wait()
        processes[0].end(in_order=True)

    thread = threading.Thread(target=start_late)
    thread.start()
    try:
        begun.set()
        with probe_handle(triton_folder.target) as model:
            model.infer({"numbers": np.zeros(4, SINGLE)})
    finally:
        done.set()
        thread.join()


def test_a_lost_model_process_is_told_apart_and_may_be_tried_again(triton_folder: TritonFolder, tmp_path: Path) -> None:
    """Without a supervisor the server would answer so for ever."""
    parts = TritonParts.find(triton_python())
    parts.lay_out_backends(triton_folder.backends)
    process = TritonProcess(parts, MODEL_REPOSITORY, triton_folder, tmp_path / "log", f"limner_test_{os.getpid()}_")
    try:
        with probe_handle(triton_folder.target) as model:
            process.remember_stubs()
            assert not process.has_lost_stub()
            for stub in process.stub_pids():
                os.kill(stub, signal.SIGKILL)
            until(process.has_lost_stub)
            with pytest.raises(InferenceFailed, match="lost the process") as caught:
                model.infer({"numbers": np.zeros(4, SINGLE)})
            assert caught.value.code == "model-process-died"
            assert caught.value.retryable
    finally:
        process.end(in_order=False)
    assert not list(SHARED_MEMORY_FOLDER.glob(f"limner_test_{os.getpid()}_*"))


LEAVES_A_REGION = """
import os, signal, sys
import numpy as np
from operators.triton import TritonModel
model = TritonModel(sys.argv[1], "limner_probe", version="1", deadline_seconds=60, shared_memory=True).__enter__()
model.infer({"numbers": np.zeros(4, np.float32)})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_regions_of_a_killed_client_are_removed(server: EmbeddedTriton) -> None:
    client = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", LEAVES_A_REGION, server.target], cwd=REPOSITORY_ROOT
    )
    assert client.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    until(lambda: not list(SHARED_MEMORY_FOLDER.glob(f"{REGION_PREFIX}{client.pid}_*")))


def test_the_regions_of_the_living_are_left_alone(server: EmbeddedTriton) -> None:
    with probe_handle(server.target, shared_memory=True) as model:
        model.infer({"numbers": np.zeros(4, SINGLE)})
        remove_stale_regions()
        assert len(own_regions()) == 2
