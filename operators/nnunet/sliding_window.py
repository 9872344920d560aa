"""The network sees one tile at a time; overlapping tiles are blended by a Gaussian, as nnU-Net v2 does.

Tiles go through the image from its first plane to its last. As soon as no later tile reaches a plane, it is finished
and handed on, so that logits are held for no more planes than a tile is deep, whatever the image's length.

nnU-Net accumulates in half precision. Here it is single precision: closer to the truth, and labels differ from
nnU-Net's only where two classes are equal to within half precision.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from operators.errors import InferenceFailed
from operators.nnunet.kernels import add_tile, find_winners
from operators.nnunet.plans import Configuration
from operators.nnunet.resampling import Shape

_SIGMA_SHARE = 1 / 8
_PEAK = 10.0

Mirroring = tuple[bool, bool, bool]
"""The axes along which a tile is mirrored."""


@dataclass(frozen=True)
class Plane:
    """One finished plane. Its arrays are used again after the next plane."""

    index: int
    ring: NDArray[np.float32]
    """(head, ring of planes, y, x): the answers for each voxel, weighted and summed up."""
    slot: int
    """Where in the ring the plane lies."""
    weights: NDArray[np.float32]
    """(plane of a tile, y, x): of all answers to the tiles that begin at one plane."""
    places: NDArray[np.int64]
    """Which planes of `weights` add up to those of this plane. Only where heads are mixed between voxels do they
    matter."""
    winners: NDArray[np.int16]
    """(y, x): the head with the highest logit; with regions the last one above 0, -1 where there is none."""

    @property
    def logits(self) -> NDArray[np.float32]:
        """(head, y, x), the weighted mean of the answers."""
        first, *others = (self.weights[place] for place in self.places)
        return np.asarray(self.ring[:, self.slot] * np.reciprocal(sum(others, first)))


class TilePlan:
    """Where the tiles of an image lie. Everything has three axes: tiles of a 2d network are one plane deep.

    Parameters
    ----------
    shape
        Of the image, z, y, x.
    configuration
        What was planned.
    """

    def __init__(self, shape: Shape, configuration: Configuration) -> None:
        patch = configuration.patch_size
        self.shape = shape
        """Of the image."""
        self.tile: Shape = (1, patch[0], patch[1]) if configuration.is_2d else (patch[0], patch[1], patch[2])
        """Of one tile."""
        missing = [max(tile - size, 0) for tile, size in zip(self.tile, shape, strict=True)]
        self.before: Shape = (missing[0] // 2, missing[1] // 2, missing[2] // 2)
        """Zeros put before the image, where it is smaller than a tile; as many or one more come after it."""
        first, second, third = (max(tile, size) for tile, size in zip(self.tile, shape, strict=True))
        self.padded_shape: Shape = (first, second, third)
        """Of the image with these zeros."""
        starts = tile_starts(self.padded_shape, self.tile, configuration.tile_step_size)
        if configuration.is_2d:
            starts[0] = list(range(shape[0]))
        self.starts = starts
        """Where tiles begin along each axis of the padded image."""
        self.corners: list[Shape] = list(itertools.product(starts[0], starts[1], starts[2]))
        """Where tiles begin in the padded image, by rising z."""
        axes = [axis + configuration.is_2d for axis in configuration.mirroring_axes]
        self.mirrorings: list[Mirroring] = [
            (0 in chosen, 1 in chosen, 2 in chosen)
            for count in range(len(axes) + 1)
            for chosen in itertools.combinations(axes, count)
        ]
        """How each tile is seen: as it is, then mirrored along every choice of the axes."""

    @property
    def count(self) -> int:
        """How often the network is asked."""
        return len(self.corners) * len(self.mirrorings)

    def window(self, corner: Shape) -> tuple[tuple[slice, slice, slice], tuple[slice, slice, slice]]:
        """Return the part of the image that the tile at `corner` shows, and where in the tile it lies."""
        shown, placed = [], []
        for start, tile, size, before in zip(corner, self.tile, self.shape, self.before, strict=True):
            first, last = max(start - before, 0), min(start - before + tile, size)
            shown.append(slice(first, last))
            placed.append(slice(first - start + before, last - start + before))
        return (shown[0], shown[1], shown[2]), (placed[0], placed[1], placed[2])


def tile_starts(image_size: Sequence[int], tile_size: Sequence[int], step: float) -> list[list[int]]:
    """Return, for each axis, where tiles begin: evenly spaced, at most `step` tiles apart, the last at the end."""
    starts = []
    for size, tile in zip(image_size, tile_size, strict=True):
        count = math.ceil((size - tile) / (tile * step)) + 1
        distance = (size - tile) / (count - 1) if count > 1 else 0.0
        # numpy rounds halves to even, as nnU-Net's np.round does
        starts.append([int(np.round(distance * index)) for index in range(count)])
    return starts


@lru_cache(maxsize=2)
def gaussian_weights(tile_size: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a tile's weights: a Gaussian of an eighth of the tile, 10 in the middle, nowhere 0."""
    impulse = np.zeros(tile_size)
    impulse[tuple(size // 2 for size in tile_size)] = 1
    weights = ndimage.gaussian_filter(impulse, [size * _SIGMA_SHARE for size in tile_size], mode="constant", cval=0)
    weights /= weights.max() / _PEAK
    # rounded to half precision, by way of single as torch does, since nnU-Net keeps them so; what became 0 gets the
    # least that did not
    rounded: NDArray[np.float32] = weights.astype(np.float32).astype(np.float16).astype(np.float32)
    rounded[rounded == 0] = rounded[rounded != 0].min()
    return rounded


class Blending:
    """The running sums of weighted logits, over one plane more than a tile is deep: the last one that was handed on."""

    def __init__(self, plan: TilePlan, configuration: Configuration) -> None:
        self._plan = plan
        self._has_regions = configuration.labels.has_regions
        depth, height, width = plan.tile[0], *plan.padded_shape[1:]
        self._weights = gaussian_weights(configuration.patch_size).reshape(plan.tile)
        (_, top, left), (_, rows, columns) = plan.before, plan.shape
        self._window = slice(top, top + rows), slice(left, left + columns)
        self._layer = np.ascontiguousarray(_layer_weights(plan, self._weights)[:, *self._window])
        self._ring = np.zeros((configuration.labels.heads, depth + 1, height, width), np.float32)
        self._winners = [np.empty((height, width), np.int16) for _ in range(2)]
        self._next = 0
        self._cleared = 0

    def add(self, logits: NDArray[np.float32], corner: Shape, mirrored: Mirroring) -> None:
        """Add one answer of the network, (head, z, y, x), to a tile that begins at `corner`."""
        while self._cleared < self._next - 1:  # whoever took the last plane has no more use for those before it
            self._ring[:, self._cleared % self._ring.shape[1]] = 0
            self._cleared += 1
        add_tile(self._ring, logits, self._weights, corner, mirrored)

    def finished(self, end: int) -> Iterator[Plane]:
        """Yield the planes before plane `end` of the padded image, which no later tile reaches.

        Raises
        ------
        InferenceFailed
            ``logits-not-finite`` if the network answered with what is not a finite number.
        """
        while self._next < end:
            position, index = self._next, self._next - self._plan.before[0]
            self._next += 1
            if 0 <= index < self._plan.shape[0]:
                yield self._plane(position, index)

    def _plane(self, position: int, index: int) -> Plane:
        """Return the plane at `position` of the padded image, `index` of the image."""
        slot, winners = position % self._ring.shape[1], self._winners[index % 2]
        if not find_winners(self._ring, slot, self._has_regions, winners):
            raise InferenceFailed("the network answered with numbers that are not finite", code="logits-not-finite")
        ring, tile = self._ring, len(self._layer)
        places = np.array([position - start for start in self._plan.starts[0] if start <= position < start + tile])
        if self._plan.padded_shape[1:] != self._plan.shape[1:]:
            ring, winners, slot = ring[:, slot : slot + 1, *self._window].copy(), winners[self._window].copy(), 0
        return Plane(index, ring, slot, self._layer, places, winners)


def _layer_weights(plan: TilePlan, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the sum of the weights of all answers to the tiles that begin at one plane: (z of the tile, y, x)."""
    depth, height, width = plan.tile
    line = np.zeros((depth, height, plan.padded_shape[2]), np.float32)
    for left in plan.starts[2]:
        line[:, :, left : left + width] += weights
    line *= len(plan.mirrorings)
    layer = np.zeros((depth, *plan.padded_shape[1:]), np.float32)
    for top in plan.starts[1]:
        layer[:, top : top + height] += line
    return layer
