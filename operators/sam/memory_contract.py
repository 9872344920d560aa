"""What the variants with a memory want for following an object through slices: the contract's ``memory``, as data.

::

    "memory": {
      "resampling": "pillow-bicubic",      how slices are brought to the encoder's size when they are followed
      "memories": 7,                       slices that are remembered: the prompted ones count as one, the last as six
      "pointers": 16,                      slices whose object pointers are looked at, most
      "several": [0, 1],                   from how many to how many points the best of three masks is taken
      "stability": {"delta": 0.05, "threshold": 0.98},     else the single one, unless it is unstable
      "mask_prompt": {"kernel": [[…]], "bias": 0.1, "no_memory": […]},     weights, put in by the exporter
      "components": "all"                  what is kept of a structure in the end; or its "largest" component (MedSAM2)
    }

``components`` may be missing, as in manifests that are older than it: it is ``all`` then.

The training's other switches (how a mask is scaled for the memory, which encodings are added, what stands for an
object that is not there) are in the exported graphs, where they are constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from operators.sam.contract import Contract, ImageContract, Resampling, one_of

Kept = Literal["all", "largest"]


@dataclass(frozen=True)
class Stability:
    """When the single mask is trusted: where it hardly grows as its threshold moves."""

    delta: float
    """Logits around the threshold."""
    threshold: float
    """Of the two areas' ratio; below it the best of three masks is taken."""


@dataclass(frozen=True)
class MaskPrompt:
    """How a mask that is shown becomes what the decoder takes: weights of the trained network."""

    kernel: NDArray[np.float32]
    """(step, step), laid on the mask at the encoder's size side by side."""
    bias: float
    no_memory: NDArray[np.float32]
    """(C,), part of ``image_embeddings`` that stands for having no memory; a mask's pointer is made without it."""


@dataclass(frozen=True)
class MemoryContract:
    """The whole of it."""

    resampling: Resampling
    memories: int
    pointers: int
    several: tuple[int, int]
    stability: Stability
    mask_prompt: MaskPrompt
    components: Kept


def read_memory_contract(content: Mapping[str, Any]) -> MemoryContract:
    """Return what the contract's ``memory`` says.

    Raises
    ------
    KeyError, TypeError, ValueError
        If a key is missing or its value is not what it must be; the message names it.
    """
    fewest, most = (int(count) for count in content["several"])
    stability, prompt = content["stability"], content["mask_prompt"]
    kernel = np.asarray(prompt["kernel"], np.float32)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f"memory.mask_prompt.kernel must be a square of numbers, not of shape {kernel.shape}")
    return MemoryContract(
        resampling=one_of("memory.resampling", content["resampling"], Resampling),
        memories=_count("memory.memories", content["memories"]),
        pointers=_count("memory.pointers", content["pointers"]),
        several=(fewest, most),
        stability=Stability(float(stability["delta"]), float(stability["threshold"])),
        mask_prompt=MaskPrompt(kernel, float(prompt["bias"]), np.asarray(prompt["no_memory"], np.float32)),
        components=one_of("memory.components", content.get("components", "all"), Kept),
    )


def followed_image(contract: Contract) -> ImageContract:
    """Return how slices become what the encoder sees where an object is followed through them.

    Raises
    ------
    ValueError
        If the variant has no memory, or its resampling is not known.
    """
    if contract.memory is None:
        raise ValueError("a variant without memory can't follow an object")
    return replace(contract.image, resampling=one_of("memory.resampling", contract.memory["resampling"], Resampling))


def _count(key: str, value: Any) -> int:
    if not isinstance(value, int) or value < 2:
        raise ValueError(f"{key} must be a whole number of slices, two at least, not {value!r}")
    return value
