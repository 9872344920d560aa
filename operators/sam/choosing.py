"""Which of the decoder's masks is the answer, and whose voxel it is where objects overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from operators.sam.memory_contract import Stability

_SUPPRESSED = np.float32(-10.0)


def best_of_three(qualities: NDArray[np.float32]) -> int:
    """Return which of the four masks is the best of those at three scales.

    Parameters
    ----------
    qualities
        (4,), ``iou_predictions`` of one prompt.
    """
    return 1 + int(np.argmax(qualities[1:]))


def single(masks: NDArray[np.float32], qualities: NDArray[np.float32], stability: Stability) -> int:
    """Return which of the four masks is taken where one is asked for: the first, or the best of three if it wavers.

    Parameters
    ----------
    masks
        (4, L, L), logits of one prompt.
    qualities
        (4,).
    """
    inner = int(np.count_nonzero(masks[0] > np.float32(stability.delta)))
    outer = int(np.count_nonzero(masks[0] > np.float32(-stability.delta)))
    score = np.float32(inner) / np.float32(outer) if outer else np.float32(1)
    return 0 if score >= np.float32(stability.threshold) else best_of_three(qualities)


def without_overlap(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits of several objects, pressed down wherever another object's are higher.

    Parameters
    ----------
    logits
        (n, rows, columns), on one slice; where two are equal the first keeps the pixel.
    """
    if len(logits) == 1:
        return logits
    kept = np.argmax(logits, axis=0)[None] == np.arange(len(logits))[:, None, None]
    return np.where(kept, logits, np.minimum(logits, _SUPPRESSED))
