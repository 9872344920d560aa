"""How a mask that is shown becomes logits, and what the decoder makes an object pointer of.

A mask is believed as it is: its logits are plus and minus ten. The decoder sees it only for the object pointer.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from operators.sam.contract import Contract
from operators.sam.frames import shown_shape
from operators.sam.memory_contract import MaskPrompt
from operators.sam.resampling import antialiased_weights

_SCALE, _OFFSET = np.float32(20.0), np.float32(-10.0)


def mask_in_square(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Return a mask (rows, columns) of an image as it lies in the square (size, size) that the encoder sees."""
    rows, columns = (antialiased_weights(side, size) for side in mask.shape)
    inside: NDArray[np.bool_] = rows @ mask.astype(np.float32) @ columns.T >= np.float32(0.5)
    return inside


def mask_logits(mask: NDArray[np.bool_], size: int) -> NDArray[np.float32]:
    """Return the logits (size, size) of a mask (S, S), by bilinear interpolation with antialiasing."""
    weights = antialiased_weights(mask.shape[0], size)
    logits: NDArray[np.float32] = weights @ (mask * _SCALE + _OFFSET) @ weights.T
    return logits


def as_answer(mask: NDArray[np.bool_], contract: Contract) -> NDArray[np.float32]:
    """Return the logits (L, L) of a mask (rows, columns) of an image, as if the decoder had found it there."""
    rows, columns = mask.shape
    shown = shown_shape(rows, columns, replace(contract.image, size=contract.logits.size))
    down, across = (antialiased_weights(old, new) for old, new in zip(mask.shape, shown, strict=True))
    logits = np.full((contract.logits.size, contract.logits.size), _OFFSET, np.float32)
    logits[: shown[0], : shown[1]] = down @ (mask * _SCALE + _OFFSET) @ across.T
    return logits


def decoder_mask(mask: NDArray[np.bool_], prompt: MaskPrompt) -> NDArray[np.float32]:
    """Return what the decoder takes for a mask (S, S): (S / step, S / step)."""
    step = prompt.kernel.shape[0]
    side = mask.shape[0] // step
    blocks = mask.astype(np.float32).reshape(side, step, side, step)
    given: NDArray[np.float32] = np.einsum("iajb,ab->ij", blocks, prompt.kernel) + np.float32(prompt.bias)
    return given
