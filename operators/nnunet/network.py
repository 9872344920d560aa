"""The network as Triton serves it: what it takes, what it gives, and how tiles become logits."""

from __future__ import annotations

import numpy as np

from operators.model_package import ModelPackage
from operators.nnunet.plans import Configuration, read_configuration
from operators.nnunet.sliding_window import Infer
from operators.tensors import Signature, TensorSpec
from operators.triton import TritonModel

INPUT_NAME = "image"
"""The network's input in the ONNX file: (n, channel, z, y, x), single precision."""
OUTPUT_NAME = "logits"
"""Its output: (n, class, z, y, x), single precision."""


def network_signature(configuration: Configuration) -> Signature:
    """Return what a served network of this configuration takes and gives."""
    single = np.dtype(np.float32)
    return Signature(
        inputs={INPUT_NAME: TensorSpec(single, (-1, 1, *configuration.patch_size))},
        outputs={OUTPUT_NAME: TensorSpec(single, (-1, configuration.classes, *configuration.patch_size))},
    )


def check_served(package: ModelPackage, target: str, *, deadline_seconds: float) -> None:
    """Ask the Triton at `target` whether it serves the package's network as the package says.

    Raises
    ------
    InferenceFailed
        ``triton-unreachable`` or ``deadline`` if it does not answer, ``model-missing`` or ``model-mismatch`` if it
        serves no such model, or another.
    ModelPackageError
        If the package's configuration is not supported.
    """
    with TritonModel(
        target,
        package.name,
        version=package.triton_version,
        deadline_seconds=deadline_seconds,
        shared_memory=False,
        signature=network_signature(read_configuration(package)),
    ):
        pass  # entering it is the check


def network(model: TritonModel) -> Infer:
    """Return the served model as a function from tiles to logits."""
    return lambda tiles: model.infer({INPUT_NAME: tiles})[OUTPUT_NAME]
