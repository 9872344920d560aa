"""A generalist's networks as Triton serves them: what they take and give, and how they are asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from operators.errors import InferenceFailed
from operators.sam.contract import Contract
from operators.sam.embeddings import EmbeddingCache
from operators.sam.package import DECODER, ENCODER, GeneralistPackage
from operators.sam.predictor import SlicePredictor, Tensors
from operators.tensors import Signature, TensorSpec
from operators.triton import TritonModel

IMAGE = "image"
"""The encoder's input."""
EMBEDDINGS = "image_embeddings"
"""What every encoder gives."""
_FINER = ("high_res_0", "high_res_1")
"""What SAM 2's encoder gives beside it."""
_MASKS = 4
"""The decoder's answers to one prompt: one for a clear prompt, three at three scales."""
_UPSCALING = 4
"""How much larger than the embedding the decoder's masks are."""
_SINGLE = np.dtype(np.float32)


@dataclass(frozen=True)
class ServedNetworks:
    """All networks of a generalist as the functions that `operators.sam.predictor` and `operators.sam.memory` ask."""

    models: Mapping[str, TritonModel]
    """By their part, as in `operators.sam.package`."""

    def encode(self, image: NDArray[np.float32]) -> Tensors:
        """Return all that the encoder gives for `image`, (1, 3, S, S), by name."""
        return self.infer(ENCODER, {IMAGE: image})

    def decode(self, request: Tensors) -> Tensors:
        """Return the decoder's answer, by name, to what an encoder gave and prompts of one number of points."""
        return self.infer(DECODER, request)

    def infer(self, part: str, inputs: Tensors) -> Tensors:
        """Return what a part gives, by name."""
        return self.models[part].infer(inputs)


@contextmanager
def open_networks(
    package: GeneralistPackage, target: str, *, deadline_seconds: float, shared_memory: bool
) -> Iterator[ServedNetworks]:
    """Hold handles on the package's networks at the Triton at `target`, checked against its contract.

    Parameters
    ----------
    package
        The generalist.
    target
        Triton's gRPC address, ``host:port`` or ``unix:/path``.
    deadline_seconds
        Longest wait for one answer. The encoder's takes longest, or the attention to seven memories.
    shared_memory
        Pass tensors through shared memory where the Triton is on this host.

    Raises
    ------
    InferenceFailed
        ``triton-unreachable``, ``model-missing``; ``model-mismatch`` if a network takes or gives something else than
        the contract says, or another network does not take what the encoder gives.
    """
    with ExitStack() as stack:
        models = {
            part: stack.enter_context(
                TritonModel(
                    target,
                    entry.model,
                    version=entry.triton_version,
                    deadline_seconds=deadline_seconds,
                    shared_memory=shared_memory,
                )
            )
            for part, entry in package.parts.items()
        }
        encoder = models[ENCODER].signature
        _check_encoder(package.parts[ENCODER].model, encoder, package.contract)
        _check_decoder(package.parts[DECODER].model, models[DECODER].signature, encoder, package.contract)
        embedding = {EMBEDDINGS: encoder.outputs[EMBEDDINGS]}
        for part in models.keys() - {ENCODER, DECODER}:
            _check_specs(package.parts[part].model, "input", embedding, models[part].signature.inputs)
        yield ServedNetworks(models)


class Networks(Protocol):
    """What a predictor asks: `ServedNetworks`, or what holds them."""

    def encode(self, image: NDArray[np.float32]) -> Tensors:
        """As `ServedNetworks.encode`."""

    def decode(self, request: Tensors) -> Tensors:
        """As `ServedNetworks.decode`."""

    def infer(self, part: str, inputs: Tensors) -> Tensors:
        """As `ServedNetworks.infer`."""


def served_predictor(package: GeneralistPackage, networks: Networks, cache: EmbeddingCache) -> SlicePredictor:
    """Return what asks a package's networks slice by slice, its embeddings kept in `cache`."""
    return SlicePredictor(
        package.contract,
        networks.encode,
        networks.decode,
        cache,
        encoder_digest=package.parts[ENCODER].weights_digest,
        infer=networks.infer,
    )


def check_served(package: GeneralistPackage, target: str, *, deadline_seconds: float) -> None:
    """Ask the Triton at `target` whether it serves the package's networks as the package says.

    Raises
    ------
    InferenceFailed
        As `open_networks` does.
    """
    with open_networks(package, target, deadline_seconds=deadline_seconds, shared_memory=False):
        pass  # entering it is the check


def decoder_signature(embedding: Mapping[str, TensorSpec], contract: Contract) -> Signature:
    """Return what a served decoder takes and gives at least, for an encoder that gives `embedding`."""
    side = contract.logits.size
    prompts = {
        "point_coords": (-1, -1, 2),
        "point_labels": (-1, -1),
        "mask_input": (-1, 1, side, side),
        "has_mask_input": (-1,),
    }
    answers = {"masks": (-1, _MASKS, side, side), "iou_predictions": (-1, _MASKS)}
    return Signature(
        inputs={**embedding, **{name: TensorSpec(_SINGLE, shape) for name, shape in prompts.items()}},
        outputs={name: TensorSpec(_SINGLE, shape) for name, shape in answers.items()},
    )


def _check_encoder(model: str, served: Signature, contract: Contract) -> None:
    size, side = contract.image.size, contract.logits.size // _UPSCALING
    _check_specs(model, "input", {IMAGE: TensorSpec(_SINGLE, (1, 3, size, size))}, served.inputs)
    expected = {EMBEDDINGS, *(_FINER if contract.family == "sam2" else ())}
    if set(served.outputs) != expected:
        raise _mismatch(model, f"expected the outputs {sorted(expected)}, the server has {sorted(served.outputs)}")
    shape = served.outputs[EMBEDDINGS].shape
    if len(shape) != 4 or shape[0] != 1 or shape[2:] != (side, side):
        raise _mismatch(
            model, f"expected output {EMBEDDINGS} to be [1, C, {side}, {side}], the server has {list(shape)}"
        )


def _check_decoder(model: str, served: Signature, encoder: Signature, contract: Contract) -> None:
    expected = decoder_signature(encoder.outputs, contract)
    _check_specs(model, "input", expected.inputs, served.inputs)
    if set(served.inputs) != set(expected.inputs):
        raise _mismatch(model, f"expected the inputs {sorted(expected.inputs)}, the server has {sorted(served.inputs)}")
    _check_specs(model, "output", expected.outputs, served.outputs)


def _check_specs(model: str, kind: str, expected: Mapping[str, TensorSpec], served: Mapping[str, TensorSpec]) -> None:
    for name, spec in expected.items():
        if served.get(name) != spec:
            raise _mismatch(model, f"expected {kind} {name} to be {spec}, the server has {served.get(name, 'none')}")


def _mismatch(model: str, what: str) -> InferenceFailed:
    return InferenceFailed(f"model {model} is not the one its package describes: {what}", code="model-mismatch")
