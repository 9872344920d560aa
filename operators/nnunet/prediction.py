"""Tiles of an image through a network, several under way at once, and blended planes of logits out of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from operators.errors import InferenceFailed
from operators.nnunet.plans import Configuration
from operators.nnunet.preprocess import NetworkImage
from operators.nnunet.resampling import Shape
from operators.nnunet.sliding_window import Blending, Mirroring, Plane, TilePlan

Rows = Sequence[NDArray[np.float32]]
"""The tiles of one request, each (channel, z, y, x), or (channel, y, x) for a 2d network; views of a larger array."""
_SPARSE = 8
"""Of a tile one voxel in so many along each axis is looked at first."""
Progress = Callable[[int], None]
"""Told that so many more tiles are done."""


class Infer(Protocol):
    """A network that answers a sequence of requests in their order, pulling them ahead as it likes."""

    @property
    def rows(self) -> int:
        """How many tiles to put into one request."""
        ...

    def __call__(self, requests: Iterable[Rows]) -> Iterator[NDArray[np.float32]]:
        """Yield logits (tile, head, z, y, x), without z for a 2d network; each valid until the next is asked for."""
        ...


@dataclass(frozen=True)
class _Tile:
    """One question to the network."""

    corner: Shape
    mirrored: Mirroring
    constant: bytes
    """The values of a tile that is constant in each channel, as a key; empty otherwise."""


def predict_planes(
    image: NetworkImage, configuration: Configuration, infer: Infer, progress: Progress
) -> Iterator[Plane]:
    """Yield the planes of blended logits, by rising index.

    A network has one answer to one question: of tiles that are constant, and equal to one that was asked before (air
    around a patient), the answer is remembered instead of being asked for again.

    Raises
    ------
    InferenceFailed
        If the network answers with another shape than planned, or with what is not a finite number.
    """
    plan = TilePlan(image.channels.shape[1:], configuration)
    blending = Blending(plan, configuration)
    for tile, logits in _answers(image, plan, configuration, infer):
        yield from blending.finished(tile.corner[0])
        blending.add(logits, tile.corner, tile.mirrored)
        progress(1)
    yield from blending.finished(plan.padded_shape[0])


def _answers(
    image: NetworkImage, plan: TilePlan, configuration: Configuration, infer: Infer
) -> Iterator[tuple[_Tile, NDArray[np.float32]]]:
    """Yield each tile with its logits (head, z, y, x), in the order of the plan."""
    cutter = _Cutter(image, plan, configuration)
    under_way: deque[_Tile] = deque()  # pulled ahead of the answers, those whose answer will be remembered too
    remembered: dict[bytes, NDArray[np.float32]] = {}
    asked: set[bytes] = set()

    def requests() -> Iterator[list[NDArray[np.float32]]]:
        rows: list[NDArray[np.float32]] = []
        for corner in plan.corners:
            for mirrored in plan.mirrorings:
                row = cutter.cut(corner, mirrored)
                tile = _Tile(corner, mirrored, _constant(row))
                under_way.append(tile)
                if tile.constant in asked:
                    continue
                if tile.constant:
                    asked.add(tile.constant)
                rows.append(row)
                if len(rows) == infer.rows:
                    yield rows
                    rows = []
        if rows:
            yield rows

    expected = (configuration.labels.heads, *configuration.patch_size)
    first_asked: set[bytes] = set()
    for answer in infer(requests()):
        if answer.shape[1:] != expected:
            raise InferenceFailed(
                f"expected logits of shape {list(expected)} for a tile, got {list(answer.shape[1:])}",
                code="model-mismatch",
            )
        for row in answer.reshape(answer.shape[0], expected[0], *plan.tile):
            yield from _remembered(under_way, remembered, first_asked)
            tile = under_way.popleft()
            if tile.constant:
                first_asked.add(tile.constant)
                remembered[tile.constant] = row.copy()
            yield tile, row
    yield from _remembered(under_way, remembered, first_asked)
    if under_way:
        raise InferenceFailed(f"the network left {len(under_way)} tiles without an answer", code="model-mismatch")


def _remembered(
    under_way: deque[_Tile], remembered: dict[bytes, NDArray[np.float32]], answered: set[bytes]
) -> Iterator[tuple[_Tile, NDArray[np.float32]]]:
    """Yield the tiles that come next and were answered before."""
    while under_way and under_way[0].constant in answered:
        tile = under_way.popleft()
        yield tile, remembered[tile.constant]


def _constant(row: NDArray[np.float32]) -> bytes:
    """The value of each channel if each is constant, as a key; empty otherwise. Most tiles are told by a few voxels."""
    values = row[(slice(None), *(slice(0, 1) for _ in row.shape[1:]))]
    few = row[(slice(None), *(slice(None, None, _SPARSE) for _ in row.shape[1:]))]
    return b"" if (few != values).any() or (row != values).any() else values.tobytes()


class _Cutter:
    """Cuts tiles out of an image: as views where nothing must be added."""

    def __init__(self, image: NetworkImage, plan: TilePlan, configuration: Configuration) -> None:
        self._image = image
        self._plan = plan
        self._is_2d = configuration.is_2d
        self._foreground = configuration.labels.foreground if configuration.sees_labels else ()

    def cut(self, corner: Shape, mirrored: Mirroring) -> NDArray[np.float32]:
        """Return one tile, (channel, z, y, x) or (channel, y, x), mirrored."""
        shown, placed = self._plan.window(corner)
        tile = self._image.channels[(slice(None), *shown)]
        labels = self._image.previous_labels
        if labels is not None:
            one_hot = labels[shown] == np.array(self._foreground)[:, None, None, None]
            tile = np.concatenate([tile, one_hot.astype(np.float32)])
        if tile.shape[1:] != self._plan.tile:
            padded = np.zeros((tile.shape[0], *self._plan.tile), np.float32)
            padded[(slice(None), *placed)] = tile
            tile = padded
        turned = tile[(slice(None), *(slice(None, None, -1) if axis else slice(None) for axis in mirrored))]
        return turned[:, 0] if self._is_2d else turned
