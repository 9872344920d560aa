"""Planted faults: what computes something else than torch is refused, and the refusal says where they part."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from app.errors import ImportRefused
from app.exporters.gate import Heads, judge_derived, judge_fold, judge_graph, torch_logits
from app.exporters.half_precision import write_half, write_stored
from app.exporters.nnunet import Fold, load_fold, write_onnx
from app.exporters.onnx_graphs import join_folds
from app.exporters.parity import Array, Comparison, Scale, fixed_volumes
from app.exporters.trained import find_training
from tests.oracle.conftest import make

SCALE = Scale(-3, 3, -1000, 1000)
CLIPPED = Scale(-3, 3, -3, 3)


@dataclasses.dataclass
class Made:
    """A network, its graph, and what torch says of the fixed volumes."""

    fold: Fold
    graph: Path
    volumes: Mapping[str, Array]
    expected: Mapping[str, Array]
    heads: Heads

    def judge(self) -> Comparison:
        return judge_fold("fold 0 of tiny", self.fold.network, self.graph, self.volumes, self.expected, self.heads)

    def refusal(self) -> str:
        with pytest.raises(ImportRefused) as caught:
            self.judge()
        assert caught.value.code == "parity-refused"
        return str(caught.value)


def export(kind: str, folder: Path) -> Made:
    training = find_training(make(kind, folder))
    fold = load_fold(training, training.checkpoints[0])
    return traced(fold, training.dataset, folder)


def traced(fold: Fold, dataset: Mapping[str, object], folder: Path, scale: Scale = SCALE) -> Made:
    graph = folder / "model.onnx"
    write_onnx(fold.network, (1, fold.channels, *fold.patch), graph)
    volumes = fixed_volumes([scale] * fold.channels, fold.patch)
    expected = {name: torch_logits(fold.network, volume) for name, volume in volumes.items()}
    return Made(fold, graph, volumes, expected, Heads.of(dataset, fold.channels))


@pytest.fixture
def plain(tmp_path: Path) -> Made:
    return export("plain", tmp_path)


def test_the_graph_as_it_was_exported_passes(plain: Made) -> None:
    figures = plain.judge().figures()
    assert [one.name for one in figures] == ["background", "liver", "spleen"]
    assert all(one.relative_error < 1e-4 and one.agreement > 0.9999 and one.finite for one in figures)


@pytest.mark.parametrize(
    ("weight", "kind", "place"),
    [
        ("encoder.stages.1.0.convs.0.conv.weight", "Conv", "encoder.stages.1.0.convs.0.conv"),
        ("decoder.transpconvs.0.weight", "ConvTranspose", "decoder.transpconvs.0"),
        ("decoder.stages.0.convs.0.norm.weight", "InstanceNormalization", "decoder.stages.0.convs.0.norm"),
    ],
)
def test_one_perturbed_weight_is_found_where_it_is(weight: str, kind: str, place: str, plain: Made) -> None:
    model = onnx.load(plain.graph)
    stored = next(one for one in model.graph.initializer if one.name == weight)
    values = numpy_helper.to_array(stored).copy()
    values.flat[0] += 0.5
    stored.CopyFrom(numpy_helper.from_array(values, weight))
    onnx.save(model, plain.graph)
    said = plain.refusal()
    assert f"first part at {kind}, {place} " in said
    assert any(f"class {name}:" in said for name in plain.heads.classes)
    assert "nothing is published" in said


def test_the_last_layers_bias_names_the_class(plain: Made) -> None:
    model = onnx.load(plain.graph)
    stored = next(one for one in model.graph.initializer if one.name == "decoder.seg_layers.1.bias")
    stored.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(stored) + np.array([0, 0, 2], np.float32), stored.name)
    )
    onnx.save(model, plain.graph)
    said = plain.refusal()
    assert "class spleen: a logit is off by 2" in said
    assert "Conv, decoder.seg_layers.1 " in said


@pytest.mark.parametrize(("kind", "order"), [("two_channels", (1, 0))])
def test_swapped_inputs_are_named_as_such(kind: str, order: tuple[int, ...], tmp_path: Path) -> None:
    made = export(kind, tmp_path)
    model = onnx.load(made.graph)
    first = next(one for one in model.graph.initializer if one.name == "encoder.stages.0.0.convs.0.conv.weight")
    first.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(first)[:, list(order)].copy(), first.name))
    onnx.save(model, made.graph)
    said = made.refusal()
    assert "the inputs look swapped: in the order 1, 0 of its channels both agree" in said
    assert "Conv, encoder.stages.0.0.convs.0.conv " in said


def test_a_graph_of_one_batch_size_is_refused(plain: Made) -> None:
    model = onnx.load(plain.graph)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, plain.graph)
    with pytest.raises(ImportRefused) as caught:
        judge_graph("tiny", plain.graph, plain.volumes, plain.expected, plain.heads)
    assert caught.value.code == "graph-unusable"


def test_folds_that_are_joined_wrongly_are_refused(plain: Made, tmp_path: Path) -> None:
    joined = tmp_path / "joined.onnx"
    join_folds([plain.graph, plain.graph], joined)
    judge_graph("tiny", joined, plain.volumes, plain.expected, plain.heads)
    model = onnx.load(joined)
    model.graph.node[-1].op_type = "Sum"
    onnx.save(model, joined)
    with pytest.raises(ImportRefused, match="part where folds or batches are joined") as caught:
        judge_graph("tiny", joined, plain.volumes, plain.expected, plain.heads)
    assert caught.value.code == "parity-refused"


# --- half precision


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Fold:
    """A network that tells three intensities apart: one with random weights decides everything by a hair."""
    made = export("plain", tmp_path_factory.mktemp("taught"))
    network, patch = made.fold.network, made.fold.patch
    optimiser, generator = torch.optim.Adam(network.parameters(), 1e-2), np.random.default_rng(1)
    for _ in range(60):
        volume = torch.from_numpy(fixed_volumes([SCALE], patch, seed=int(generator.integers(1 << 30)))["blobs"][None])
        labels = (volume[:, 0] > -1).long() + (volume[:, 0] > 1).long()
        loss = torch.nn.functional.cross_entropy(network(volume), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return made.fold


def loud(taught: Fold, folder: Path, factor: float) -> Made:
    """The taught network with large activations before one normalisation, which makes up for them."""
    fold = dataclasses.replace(taught, network=copy.deepcopy(taught.network))
    with torch.no_grad():
        dict(fold.network.named_parameters())["encoder.stages.0.0.convs.0.conv.weight"].mul_(factor)
    return traced(fold, {"labels": {"background": 0, "liver": 1, "spleen": 2}}, folder / "loud", CLIPPED)


def judge_half(made: Made, graph: Path, tmp_path: Path) -> Comparison:
    half, stored = tmp_path / "half.onnx", tmp_path / "stored.onnx"
    write_half(graph, half)
    write_stored(half, stored)
    return judge_derived("tiny in half precision", made.graph, stored, made.volumes, made.heads)


def with_norms_in_primitives(graph: Path, target: Path) -> None:
    """As an engine may carry out an InstanceNormalization that was not kept: its variance is a mean of squares."""
    model = onnx.load(graph)
    shapes = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    nodes = []
    for number, node in enumerate(model.graph.node):
        if node.op_type != "InstanceNormalization":
            nodes.append(node)
            continue
        source, weight, bias = node.input
        rank = len(shapes[source].type.tensor_type.shape.dim)
        axes, name = list(range(2, rank)), f"norm{number}"
        shape = numpy_helper.from_array(np.array([1, -1, *[1] * (rank - 2)], np.int64), f"{name}/shape")
        epsilon = numpy_helper.from_array(np.array(1e-5, np.float32), f"{name}/epsilon")
        model.graph.initializer.extend([shape, epsilon])
        for operator, inputs, output, extra in (
            ("ReduceMean", [source], "mean", {"axes": axes}),
            ("Sub", [source, f"{name}/mean"], "away", {}),
            ("Mul", [f"{name}/away", f"{name}/away"], "squares", {}),
            ("ReduceMean", [f"{name}/squares"], "variance", {"axes": axes}),
            ("Add", [f"{name}/variance", f"{name}/epsilon"], "safe", {}),
            ("Sqrt", [f"{name}/safe"], "deviation", {}),
            ("Div", [f"{name}/away", f"{name}/deviation"], "normal", {}),
            ("Reshape", [weight, f"{name}/shape"], "weight", {}),
            ("Reshape", [bias, f"{name}/shape"], "bias", {}),
            ("Mul", [f"{name}/normal", f"{name}/weight"], "scaled", {}),
        ):
            nodes.append(helper.make_node(operator, inputs, [f"{name}/{output}"], **extra))
        nodes.append(helper.make_node("Add", [f"{name}/scaled", f"{name}/bias"], [node.output[0]]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, target)


def test_half_precision_with_normalisation_kept_in_single_passes(taught: Fold, tmp_path: Path) -> None:
    made = loud(taught, tmp_path, 300)
    half = tmp_path / "half.onnx"
    figures = judge_half(made, made.graph, tmp_path).figures()
    assert all(one.finite and one.agreement >= 0.999 and one.dice >= 0.999 for one in figures)
    assert any(one.relative_error > 1e-4 for one in figures)  # it is half precision
    norms = [node for node in onnx.load(half).graph.node if node.op_type == "InstanceNormalization"]
    weights = {one.name: one.data_type for one in onnx.load(half).graph.initializer}
    assert norms
    assert any(kind == onnx.TensorProto.FLOAT16 for kind in weights.values())
    assert all(weights.get(node.input[1], onnx.TensorProto.FLOAT) == onnx.TensorProto.FLOAT for node in norms)


def test_a_normalisation_that_overflows_in_half_precision_is_named(taught: Fold, tmp_path: Path) -> None:
    made = loud(taught, tmp_path, 300)
    primitive = tmp_path / "primitive.onnx"
    with_norms_in_primitives(made.graph, primitive)
    with pytest.raises(ImportRefused) as caught:
        judge_half(made, primitive, tmp_path)
    assert caught.value.code == "parity-refused"
    assert "first part at InstanceNormalization, " in str(caught.value)
    assert "encoder.stages.0" in str(caught.value)


def test_a_convolution_that_overflows_in_half_precision_is_named(taught: Fold, tmp_path: Path) -> None:
    made = loud(taught, tmp_path, 1e6)
    with pytest.raises(ImportRefused) as caught:
        judge_half(made, made.graph, tmp_path)
    assert "a logit is not a finite number" in str(caught.value)
    assert "first part at Conv, " in str(caught.value)
    assert "encoder.stages.0" in str(caught.value)
