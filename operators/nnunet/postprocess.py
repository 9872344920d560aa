"""From logits on the network's grid to labels on the scanner's, in nnU-Net v2's order.

Resample the logits, choose the class, put the crop back, transpose back. Choosing before resampling would be
cheaper and is wrong at every edge.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from operators.nnunet.plans import Configuration
from operators.nnunet.preprocess import Placement
from operators.nnunet.resampling import Shape, apply_weights, axis_weights, separate_axis

_SLAB_BYTES = 64 << 20


def labels_from_logits(
    logits: NDArray[np.float32], placement: Placement, configuration: Configuration
) -> NDArray[np.uint8]:
    """Return labels, axes z, y, x, on the grid the image came on; 0 is background and all that was cropped away.

    Parameters
    ----------
    logits
        Axes class, then transposed z, y, x on the network's grid.
    placement
        Where the image came from.
    configuration
        What was planned.
    """
    plan = configuration.logits_resampling
    apart = separate_axis(configuration.spacing, placement.spacing, plan.separate_z)
    labels = np.zeros(placement.shape, np.uint8)
    labels[placement.box] = resampled_argmax(logits, placement.cropped_shape, plan.order, apart)
    return np.ascontiguousarray(labels.transpose(configuration.transpose_backward))


def resampled_argmax(
    logits: NDArray[np.float32], new_shape: Shape, order: int, separate: int | None
) -> NDArray[np.uint8]:
    """Return the class with the highest logit on a grid of `new_shape`.

    The logits of the whole grid are never held at once: slabs along the first axis are made, chosen from and
    dropped. Of the network's planes, a slab needs only the few that its weights reach.
    """
    shape: Shape = (logits.shape[1], logits.shape[2], logits.shape[3])
    if shape == new_shape:
        return np.asarray(logits.argmax(axis=0), np.uint8)
    slab_weights, row_weights, column_weights = axis_weights(shape, new_shape, order, separate)
    labels = np.empty(new_shape, np.uint8)
    plane_bytes = 4 * logits.shape[0] * new_shape[1] * new_shape[2]
    thickness = max(1, _SLAB_BYTES // plane_bytes)
    for start in range(0, new_shape[0], thickness):
        weights = slab_weights[start : start + thickness]
        reached = np.flatnonzero(weights.any(axis=0))
        first, last = int(reached[0]), int(reached[-1]) + 1
        slab = apply_weights(weights[:, first:last], logits[:, first:last], axis=1)
        slab = apply_weights(row_weights, slab, axis=2)
        slab = apply_weights(column_weights, slab, axis=3)
        labels[start : start + thickness] = slab.argmax(axis=0)
    return labels
