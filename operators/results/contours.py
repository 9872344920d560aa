"""Outlines of a mask along the edges of its pixels, so that rasterizing them gives exactly the mask again.

Points are x, y in pixels: (0, 0) is the outer corner of the first pixel, whose middle is (0.5, 0.5); so all corners are
whole numbers. Every corner is a right angle and no point lies on a straight line between its neighbours, which is the
fewest points that are exact. Pixels that touch only at a corner are not joined: foreground hangs together by sides,
background by sides and corners.

scikit-image's and contourpy's level curves cut corners, and OpenCV's outlines run through the middles of pixels: both
lose volume. GDAL's polygons are right, and too large a library for that.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.bool_]
Corners = NDArray[np.int64]
"""(n, 2), x and y; the last is joined to the first."""


@dataclass(frozen=True, eq=False)
class Ring:
    """One closed outline; it begins at its uppermost corner, of several at the leftmost."""

    corners: Corners
    """What is inside the mask lies to the right as one follows them, x to the right and y down."""
    is_hole: bool
    """Whether it runs around background."""

    @property
    def start(self) -> tuple[int, int]:
        """Its first corner, x and y."""
        return int(self.corners[0, 0]), int(self.corners[0, 1])


@dataclass(frozen=True, eq=False)
class _Attached:
    """A hole that a channel joins to another ring."""

    edge: int
    """The ring's corner that the edge with the channel's mouth begins at."""
    distance: int
    """Of the mouth from that corner."""
    way: Corners
    """From the mouth around the hole and back to the mouth."""


def rings(mask: Pixels) -> list[Ring]:
    """Return the outlines of a mask (row, column), outer ones and those of holes, by their first corners.

    Each corner has one neighbour in its row of corners and one in its column, so sorting pairs them.
    """
    found = _sorted_corners(mask)
    x, y = found[:, 0], found[:, 1]
    by_column = np.lexsort((found[:, 3], y, x))
    beside = np.empty(len(found), np.int64)
    beside[by_column[0::2]], beside[by_column[1::2]] = by_column[1::2], by_column[0::2]
    inside = np.pad(mask, ((0, 1), (0, 1)))[y, x]  # of the pixel below and to the right
    return [
        Ring(found[way if inside[way[0]] else [way[0], *way[:0:-1]], :2], not inside[way[0]])
        for way in _ways(beside.tolist())
    ]


def outlines(mask: Pixels) -> list[Corners]:
    """Return one outline a component of a mask (row, column), each hole joined to it by a channel without width.

    This is the keyhole technique of PS3.3 C.8.8.6.3. The channels run to the left between two rows of pixels, so no
    pixel's middle lies on one.
    """
    found = rings(mask)
    attached: dict[int, list[_Attached]] = defaultdict(list)
    if any(ring.is_hole for ring in found):
        edges = _Edges(found)
        # a channel ends at a ring that begins before its hole, so that backwards each hole has all its own by then
        for number in range(len(found) - 1, -1, -1):
            ring = found[number]
            if ring.is_hole:
                mouth = _mouth(mask, ring.start)
                parent, edge, distance = edges.hit(mouth)
                around = _joined(ring.corners, attached.pop(number, []))
                way = np.concatenate([[mouth], around, ring.corners[:1], [mouth]])
                attached[parent].append(_Attached(edge, distance, way))
    return [
        _straightened(_joined(ring.corners, attached[number])) if number in attached else ring.corners
        for number, ring in enumerate(found)
        if not ring.is_hole
    ]


def _sorted_corners(mask: Pixels) -> NDArray[np.int64]:
    """The corners of all rings, by row and column: x, y, and whether their edges go right and down.

    Neighbours in this order, the first and the second and so on, are joined by an edge.
    """
    padded = np.pad(mask, 1)
    left_above, above = padded[:-1, :-1], padded[:-1, 1:]
    left, here = padded[1:, :-1], padded[1:, 1:]
    odd = left_above ^ above ^ left ^ here
    touching = (left_above == here) & (above == left) & (left != here)
    y, x = np.nonzero(odd)
    single = np.stack([x, y, (above != here)[y, x], (left != here)[y, x]], axis=1).astype(np.int64)
    y, x = np.nonzero(touching)  # two corners at one place
    falling = here[y, x].astype(np.int64)
    first = np.stack([x, y, np.zeros_like(x), 1 - falling], axis=1)
    second = np.stack([x, y, np.ones_like(x), falling], axis=1)
    found = np.concatenate([single, first, second])
    return found[np.lexsort((found[:, 2], found[:, 0], found[:, 1]))]


def _ways(beside: list[int]) -> list[list[int]]:
    """Follow the corners, along a row and along a column in turn, until each ring closes."""
    visited = bytearray(len(beside))
    ways = []
    for start in range(len(beside)):
        if visited[start]:
            continue
        way, corner = [], start
        while not visited[corner]:
            across = corner ^ 1
            visited[corner] = visited[across] = 1
            way += [corner, across]
            corner = beside[across]
        ways.append(way)
    return ways


def _mouth(mask: Pixels, start: tuple[int, int]) -> tuple[int, int]:
    """Where a channel from a hole's first corner to the left meets the next outline."""
    x, y = start
    outside = np.flatnonzero(~(mask[y - 1, :x] & mask[y, :x]))
    return (int(outside[-1]) + 1 if len(outside) else 0), y


class _Edges:
    """The upright edges of all rings, by column and the row that they begin at from above."""

    def __init__(self, found: list[Ring]) -> None:
        self._first = np.cumsum([0, *(len(ring.corners) for ring in found)])
        self._y = np.concatenate([ring.corners[:, 1] for ring in found])
        x = np.concatenate([ring.corners[:, 0] for ring in found])
        end = np.concatenate([np.roll(ring.corners, -1, axis=0) for ring in found])
        upright = np.flatnonzero(x == end[:, 0])
        self._height = int(self._y.max()) + 1
        places = x[upright] * self._height + np.minimum(self._y, end[:, 1])[upright]
        order = np.argsort(places)
        self._places, self._edges = places[order], upright[order]

    def hit(self, mouth: tuple[int, int]) -> tuple[int, int, int]:
        """Return the ring and its edge that the point `mouth`, x and y, lies on, and how far along the edge that is."""
        x, y = mouth
        edge = int(self._edges[np.searchsorted(self._places, x * self._height + y, side="right") - 1])
        ring = int(np.searchsorted(self._first, edge, side="right")) - 1
        return ring, edge - int(self._first[ring]), abs(y - int(self._y[edge]))


def _joined(corners: Corners, attached: list[_Attached]) -> Corners:
    pieces, done = [], 0
    for one in sorted(attached, key=lambda one: (one.edge, one.distance)):
        pieces += [corners[done : one.edge + 1], one.way]
        done = one.edge + 1
    return np.concatenate([*pieces, corners[done:]])


def _straightened(corners: Corners) -> Corners:
    """Leave out points that come twice in a row or lie between their neighbours; turns back stay."""
    corners = corners[np.any(corners != np.roll(corners, 1, axis=0), axis=1)]
    came, goes = corners - np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0) - corners
    straight = (came[:, 0] * goes[:, 1] == came[:, 1] * goes[:, 0]) & ((came * goes).sum(axis=1) > 0)
    kept: Corners = corners[~straight]
    return kept
