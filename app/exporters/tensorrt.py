"""TensorRT engines, built on the GPU that will serve them, from a graph that was judged first.

Runs in the exporter environment.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from app.errors import ImportRefused
from app.exporters.gate import Heads, judge_derived
from app.exporters.half_precision import write_half, write_stored
from app.exporters.nnunet import INPUT_NAME
from app.exporters.parity import Scale, fixed_volumes
from app.exporters.triton_config import ENGINE_FILE, Served, engine_config
from operators.model_folder import file_digest
from operators.model_package import channel_names

Precision = Literal["fp32", "fp16"]

_TIMING_CACHE = "timing.cache"


def build_engine(folder: Path, *, precision: Precision, progress: Callable[[str], None]) -> dict[str, Any]:
    """Build ``model.plan`` beside the newest ``model.onnx`` in the Triton model `folder`, and a configuration for it.

    In half precision the graph is derived first and judged on the CPU: an engine is only built from a graph that keeps
    the limits. The engine itself is judged as served, by who asked for it.

    Raises
    ------
    ImportRefused
        ``parity-refused`` if half precision costs too much, ``tensorrt-missing`` if there is no TensorRT or no GPU,
        ``engine-failed`` if TensorRT can't build it.
    """
    version = max((path for path in folder.glob("*/model.onnx")), key=lambda path: int(path.parent.name)).parent
    graph = version / "model.onnx"
    served = served_network(folder)
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="limner-engine-") as scratch:
        if precision == "fp16":
            progress("the graph is derived in half precision and compared with the one in single precision")
            graph = Path(scratch) / "model.onnx"
            write_half(version / "model.onnx", graph)
            stored = Path(scratch) / "stored" / "model.onnx"
            write_stored(graph, stored)
            figures = judge_half(folder, version / "model.onnx", stored, served)
        _check_tensorrt()
        progress("TensorRT builds the engine; that takes minutes")
        plan = _build(graph, served, folder / "configs" / _TIMING_CACHE)
    (version / ENGINE_FILE).write_bytes(plan)
    (folder / "configs" / "tensorrt.pbtxt").write_text(engine_config(served), encoding="utf-8")
    return {"precision": precision, "sha256": file_digest(version / ENGINE_FILE), "half_precision_graph": figures}


def judge_half(folder: Path, graph: Path, half: Path, served: Served) -> list[dict[str, Any]]:
    """Compare a graph that keeps its tensors in half precision with the one it was made from; return the figures.

    Raises
    ------
    ImportRefused
        ``parity-refused``, naming the class and the layer.
    """
    dataset = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    heads = Heads.of(dataset, len(channel_names(dataset)))
    volumes = fixed_volumes(scales_of(folder, served.input_shape[0]), served.input_shape[1:])
    return judge_derived(f"{folder.name} in half precision", graph, half, volumes, heads).as_json()


def scales_of(folder: Path, channels: int) -> tuple[Scale, ...]:
    """Return the scales at which the network in `folder` was judged when it was imported."""
    for path in (folder / "manifest.json", *sorted(folder.parent.glob("*/manifest.json"))):
        if path.is_file():
            manifest: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            known = manifest.get("parity", {}).get("networks", {}).get(folder.name)
            if known is not None:
                return tuple(Scale(**one) for one in known["scales"])
    return tuple([Scale(-3, 3, -3, 3)] * channels)


def served_network(folder: Path) -> Served:
    """Return what Triton is told of the network in `folder`, from its graph."""
    import onnx

    version = max((path for path in folder.glob("*/model.onnx")), key=lambda path: int(path.parent.name))
    graph = onnx.load(version, load_external_data=False).graph
    shapes = [
        tuple(axis.dim_value for axis in tensor.type.tensor_type.shape.dim[1:])
        for tensor in (graph.input[0], graph.output[0])
    ]
    return Served(folder.name, shapes[0], shapes[1], max_batch_size=_max_batch_size(folder), threads=0)


def _max_batch_size(folder: Path) -> int:
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    line = next((line for line in text.splitlines() if line.strip().startswith("max_batch_size:")), "max_batch_size: 1")
    return max(int(line.partition(":")[2]), 1)


def _check_tensorrt() -> None:
    if importlib.util.find_spec("tensorrt") is None:
        raise ImportRefused(
            "TensorRT is not installed in the exporter environment; on the machine with the GPU that will serve, "
            "install the tensorrt package of the version that its Triton holds, and run this there",
            code="tensorrt-missing",
        )
    import tensorrt

    try:
        tensorrt.Builder(tensorrt.Logger(tensorrt.Logger.ERROR))
    except (TypeError, RuntimeError) as error:  # it makes no builder where it finds no driver
        raise ImportRefused(
            "TensorRT finds no GPU here; an engine fits the GPU it was built on: run this on the one that will serve",
            code="tensorrt-missing",
        ) from error


def _build(graph: Path, served: Served, timing_cache: Path) -> bytes:
    """Return the serialised engine: strongly typed, for batches of 1 to the largest."""
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    # from TensorRT 11 on every network is strongly typed, and the flag may be gone
    flag = getattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        faults = "; ".join(str(parser.get_error(number)) for number in range(parser.num_errors))
        raise ImportRefused(f"TensorRT can't read the graph: {faults}", code="engine-failed")
    config = builder.create_builder_config()
    # the default lets single precision be rounded to 10 bits of mantissa; the limits are set for single precision
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    sizes = (1, served.max_batch_size, served.max_batch_size)
    profile.set_shape(INPUT_NAME, *((size, *served.input_shape) for size in sizes))
    config.add_optimization_profile(profile)
    cache = config.create_timing_cache(timing_cache.read_bytes() if timing_cache.is_file() else b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ImportRefused("TensorRT could not build the engine; its log is above", code="engine-failed")
    timing_cache.parent.mkdir(exist_ok=True)
    timing_cache.write_bytes(bytes(config.get_timing_cache().serialize()))
    return bytes(plan)
