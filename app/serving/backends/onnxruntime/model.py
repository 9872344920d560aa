"""ONNX Runtime as a python-based backend of Triton, in the place of the C++ backend of the same name.

The embedded Triton has no C++ backend for ONNX. This file, at ``<backend-directory>/onnxruntime/model.py``, makes it
serve a repository whose ``config.pbtxt`` says ``backend: "onnxruntime"``: the repository that production serves with
the C++ backend. The keys of that backend are read where they mean something on a CPU: the ``parameters``
``intra_op_thread_count``, ``inter_op_thread_count``, ``execution_mode``, ``enable_mem_arena`` and
``enable_mem_pattern`` (off here unless it is asked for), and ``optimization { graph { level } }``; beside them
``enable_mem_reuse``, which that backend does not know and passes over. Of the accelerators ``openvino`` is honoured:
OpenVINO then runs the same ONNX file. Those for GPUs are passed over. A request whose client has gone or given up is
not computed.

It runs in Triton's own environment (Python 3.10 to 3.12, numpy below 2) and imports nothing of this project.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

if int(np.__version__.partition(".")[0]) >= 2:
    # the server reads arrays as numpy 1 lays them out: under numpy 2 inputs come as zeros and outputs as nothing,
    # without an error
    raise RuntimeError(f"this Triton's python backend needs numpy<2, found numpy {np.__version__}")

Arrays = dict[str, NDArray[Any]]

_GRAPH_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
"""The C++ backend's meaning of ``optimization.graph.level``; any other value optimises fully."""
_ACCELERATOR = "openvino"


class Network(Protocol):
    """An opened ONNX file."""

    inputs: list[str]
    """What it takes."""

    def run(self, outputs: Sequence[str], feed: Arrays, *, keep: bool) -> list[NDArray[Any]]:
        """Return the named outputs for `feed`: arrays of their own if `keep`, else valid until the next run."""


class OnnxRuntimeNetwork:
    """An ONNX file opened by ONNX Runtime on the CPU."""

    def __init__(self, path: Path, options: ort.SessionOptions) -> None:
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = [tensor.name for tensor in self._session.get_inputs()]

    def run(self, outputs: Sequence[str], feed: Arrays, *, keep: bool) -> list[NDArray[Any]]:  # noqa: ARG002
        """Return the named outputs for `feed`; they are always arrays of their own."""
        return list(self._session.run(outputs, feed))


class TritonPythonModel:
    """One instance of one version of a model; Triton calls its methods by name."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the ONNX file. ``args`` is Triton's: the configuration as JSON, and where the version lies."""
        config = json.loads(args["model_config"])
        if args["model_instance_kind"] not in ("CPU", "AUTO"):
            raise pb_utils.TritonModelException("the embedded Triton serves on the CPU: use KIND_CPU or KIND_AUTO")
        filename = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / filename
        self._network, version = open_network(path, config)
        self._outputs = [tensor["name"] for tensor in config["output"]]
        self._is_batched = config["max_batch_size"] > 0
        pb_utils.Logger.log_info(f"{version} serves {args['model_name']} on the CPU")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests Triton gathered: as one batch where they fit together, else one by one."""
        if self._is_batched and len(requests) > 1:
            responses = self._respond_together(requests)
            if responses is not None:
                return responses
        return [self._respond_alone(request, keep=len(requests) > 1) for request in requests]

    def finalize(self) -> None:
        """Let go of the session when the model is unloaded."""
        del self._network

    def _feed(self, request: Any) -> Arrays:
        tensors = {name: pb_utils.get_input_tensor_by_name(request, name) for name in self._network.inputs}
        return {name: tensor.as_numpy() for name, tensor in tensors.items() if tensor is not None}

    def _run(self, feed: Arrays, *, keep: bool) -> Arrays:
        return dict(zip(self._outputs, self._network.run(self._outputs, feed, keep=keep), strict=True))

    def _respond_together(self, requests: Sequence[Any]) -> list[Any] | None:
        """Answer all as one batch; None if they don't fit together, or the batch failed."""
        feeds = {index: self._feed(one) for index, one in enumerate(requests) if not one.is_cancelled()}
        if not _fit_together(list(feeds.values())):
            return None
        try:
            answers = dict(zip(feeds, self._run_batch(list(feeds.values())), strict=True))
        except Exception:  # noqa: BLE001 - one bad request must not fail its neighbours
            pb_utils.Logger.log_warn("a batch failed; its requests are answered one by one")
            return None
        return [
            self._response(request, answers[index]) if index in answers else _cancelled()
            for index, request in enumerate(requests)
        ]

    def _run_batch(self, feeds: Sequence[Arrays]) -> list[Arrays]:
        sizes = [len(next(iter(feed.values()))) for feed in feeds]
        merged = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
        cuts = np.cumsum(sizes)[:-1]
        parts = {name: np.split(array, cuts) for name, array in self._run(merged, keep=False).items()}
        return [{name: part[index] for name, part in parts.items()} for index in range(len(feeds))]

    def _respond_alone(self, request: Any, *, keep: bool) -> Any:
        if request.is_cancelled():
            return _cancelled()
        try:
            return self._response(request, self._run(self._feed(request), keep=keep))
        except Exception as error:  # noqa: BLE001 - whatever fails here belongs to this request alone
            return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(f"onnxruntime: {error}"))

    def _response(self, request: Any, answer: Arrays) -> Any:
        wanted = request.requested_output_names()
        return pb_utils.InferenceResponse(
            output_tensors=[pb_utils.Tensor(name, array) for name, array in answer.items() if name in wanted]
        )


def open_network(path: Path, config: Mapping[str, Any]) -> tuple[Network, str]:
    """Open the ONNX file as the configuration asks, and say what runs it."""
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    names = [accelerator["name"] for accelerator in accelerators.get("cpu_execution_accelerator", [])]
    if set(names) - {_ACCELERATOR}:
        raise pb_utils.TritonModelException(f"expected the CPU accelerator {_ACCELERATOR} or none, got {names}")
    if accelerators.get("gpu_execution_accelerator"):
        pb_utils.Logger.log_info("accelerators for GPUs are passed over")
    if not names:
        return OnnxRuntimeNetwork(path, session_options(config)), f"onnxruntime {ort.__version__}"
    try:
        from openvino_network import OpenVinoNetwork
    except ImportError as error:
        raise pb_utils.TritonModelException(
            f"the configuration asks for {_ACCELERATOR}, which can't be imported ({error}); install the package "
            f"{_ACCELERATOR} into Triton's environment: requirements/triton.txt has it"
        ) from error
    threads = int(_parameters(config).get("intra_op_thread_count", "0"))
    return OpenVinoNetwork(path, threads), OpenVinoNetwork.version()


def _parameters(config: Mapping[str, Any]) -> dict[str, str]:
    return {key: value["string_value"] for key, value in config.get("parameters", {}).items()}


def session_options(config: Mapping[str, Any]) -> ort.SessionOptions:
    """Return what the configuration asks of ONNX Runtime."""
    parameters = _parameters(config)
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", "0"))
    options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", "0"))
    options.enable_cpu_mem_arena = parameters.get("enable_mem_arena", "1") != "0"
    # planned from a first run, the second one takes all its memory anew, beside the arena that has it already: twice
    # the memory for good, and seconds to fault it in, while the runs themselves take as long as without
    options.enable_mem_pattern = parameters.get("enable_mem_pattern", "0") == "1"
    # a result that is to be used again for a later one of its size is held until then; a transformer holds many so
    options.enable_mem_reuse = parameters.get("enable_mem_reuse", "1") != "0"
    if parameters.get("execution_mode", "0") == "1":
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    level = config.get("optimization", {}).get("graph", {}).get("level")
    if level is not None and int(level) in _GRAPH_LEVELS:
        options.graph_optimization_level = _GRAPH_LEVELS[int(level)]
    return options


def _fit_together(feeds: Sequence[Arrays]) -> bool:
    """Whether there are requests, and all bring the same inputs, alike but for the batch axis."""
    shapes = [{name: (array.shape[1:], array.dtype) for name, array in feed.items()} for feed in feeds]
    return bool(shapes) and all(shape == shapes[0] for shape in shapes)


def _cancelled() -> Any:
    error = pb_utils.TritonError("nobody waits for it any more", pb_utils.TritonError.CANCELLED)
    return pb_utils.InferenceResponse(output_tensors=[], error=error)
