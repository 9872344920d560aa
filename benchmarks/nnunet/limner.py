"""Limner on one case: with the embedded Triton, or with ONNX Runtime in the process (in the exporter environment).

    python -m benchmarks.nnunet.limner REQUEST

REQUEST is JSON: ``repository`` and ``model`` (its package), ``image`` (``.npy``, z, y, x), ``spacing`` (z, y, x),
``threads``, ``engine`` ("onnxruntime" or "openvino" in the embedded Triton, "in-process", or "replaced" for a cheap
function in the network's place), ``labels`` (where the labels go).
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
from numpy.typing import NDArray

import operators.nnunet.segmentation as segmentation
import operators.nnunet.warm  # noqa: F401 - compiles before anything is measured
from benchmarks.folders import REPOSITORY_ROOT
from benchmarks.nnunet.volumes import cheap_answer
from benchmarks.worker import Clock, Figures, own_output, serve
from operators.model_package import ModelPackage, Network
from operators.nnunet.plans import read_configuration
from operators.nnunet.prediction import Infer, Rows, predict_planes
from operators.nnunet.sliding_window import Blending

_START_SECONDS = 180.0
_DEADLINE_SECONDS = 600.0
Logits = NDArray[np.float32]


class _InProcess:
    """A function from tiles to logits as a network."""

    rows = 1

    def __init__(self, answer: Callable[[NDArray[np.float32]], Logits]) -> None:
        self._answer = answer

    def __call__(self, requests: Iterable[Rows]) -> Iterator[Logits]:
        for rows in requests:
            yield self._answer(np.stack(rows))


class _Clocked:
    """A network whose time counts to the forward pass: not that of cutting its tiles."""

    def __init__(self, infer: Infer, clock: Clock) -> None:
        self._infer, self._clock = infer, clock
        self.rows = infer.rows

    def __call__(self, requests: Iterable[Rows]) -> Iterator[Logits]:
        return self._clock.pulled("forward", self._infer(self._clock.pulled("cutting", requests)))


class Limner:
    """One package and what runs its network."""

    def __init__(self, package: ModelPackage, infer: Infer, spacing: tuple[float, float, float], pids: list[int]):
        self._package, self._infer, self._spacing = package, infer, spacing
        self.pids = pids
        """The processes of its server."""
        self._server = [psutil.Process(pid) for pid in pids]

    def labels(self, image: NDArray[np.float32]) -> tuple[NDArray[Any], Figures]:
        """Return Limner's labels (z, y, x) of one image, and what each stage took."""
        clock = Clock()
        name = self._package.networks[0].name
        before = self._server_seconds()
        with _instrumented(clock), clock.stage("total"):
            labels = segmentation.segment_volume(
                [image], self._spacing, self._package, {name: _Clocked(self._infer, clock)}, lambda *_: None
            )
        server = self._server_seconds() - before
        return labels, {"cpu": _stages(clock.cpu), "wall": _stages(clock.wall), "server_cpu": server}

    def _server_seconds(self) -> float:
        times = [process.cpu_times() for process in self._server]
        return float(sum(one.user + one.system for one in times))


@contextlib.contextmanager
def _instrumented(clock: Clock) -> Iterator[None]:
    """Clocks at the borders of the stages."""
    finished = Blending.finished

    def planes(*arguments: Any) -> Iterator[Any]:
        return clock.pulled("planes", predict_planes(*arguments))

    def finishing(*arguments: Any) -> Iterator[Any]:
        return clock.pulled("finishing", finished(*arguments))

    with contextlib.ExitStack() as stack:
        for name in ("place", "preprocess"):
            timed = clock.timed("preprocessing", getattr(segmentation, name))
            stack.enter_context(mock.patch.object(segmentation, name, timed))
        stack.enter_context(mock.patch.object(segmentation, "predict_planes", planes))
        stack.enter_context(mock.patch.object(Blending, "finished", finishing))
        yield


def _stages(seconds: dict[str, float]) -> dict[str, float]:
    """Tell apart what lies within each other; finishing a plane is the beginning of its labels."""
    forward = seconds["forward"] - seconds["cutting"]
    painting = seconds["total"] - seconds["planes"] - seconds["preprocessing"]
    return {
        "preprocessing": seconds["preprocessing"],
        "forward": forward,
        "blending": seconds["planes"] - forward - seconds["finishing"],
        "to labels": painting + seconds["finishing"],
        "total": seconds["total"],
    }


@contextlib.contextmanager
def opened(request: Figures) -> Iterator[Limner]:
    """What the request asks for, ready to work."""
    package = ModelPackage.load(Path(request["repository"]) / request["model"])
    z, y, x = (float(step) for step in request["spacing"])
    network = package.networks[0]
    match request["engine"]:
        case "replaced":
            heads = network.labels.heads
            yield Limner(package, _InProcess(lambda tiles: cheap_answer(tiles, heads)), (z, y, x), [])
        case "in-process":
            yield Limner(package, _InProcess(_session(package, request["threads"])), (z, y, x), [])
        case engine:
            with _served(package, network, engine, request["threads"]) as (infer, pids):
                yield Limner(package, infer, (z, y, x), pids)


def _session(package: ModelPackage, threads: int) -> Callable[[NDArray[np.float32]], Logits]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False  # as the embedded Triton has it
    path = package.folder / package.networks[0].triton_version / "model.onnx"
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda tiles: session.run(None, {"image": tiles})[0]


@contextlib.contextmanager
def _served(package: ModelPackage, network: Network, engine: str, threads: int) -> Iterator[tuple[Infer, list[int]]]:
    """The network on an embedded Triton of its own, and the numbers of that server's processes."""
    from app.serving.triton import EmbeddedTriton
    from operators.nnunet.network import ServedNetwork, open_network

    with tempfile.TemporaryDirectory(prefix="limner-bench-") as folder:
        repository = Path(folder) / "models"
        _lay_out(repository, package, network, engine, threads)
        server = EmbeddedTriton(
            REPOSITORY_ROOT / ".triton" / "bin" / "python",
            repository,
            Path(folder) / "run",
            start_seconds=_START_SECONDS,
            probe_seconds=_DEADLINE_SECONDS,
        )
        with (
            server,
            open_network(network, server.target, deadline_seconds=_DEADLINE_SECONDS, shared_memory=True) as model,
        ):
            pids = [pid for pid in (server.pid, *server.stub_pids()) if pid is not None]
            yield ServedNetwork(model, read_configuration(network)), pids


def _lay_out(repository: Path, package: ModelPackage, network: Network, engine: str, threads: int) -> None:
    """A model repository of the probe and this network, run by `engine` with so many threads."""
    from app.exporters.triton_config import Served, cpu_config, openvino_config
    from operators.triton import PROBE_MODEL

    folder = repository / network.name
    folder.mkdir(parents=True)
    (repository / PROBE_MODEL).symlink_to(REPOSITORY_ROOT / "triton_models" / PROBE_MODEL)
    (folder / network.triton_version).symlink_to(package.folder.resolve() / network.triton_version)
    patch = read_configuration(network).patch_size
    served = Served(network.name, (1, *patch), (network.labels.heads, *patch), max_batch_size=4, threads=threads)
    text = openvino_config(served) if engine == "openvino" else cpu_config(served)
    (folder / "config.pbtxt").write_text(text, encoding="utf-8")


def main() -> None:
    """Serve the driver."""
    output = own_output()
    request = json.loads(sys.argv[1])
    image = np.load(request["image"]).astype(np.float32)
    with opened(request) as limner:
        if request["engine"] != "replaced":
            limner.labels(image[: image.shape[0] // 3, : image.shape[1] // 3, : image.shape[2] // 3])

        def run(_word: str) -> Figures:
            labels, figures = limner.labels(image)
            np.save(Path(request["labels"]), labels)
            return figures

        serve({"pids": limner.pids}, run, output)


if __name__ == "__main__":
    main()
