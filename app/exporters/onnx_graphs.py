"""ONNX graphs of networks: run, joined to the mean of their logits, written beside their weights where those are large,
and opened up so that the outputs of their layers can be seen. Runs in the exporter environment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.errors import ImportRefused
from app.exporters.nnunet import INPUT_NAME, OUTPUT_NAME

if TYPE_CHECKING:
    import onnx
    import onnxruntime

WEIGHTS_FILE = "model.onnx.data"
MOST_BYTES_IN_GRAPH = 1_800_000_000
"""Protobuf ends at 2 GiB; beyond this, weights lie in a file of their own."""
LAYER_KINDS = ("Conv", "ConvTranspose", "InstanceNormalization", "LeakyRelu", "AveragePool")
"""The operators that planned networks are made of, but for sums and concatenations."""


@dataclass(frozen=True)
class Layer:
    """One layer of a graph."""

    kind: str
    """Its ONNX operator."""
    name: str
    """The node's name, which follows the module's path."""
    output: str
    """The tensor it writes."""


def join_folds(folds: Sequence[Path], target: Path) -> None:
    """Write one graph whose logits are the mean of those of the `folds`, which all see the same image.

    This is how nnU-Net itself combines folds: it averages logits, before any softmax.
    """
    import onnx

    models = [
        onnx.compose.add_prefix(onnx.load(path), f"fold{number}/", rename_inputs=False)
        for number, path in enumerate(folds)
    ]
    first = models[0]
    ends = [model.graph.output[0].name for model in models]
    logits = onnx.ValueInfoProto()
    logits.CopyFrom(first.graph.output[0])
    logits.name = OUTPUT_NAME
    graph = onnx.helper.make_graph(
        [
            *(node for model in models for node in model.graph.node),
            onnx.helper.make_node("Mean", ends, [OUTPUT_NAME], name="mean_of_folds"),
        ],
        "folds",
        [first.graph.input[0]],
        [logits],
        [weights for model in models for weights in model.graph.initializer],
    )
    joined = onnx.helper.make_model(graph, opset_imports=first.opset_import, ir_version=first.ir_version)
    write_graph(joined, target)


def write_graph(model: onnx.ModelProto, target: Path, most_bytes: int = MOST_BYTES_IN_GRAPH) -> None:
    """Write `model`; if it is larger than `most_bytes`, its weights into ``model.onnx.data`` beside it."""
    import onnx

    target.parent.mkdir(parents=True, exist_ok=True)
    size = sum(len(weights.raw_data) for weights in model.graph.initializer)
    if size <= most_bytes:
        onnx.save(model, target)
        return
    onnx.save(model, target, save_as_external_data=True, all_tensors_to_one_file=True, location=WEIGHTS_FILE)


def open_session(graph: Path | bytes, *, as_written: bool = False) -> onnxruntime.InferenceSession:
    """Return a session on the CPU.

    Parameters
    ----------
    as_written
        Run every node as it stands in the graph: nothing is fused, left out or moved.

    Raises
    ------
    ImportRefused
        ``graph-unusable`` if ONNX Runtime can't run such a graph.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = graph if isinstance(graph, bytes) else str(graph)
    with _failures_named():
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits of a batch (n, channel, …), the graph's one output.

    Raises
    ------
    ImportRefused
        ``graph-unusable`` if the graph does not take it.
    """
    logits: NDArray[np.float32] = ask(session, {INPUT_NAME: batch})[OUTPUT_NAME]
    return logits


def ask(session: onnxruntime.InferenceSession, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, Any]:
    """Return all outputs by name.

    Raises
    ------
    ImportRefused
        ``graph-unusable`` if the graph does not take the inputs.
    """
    names = [output.name for output in session.get_outputs()]
    with _failures_named():
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))


@contextmanager
def _failures_named() -> Iterator[None]:
    import onnxruntime.capi.onnxruntime_pybind11_state as failures

    try:
        yield
    except (
        failures.Fail,
        failures.InvalidArgument,
        failures.InvalidGraph,
        failures.NotImplemented,
        failures.RuntimeException,
    ) as error:
        raise ImportRefused(f"ONNX Runtime can't run the graph: {error}", code="graph-unusable") from error


def layers(graph: Path) -> list[Layer]:
    """Return the layers of a graph in the order in which they run."""
    import onnx

    nodes = onnx.load(graph, load_external_data=False).graph.node
    return [Layer(node.op_type, node.name, node.output[0]) for node in nodes if node.op_type in LAYER_KINDS]


def layer_outputs(
    graph: Path, names: Sequence[str], batch: NDArray[np.float32], *, as_written: bool = False
) -> dict[str, NDArray[Any]]:
    """Return what the tensors called `names` hold for a batch; those that the graph lacks are left out."""
    model, shown = opened(graph, names)
    session = open_session(model.SerializeToString(), as_written=as_written)
    return dict(zip(shown, session.run(shown, {INPUT_NAME: batch}) if shown else (), strict=True))


def opened(graph: Path, names: Sequence[str]) -> tuple[onnx.ModelProto, list[str]]:
    """Return a graph with the tensors called `names` among its outputs, and those names that it has."""
    import onnx

    model = onnx.load(graph)
    made = {output for node in model.graph.node for output in node.output}
    shown = [name for name in names if name in made]
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in shown if name not in known)
    return model, shown
