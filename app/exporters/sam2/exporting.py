"""Writes the four graphs of a network of SAM 2, each found to compute what the reference does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.exporters.nnunet import OPSET, quiet_exporter
from app.exporters.sam2.networks import build_network, load_weights
from operators.sam.contract import read_contract
from operators.sam.package import DECODER, ENCODER, MEMORY_ATTENTION, MEMORY_ENCODER
from operators.tensors import Signature, TensorSpec

if TYPE_CHECKING:
    import torch

    from app.exporters.sam2.gate import Case

_Shapes = Mapping[str, tuple[int, ...]]
_ANY = -1


@dataclass(frozen=True)
class Exported:
    """A network as graphs on disk, found to compute what the reference does."""

    contract: Mapping[str, Any]
    """For the manifest, with the numbers that belong to these weights."""
    signatures: Mapping[str, Signature]
    """By part, what each graph takes and gives."""
    figures: Mapping[str, list[dict[str, Any]]]
    """How each part fared, torch against ONNX Runtime."""


def export_network(
    architecture: Mapping[str, Any],
    contract: Mapping[str, Any],
    weights: Mapping[str, torch.Tensor],
    where: str,
    target: Callable[[str], Path],
    keep: Callable[[Case], None] = lambda _case: None,
) -> Exported:
    """Build a variant's network, put its weights in, and write and judge its graphs.

    Parameters
    ----------
    architecture, contract
        Of a variant's file; the contract with its licence.
    weights
        The checkpoint's ``model``.
    where
        How a refusal calls the checkpoint.
    target
        The file of each part's graph.
    keep
        Told each request to a part and the reference's answer, for a comparison with what is served.

    Raises
    ------
    ImportRefused
        ``architecture-unsupported`` if the weights are not the variant's, ``parity-refused`` if a graph strays.
    """
    from app.exporters.sam2.gate import judge_graphs

    network: Any = build_network(architecture)
    load_weights(network, weights, where)
    filled = {**contract, "memory": {**contract["memory"], "mask_prompt": mask_prompt_of(network)}}
    signatures = write_graphs(network, target)
    figures = judge_graphs(network, read_contract(filled), {part: target(part) for part in signatures}, keep)
    return Exported(filled, signatures, {part: [asdict(one) for one in judged] for part, judged in figures.items()})


def signatures_of(network: Any) -> dict[str, Signature]:
    """Return what each part of a network takes and gives, as `operators.sam.package` has it."""
    size, width, memory = int(network.image_size), int(network.hidden_dim), int(network.mem_dim)
    side, mask = size // 16, size // 4
    embeddings = {"image_embeddings": (1, width, side, side)}
    features = {
        **embeddings,
        "high_res_0": (1, width // 8, mask, mask),
        "high_res_1": (1, width // 4, mask // 2, mask // 2),
    }
    prompts = {
        "point_coords": (_ANY, _ANY, 2),
        "point_labels": (_ANY, _ANY),
        "mask_input": (_ANY, 1, mask, mask),
        "has_mask_input": (_ANY,),
    }
    answers = {
        "masks": (_ANY, 4, mask, mask),
        "iou_predictions": (_ANY, 4),
        "object_pointers": (_ANY, 4, width),
        "object_score_logits": (_ANY, 1),
    }
    found = {"masks": (_ANY, 1, mask, mask), "object_score_logits": (_ANY, 1), "is_prompted": (_ANY,)}
    memories = {"memories": (_ANY, side * side, memory)}
    # a first axis of any length is one for all inputs of a request, and these two are not
    recalled = {
        "memories": (1, _ANY, side * side, memory),
        "memory_steps": (1, _ANY),
        "pointers": (1, _ANY, width),
        "pointer_distances": (1, _ANY),
    }
    return {
        ENCODER: _signature({"image": (1, 3, size, size)}, features),
        DECODER: _signature({**features, **prompts}, answers),
        MEMORY_ENCODER: _signature({**embeddings, **found}, memories),
        MEMORY_ATTENTION: _signature({**embeddings, **recalled}, {"conditioned_embeddings": (1, width, side, side)}),
    }


def _signature(inputs: _Shapes, outputs: _Shapes) -> Signature:
    single = np.dtype(np.float32)
    return Signature(
        {name: TensorSpec(single, shape) for name, shape in inputs.items()},
        {name: TensorSpec(single, shape) for name, shape in outputs.items()},
    )


def mask_prompt_of(network: Any) -> dict[str, Any]:
    """Return what the contract's ``memory`` needs under ``mask_prompt``: numbers of the trained network."""
    shrink = network.mask_downsample
    return {
        "kernel": shrink.weight[0, 0].tolist(),
        "bias": shrink.bias.item(),
        "no_memory": network.no_mem_embed.flatten().tolist(),
    }


def write_graphs(network: Any, target: Callable[[str], Path], opset: int = OPSET) -> dict[str, Signature]:
    """Write each part's graph to the file that `target` names, and return what they take and give."""
    from app.exporters.sam2.graphs import Decoder, Encoder
    from app.exporters.sam2.memory_graphs import MemoryAttention, MemoryEncoder

    modules: dict[str, Callable[[Any], torch.nn.Module]] = {
        ENCODER: Encoder,
        DECODER: Decoder,
        MEMORY_ENCODER: MemoryEncoder,
        MEMORY_ATTENTION: MemoryAttention,
    }
    signatures = signatures_of(network)
    for part, module in modules.items():
        _write(module(network).eval(), signatures[part], target(part), opset)
    return signatures


def _write(module: torch.nn.Module, signature: Signature, target: Path, opset: int) -> None:
    import torch

    target.parent.mkdir(parents=True, exist_ok=True)
    shapes = {name: spec.shape for name, spec in {**signature.inputs, **signature.outputs}.items()}
    with quiet_exporter(), attention_by_pieces(), torch.no_grad():
        torch.onnx.export(
            module,
            tuple(_example(name, spec) for name, spec in signature.inputs.items()),
            str(target),
            input_names=list(signature.inputs),
            output_names=list(signature.outputs),
            dynamic_axes={
                name: {axis: f"{name}_{axis}" for axis, side in enumerate(shape) if side == _ANY}
                for name, shape in shapes.items()
                if _ANY in shape
            },
            opset_version=opset,
            dynamo=False,
        )


def _example(name: str, spec: TensorSpec) -> torch.Tensor:
    """What a graph is traced with: two of each thing that there may be any number of."""
    import torch

    values = torch.zeros([2 if side == _ANY else side for side in spec.shape])
    return values + 1 if name == "memory_steps" else values


@contextmanager
def attention_by_pieces() -> Iterator[None]:
    """Let the reference's encoder compute its attention as `app.exporters.sam2.graphs` does, while it is traced."""
    from torch.nn import functional

    from app.exporters.sam2.graphs import attention

    whole = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = whole
