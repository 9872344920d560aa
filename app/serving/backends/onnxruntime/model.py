"""ONNX Runtime as a python-based backend of Triton, in the place of the C++ backend of the same name.

The embedded Triton has no C++ backend for ONNX. This file, at ``<backend-directory>/onnxruntime/model.py``, makes it
serve a repository whose ``config.pbtxt`` says ``backend: "onnxruntime"``: the repository that production serves with
the C++ backend. The keys of that backend are read where they mean something on a CPU: the ``parameters``
``intra_op_thread_count``, ``inter_op_thread_count``, ``execution_mode`` and ``enable_mem_arena``, and
``optimization { graph { level } }``. Accelerators are passed over.

It runs in Triton's own environment (Python 3.10 to 3.12, numpy below 2) and imports nothing of this project.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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


class TritonPythonModel:
    """One instance of one version of a model; Triton calls its methods by name."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the ONNX file. ``args`` is Triton's: the configuration as JSON, and where the version lies."""
        config = json.loads(args["model_config"])
        if args["model_instance_kind"] not in ("CPU", "AUTO"):
            raise pb_utils.TritonModelException("the embedded Triton serves on the CPU: use KIND_CPU or KIND_AUTO")
        filename = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / filename
        self._session = ort.InferenceSession(str(path), session_options(config), providers=["CPUExecutionProvider"])
        self._inputs = [tensor.name for tensor in self._session.get_inputs()]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        self._is_batched = config["max_batch_size"] > 0
        pb_utils.Logger.log_info(f"onnxruntime {ort.__version__} serves {args['model_name']} on the CPU")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests Triton gathered: as one batch where they fit together, else one by one."""
        feeds = [self._feed(request) for request in requests]
        if self._is_batched and len(requests) > 1 and _fit_together(feeds):
            try:
                answers = self._run_batch(feeds)
            except Exception:  # noqa: BLE001 - one bad request must not fail its neighbours
                pb_utils.Logger.log_warn("a batch failed; its requests are answered one by one")
            else:
                return [self._response(request, answer) for request, answer in zip(requests, answers, strict=True)]
        return [self._respond_alone(request, feed) for request, feed in zip(requests, feeds, strict=True)]

    def finalize(self) -> None:
        """Let go of the session when the model is unloaded."""
        del self._session

    def _feed(self, request: Any) -> Arrays:
        tensors = {name: pb_utils.get_input_tensor_by_name(request, name) for name in self._inputs}
        return {name: tensor.as_numpy() for name, tensor in tensors.items() if tensor is not None}

    def _run(self, feed: Arrays) -> Arrays:
        return dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))

    def _run_batch(self, feeds: Sequence[Arrays]) -> list[Arrays]:
        sizes = [len(next(iter(feed.values()))) for feed in feeds]
        merged = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
        cuts = np.cumsum(sizes)[:-1]
        parts = {name: np.split(array, cuts) for name, array in self._run(merged).items()}
        return [{name: part[index] for name, part in parts.items()} for index in range(len(feeds))]

    def _respond_alone(self, request: Any, feed: Arrays) -> Any:
        try:
            return self._response(request, self._run(feed))
        except Exception as error:  # noqa: BLE001 - whatever fails here belongs to this request alone
            return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(f"onnxruntime: {error}"))

    def _response(self, request: Any, answer: Arrays) -> Any:
        wanted = request.requested_output_names()
        return pb_utils.InferenceResponse(
            output_tensors=[pb_utils.Tensor(name, array) for name, array in answer.items() if name in wanted]
        )


def session_options(config: Mapping[str, Any]) -> ort.SessionOptions:
    """Return what the configuration asks of ONNX Runtime."""
    parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", "0"))
    options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", "0"))
    options.enable_cpu_mem_arena = parameters.get("enable_mem_arena", "1") != "0"
    if parameters.get("execution_mode", "0") == "1":
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    level = config.get("optimization", {}).get("graph", {}).get("level")
    if level is not None and int(level) in _GRAPH_LEVELS:
        options.graph_optimization_level = _GRAPH_LEVELS[int(level)]
    return options


def _fit_together(feeds: Sequence[Arrays]) -> bool:
    """Whether all requests bring the same inputs, alike but for the batch axis."""
    shapes = [{name: (array.shape[1:], array.dtype) for name, array in feed.items()} for feed in feeds]
    return all(shape == shapes[0] for shape in shapes)
