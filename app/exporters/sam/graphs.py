"""A network of the SAM family as two ONNX graphs, whose weights lie beside them as the checkpoint holds them.

Runs in the exporter environment.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.exporters.nnunet import OPSET, quiet_exporter
from app.exporters.onnx_graphs import WEIGHTS_FILE
from app.exporters.sam.signatures import DECODER_INPUTS, DECODER_OUTPUTS, ENCODER_INPUTS, ENCODER_OUTPUTS

if TYPE_CHECKING:
    import onnx
    import torch

_ALIGNMENT = 64
_PROMPTS, _POINTS = 2, 3
"""Of what a decoder is traced with: not one, so that no axis looks as if it could be left out."""


@dataclass(frozen=True)
class StoredTensor:
    """Where one of a checkpoint's tensors lies in a graph's weights."""

    name: str
    shape: tuple[int, ...]
    offset: int
    """In bytes; values are single precision, little-endian."""


def write_encoder(network: torch.nn.Module, size: int, target: Path) -> list[StoredTensor]:
    """Write the encoder of images of `size` x `size`, one at a time."""
    import torch

    from app.exporters.sam.modules import Encoder, gather_biases, smaller_steps

    module = Encoder(network).eval()
    gather_biases(module)
    try:
        with smaller_steps(module):
            return _write(module, (torch.zeros(1, 3, size, size),), ENCODER_INPUTS, ENCODER_OUTPUTS, {}, target)
    finally:
        module.eval()


def write_decoder(network: Any, target: Path) -> list[StoredTensor]:
    """Write the decoder: any number of prompts with any number of points."""
    import torch

    from app.exporters.sam.modules import Decoder

    encoder = network.prompt_encoder
    side = encoder.mask_input_size
    example = (
        torch.zeros(1, encoder.embed_dim, *encoder.image_embedding_size),
        torch.zeros(_PROMPTS, _POINTS, 2),
        torch.arange(_PROMPTS * _POINTS, dtype=torch.float32).reshape(_PROMPTS, _POINTS) - 1,
        torch.zeros(_PROMPTS, 1, *side),
        torch.arange(_PROMPTS, dtype=torch.float32),
    )
    axes = {
        "point_coords": {0: "prompts", 1: "points"},
        "point_labels": {0: "prompts", 1: "points"},
        **{name: {0: "prompts"} for name in ("mask_input", "has_mask_input", *DECODER_OUTPUTS)},
    }
    return _write(Decoder(network).eval(), example, DECODER_INPUTS, DECODER_OUTPUTS, axes, target)


def _write(
    module: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    axes: dict[str, dict[int, str]],
    target: Path,
) -> list[StoredTensor]:
    """Trace a module that is ready for inference, and write it.

    Nothing is fused or folded while it is exported, so that the graph's weights are the checkpoint's own tensors; ONNX
    Runtime folds what it finds when it opens the graph.
    """
    import onnx
    import torch

    with tempfile.TemporaryDirectory(prefix="limner-graph-") as scratch:
        traced = Path(scratch) / "model.onnx"
        with quiet_exporter(), torch.inference_mode():
            torch.onnx.export(
                module,
                example,
                str(traced),
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,
                do_constant_folding=False,
                training=torch.onnx.TrainingMode.PRESERVE,
            )
        return write_apart(onnx.load(traced), target)


def write_apart(model: onnx.ModelProto, target: Path) -> list[StoredTensor]:
    """Write a graph without its weights, those into ``model.onnx.data`` beside it, and return where each lies."""
    import onnx

    target.parent.mkdir(parents=True, exist_ok=True)
    stored = []
    with (target.parent / WEIGHTS_FILE).open("wb") as data:
        for tensor in model.graph.initializer:
            if tensor.data_type != onnx.TensorProto.FLOAT:
                continue
            data.write(bytes(-data.tell() % _ALIGNMENT))
            stored.append(StoredTensor(tensor.name, tuple(tensor.dims), data.tell()))
            onnx.external_data_helper.set_external_data(
                tensor, WEIGHTS_FILE, offset=data.tell(), length=len(tensor.raw_data)
            )
            data.write(tensor.raw_data)
            tensor.ClearField("raw_data")
    target.write_bytes(model.SerializeToString(deterministic=True))
    return stored
