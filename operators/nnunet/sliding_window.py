"""The network sees one tile at a time; overlapping tiles are blended by a Gaussian, as nnU-Net v2 does.

nnU-Net accumulates in half precision. Here it is single precision: closer to the truth, and labels differ from
nnU-Net's only where two classes are equal to within half precision.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from operators.errors import InferenceFailed
from operators.nnunet.plans import TILE_STEP
from operators.nnunet.resampling import Shape

Infer = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From a batch of tiles (n, channel, z, y, x) to their logits (n, class, z, y, x)."""
Progress = Callable[[int, int], None]
"""Told the tiles done and the tiles in all."""

_SIGMA_SHARE = 1 / 8
_PEAK = 10.0


def tile_starts(image_size: Sequence[int], tile_size: Sequence[int], step: float = TILE_STEP) -> list[list[int]]:
    """Return, for each axis, where tiles begin: evenly spaced, at most `step` tiles apart, the last at the end."""
    starts = []
    for size, tile in zip(image_size, tile_size, strict=True):
        count = math.ceil((size - tile) / (tile * step)) + 1
        distance = (size - tile) / (count - 1) if count > 1 else 0.0
        # numpy rounds halves to even, as nnU-Net's np.round does
        starts.append([int(np.round(distance * index)) for index in range(count)])
    return starts


@lru_cache(maxsize=2)
def gaussian_weights(tile_size: Shape) -> NDArray[np.float32]:
    """Return a tile's weights: a Gaussian of an eighth of the tile, 10 in the middle, nowhere 0."""
    impulse = np.zeros(tile_size)
    impulse[tuple(size // 2 for size in tile_size)] = 1
    weights = ndimage.gaussian_filter(impulse, [size * _SIGMA_SHARE for size in tile_size], mode="constant", cval=0)
    weights /= weights.max() / _PEAK
    # rounded to half precision, since nnU-Net keeps them so; what became 0 gets the least that did not
    rounded: NDArray[np.float32] = weights.astype(np.float16).astype(np.float32)
    rounded[rounded == 0] = rounded[rounded != 0].min()
    return rounded


def pad_to_tile(image: NDArray[np.float32], tile_size: Shape) -> tuple[NDArray[np.float32], tuple[slice, ...]]:
    """Return `image` with zeros around it where it is smaller than a tile, and where it lies in the result."""
    missing = [max(tile - size, 0) for tile, size in zip(tile_size, image.shape, strict=True)]
    before = [count // 2 for count in missing]
    place = tuple(slice(start, start + size) for start, size in zip(before, image.shape, strict=True))
    if not any(missing):
        return image, place
    widths = [(start, count - start) for start, count in zip(before, missing, strict=True)]
    return np.pad(image, widths), place


def predict_logits(
    image: NDArray[np.float32], tile_size: Shape, classes: int, infer: Infer, progress: Progress
) -> NDArray[np.float32]:
    """Return the logits (class, z, y, x) of a preprocessed `image` (z, y, x).

    Raises
    ------
    InferenceFailed
        If the network answers with another shape than planned, or with what is not a finite number.
    """
    padded, place = pad_to_tile(image, tile_size)
    weights = gaussian_weights(tile_size)
    total = np.zeros((classes, *padded.shape), np.float32)
    weight_total = np.zeros(padded.shape, np.float32)
    corners = list(itertools.product(*tile_starts(padded.shape, tile_size)))
    progress(0, len(corners))
    for done, corner in enumerate(corners, start=1):
        window = tuple(slice(start, start + size) for start, size in zip(corner, tile_size, strict=True))
        tile = np.ascontiguousarray(padded[window])[None, None]
        logits = _checked(infer(tile), (1, classes, *tile_size))[0]
        # mirrored tiles and further folds join here: their logits are averaged before weighting
        total[(slice(None), *window)] += logits * weights
        weight_total[window] += weights
        progress(done, len(corners))
    total /= weight_total
    return total[(slice(None), *place)]


def _checked(logits: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    if logits.shape != shape:
        raise InferenceFailed(f"expected logits of shape {shape}, got {logits.shape}", code="model-mismatch")
    if not np.isfinite(logits).all():
        raise InferenceFailed("the network answered with numbers that are not finite", code="logits-not-finite")
    return logits
