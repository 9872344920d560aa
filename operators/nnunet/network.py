"""A network as Triton serves it: what it takes, what it gives, and how tiles become logits."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from operators.model_package import ModelPackage, Network
from operators.nnunet.plans import Configuration, read_configuration
from operators.nnunet.prediction import Rows
from operators.tensors import Signature, TensorSpec
from operators.triton import TritonModel

INPUT_NAME = "image"
"""The network's input in the ONNX file: (n, channel, z, y, x), single precision; without z if it is 2d."""
OUTPUT_NAME = "logits"
"""Its output: (n, head, z, y, x), single precision; without z if it is 2d."""

_MANY, _FEW = 3, 2
"""Requests under way at once: one computed and one waiting for it while a third one's answer is blended."""
_LARGE_BYTES = 64 << 20
"""An answer from which fewer are under way: each holds memory of its own, here and in the server."""
_REQUEST_BYTES = 8 << 20
"""Tiles are put into one request until its answer is about this large; larger ones gain nothing on a CPU."""


def network_signature(configuration: Configuration) -> Signature:
    """Return what a served network of this configuration takes and gives."""
    single = np.dtype(np.float32)
    return Signature(
        inputs={INPUT_NAME: TensorSpec(single, (-1, configuration.channels, *configuration.patch_size))},
        outputs={OUTPUT_NAME: TensorSpec(single, (-1, configuration.labels.heads, *configuration.patch_size))},
    )


def open_network(network: Network, target: str, *, deadline_seconds: float, shared_memory: bool) -> TritonModel:
    """Return a handle on the network at the Triton at `target`; a context manager, which checks it on entry.

    Raises
    ------
    ModelPackageError
        If the network's configuration is not supported.
    """
    return TritonModel(
        target,
        network.name,
        version=network.triton_version,
        deadline_seconds=deadline_seconds,
        shared_memory=shared_memory,
        signature=network_signature(read_configuration(network)),
    )


def check_served(package: ModelPackage, target: str, *, deadline_seconds: float) -> None:
    """Ask the Triton at `target` whether it serves the package's networks as the package says.

    Raises
    ------
    InferenceFailed
        ``triton-unreachable`` or ``deadline`` if it does not answer, ``model-missing`` or ``model-mismatch`` if it
        serves no such model, or another.
    ModelPackageError
        If a network's configuration is not supported.
    """
    for network in package.all_networks:
        with open_network(network, target, deadline_seconds=deadline_seconds, shared_memory=False):
            pass  # entering it is the check


class ServedNetwork:
    """The served model as a `prediction.Infer`."""

    def __init__(self, model: TritonModel, configuration: Configuration) -> None:
        self._model = model
        answer_bytes = 4 * configuration.labels.heads * math.prod(configuration.patch_size)
        self._in_flight = _MANY if answer_bytes < _LARGE_BYTES else _FEW
        self.rows = max(1, min(_REQUEST_BYTES // answer_bytes, model.longest_batch))
        """Tiles in one request."""

    def __call__(self, requests: Iterable[Rows]) -> Iterator[NDArray[np.float32]]:
        """Yield the logits of each request, in their order; each valid until the next is asked for."""
        answers = self._model.stream(({INPUT_NAME: rows} for rows in requests), in_flight=self._in_flight)
        with contextlib.closing(answers):  # whatever ends this early calls off what is under way
            for answer in answers:
                yield answer[OUTPUT_NAME]
