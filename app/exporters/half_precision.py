"""A strongly typed graph in half precision, with what half precision can't hold left in single.

Runs in the exporter environment. TensorRT 11 takes precision from the graph alone, so the very graph that an engine is
built from can be judged on the CPU first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from app.exporters.onnx_graphs import write_graph

if TYPE_CHECKING:
    import onnx

KEPT_SINGLE = ("InstanceNormalization",)
"""Its variance is a sum of squares: half precision ends at 65504, which activations of 256 already reach."""


def write_half(source: Path, target: Path, kept_single: Sequence[str] = KEPT_SINGLE) -> None:
    """Write `source` in half precision; its input and output, and the operators `kept_single`, stay as they are."""
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    converted = convert_float_to_float16(
        onnx.load(source), keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *kept_single]
    )
    OnnxModel(converted).topological_sort()  # it puts the casts of inputs at the end, and ONNX wants them first
    write_graph(converted, target)


def write_stored(half: Path, target: Path) -> None:
    """Write a graph in half precision so that ONNX Runtime truly keeps its tensors in half precision on the CPU.

    Its CPU computes in single precision, and leaves out the rounding between two nodes that follow each other; what
    overflows on a GPU would not here. Two copies in a row, which it makes in half precision, keep the rounding (a
    single one it takes into single precision too); the last bears the tensor's name.
    """
    import onnx

    model = onnx.load(half)
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    kinds |= {weights.name: weights.data_type for weights in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        kind = _kind(node, kinds)
        for number, name in enumerate(node.output):
            kinds[name] = kind
            if kind == onnx.TensorProto.FLOAT16:
                node.output[number] = f"{name}/computed"
                nodes.append(onnx.helper.make_node("Identity", [f"{name}/computed"], [f"{name}/stored"]))
                nodes.append(onnx.helper.make_node("Identity", [f"{name}/stored"], [name]))
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    write_graph(model, target)


def _kind(node: onnx.NodeProto, kinds: Mapping[str, int]) -> int:
    """The type of what `node` computes: that of its first input, unless it is there to change it."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to":
            return int(attribute.i)
        if node.op_type == "Constant" and attribute.name == "value":
            return int(attribute.t.data_type)
    return kinds[node.input[0]]
