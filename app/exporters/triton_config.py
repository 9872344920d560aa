"""The text of a network's ``config.pbtxt``, and of the ``configs/*.pbtxt`` that serve it with other means.

It is written by hand, and not by Triton's protobuf, because the exporter environment has no Triton client; a test
reads every kind of it with that protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.exporters.nnunet import INPUT_NAME, OUTPUT_NAME
from operators.tensors import Signature

_ENGINE_CACHE = "/var/cache/limner/tensorrt"
_WORKSPACE_BYTES = 4 << 30
ENGINE_FILE = "model.plan"
OPENVINO = "openvino"
"""The one accelerator that the embedded Triton has."""


@dataclass(frozen=True)
class Served:
    """What Triton is told of a network."""

    model: str
    input_shape: tuple[int, ...]
    """(channel, …patch)."""
    output_shape: tuple[int, ...]
    """(class, …patch)."""
    max_batch_size: int
    """Patches in one request, at most."""
    threads: int
    """Of one instance on the CPU; 0 for as many as there are cores."""


def cpu_config(served: Served) -> str:
    """Return ``config.pbtxt``: ONNX Runtime on the CPU."""
    return (
        _head(served, "onnxruntime")
        + _instances("KIND_CPU")
        + _parameters({"intra_op_thread_count": str(served.threads)})
    )


def openvino_config(served: Served) -> str:
    """Return ``configs/openvino.pbtxt``: ONNX Runtime on the CPU with OpenVINO as its accelerator."""
    return cpu_config(served) + _accelerators("cpu_execution_accelerator", OPENVINO, {})


def gpu_config(served: Served) -> str:
    """Return ``configs/gpu.pbtxt``: ONNX Runtime on a GPU with TensorRT as its accelerator, in single precision.

    Precision belongs into the graph (TensorRT 11 knows no other way), and this graph is the one whose digest the
    manifest holds; half precision is a model of its own, made and judged by `limner models build-engine`.
    """
    shape = "x".join(str(size) for size in served.input_shape)
    profiles = {
        f"trt_profile_{which}_shapes": f"{INPUT_NAME}:{batch}x{shape}"
        for which, batch in (("min", 1), ("opt", served.max_batch_size), ("max", served.max_batch_size))
    }
    options = {
        "precision_mode": "FP32",
        "max_workspace_size_bytes": str(_WORKSPACE_BYTES),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": _ENGINE_CACHE,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": _ENGINE_CACHE,
        **profiles,
    }
    return (
        _head(served, "onnxruntime")
        + _instances("KIND_GPU")
        + _accelerators("gpu_execution_accelerator", "tensorrt", options)
        + _warm_up(served)
    )


def engine_config(served: Served) -> str:
    """Return ``configs/tensorrt.pbtxt``: an engine that was built before."""
    return (
        _head(served, "tensorrt")
        + f"default_model_filename: {_quoted(ENGINE_FILE)}\n"
        + _instances("KIND_GPU")
        + _warm_up(served)
    )


def unbatched_config(model: str, signature: Signature, threads: int) -> str:
    """Return ``config.pbtxt`` of a network that is asked one request at a time: ONNX Runtime on the CPU.

    Without a plan of its memory, which ONNX Runtime makes in the first run and then reserves beside what that run took,
    and without keeping intermediate results for later ones of their size: LiteMedSAM's encoder holds less than half as
    much so, SAM's ViT-B 1.8 GB in place of 3.2, in the same time.
    """
    return (
        _unbatched_head(model, signature)
        + _instances("KIND_CPU")
        + _parameters({"intra_op_thread_count": str(threads), "enable_mem_pattern": "0", "enable_mem_reuse": "0"})
    )


def unbatched_openvino_config(model: str, signature: Signature, threads: int) -> str:
    """Return ``configs/openvino.pbtxt`` of such a network."""
    return unbatched_config(model, signature, threads) + _accelerators("cpu_execution_accelerator", OPENVINO, {})


def unbatched_gpu_config(model: str, signature: Signature) -> str:
    """Return ``configs/gpu.pbtxt`` of such a network: ONNX Runtime on a GPU, in single precision.

    Without TensorRT: it builds an engine anew for each number of prompts and points beyond those that it was told.
    """
    return _unbatched_head(model, signature) + _instances("KIND_GPU")


def _unbatched_head(model: str, signature: Signature) -> str:
    shapes = [{name: spec.shape for name, spec in one.items()} for one in (signature.inputs, signature.outputs)]
    return _header(model, "onnxruntime", 0, *shapes)


def _head(served: Served, backend: str) -> str:
    return _header(
        served.model,
        backend,
        served.max_batch_size,
        {INPUT_NAME: served.input_shape},
        {OUTPUT_NAME: served.output_shape},
    )


def _header(
    model: str,
    backend: str,
    max_batch_size: int,
    inputs: Mapping[str, Sequence[int]],
    outputs: Mapping[str, Sequence[int]],
) -> str:
    return (
        f"name: {_quoted(model)}\n"
        f"backend: {_quoted(backend)}\n"
        f"max_batch_size: {max_batch_size}\n"
        f"{_tensors('input', inputs)}"
        f"{_tensors('output', outputs)}"
        "version_policy {\n  latest {\n    num_versions: 1\n  }\n}\n"
    )


def _tensors(kind: str, shapes: Mapping[str, Sequence[int]]) -> str:
    listed = ",\n".join(
        f"  {{\n    name: {_quoted(name)}\n    data_type: TYPE_FP32\n    dims: [ {dimensions} ]\n  }}"
        for name, shape in shapes.items()
        for dimensions in (", ".join(str(size) for size in shape),)
    )
    return f"{kind} [\n{listed}\n]\n"


def _instances(kind: str) -> str:
    return f"instance_group [\n  {{\n    count: 1\n    kind: {kind}\n  }}\n]\n"


def _parameters(values: Mapping[str, str]) -> str:
    return "".join(
        f"parameters {{\n  key: {_quoted(key)}\n  value {{\n    string_value: {_quoted(value)}\n  }}\n}}\n"
        for key, value in values.items()
    )


def _accelerators(where: str, name: str, options: Mapping[str, str]) -> str:
    lines = "".join(
        f"        parameters {{ key: {_quoted(key)} value: {_quoted(value)} }}\n" for key, value in options.items()
    )
    return (
        f"optimization {{\n  execution_accelerators {{\n    {where} [\n      {{\n        name: {_quoted(name)}\n"
        f"{lines}      }}\n    ]\n  }}\n}}\n"
    )


def _warm_up(served: Served) -> str:
    """Engines are made and loaded before the first study, not by it."""
    dimensions = ", ".join(str(size) for size in served.input_shape)
    return (
        'model_warmup [\n  {\n    name: "one patch"\n    batch_size: 1\n    inputs {\n'
        f"      key: {_quoted(INPUT_NAME)}\n"
        f"      value {{\n        data_type: TYPE_FP32\n        dims: [ {dimensions} ]\n"
        "        zero_data: true\n      }\n"
        "    }\n  }\n]\n"
    )


def _quoted(text: str) -> str:
    if not text.isprintable() or '"' in text or "\\" in text:
        raise ValueError(f"{text!r} can't stand in a configuration of Triton")
    return f'"{text}"'
