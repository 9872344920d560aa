"""The loops over voxels that no array expression does well, compiled at first use and kept on disk (`warm`).

Each fuses what would otherwise be several passes over memory: the network's answers are by far the largest arrays here,
and what this project adds to the forward pass is nearly all spent in moving them. Arrays are checked by the callers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile a function at its first call, without the interpreter's lock, and keep the result on disk."""
    try:
        machine_code: Any = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # there is no folder to keep it in, as in a container that can't be written to
        machine_code = numba.njit(nogil=True, error_model="numpy")(function)
    return cast(_Function, machine_code)


def inlined(function: _Function) -> _Function:
    """Let a function be written out wherever compiled ones call it: a call counts references to each array it takes."""
    written_out: Any = numba.njit(nogil=True, error_model="numpy", inline="always")(function)
    return cast(_Function, written_out)


NOTHING = -1
"""The winner where no region is found: background."""
UNSURE = -2
"""In place of a winner where neighbours disagree."""
_BLOCK = 8192
"""Voxels of a plane that are looked at together: what is known of them stays in the cache."""
_LARGEST = np.finfo(np.float32).max
"""Of the numbers of single precision that are finite."""


@compiled
def add_tile(
    sums: NDArray[np.float32],
    logits: NDArray[np.float32],
    weights: NDArray[np.float32],
    corner: tuple[int, int, int],
    mirrored: tuple[bool, bool, bool],
) -> None:
    """Add a tile's weighted logits to the running sums.

    Parameters
    ----------
    sums
        (head, ring of planes, y, x): plane z of the image lies at z modulo the ring's length.
    logits, weights
        (head, z, y, x) and (z, y, x) of one tile.
    corner
        Where the tile begins in the image.
    mirrored
        The axes along which the network saw the tile mirrored: its answer is turned back.
    """
    # an unsigned index is not looked at for being negative, which costs a tenth of the time here
    heads, ring = np.uint64(logits.shape[0]), np.uint64(sums.shape[1])
    depth, height, width = np.uint64(logits.shape[1]), np.uint64(logits.shape[2]), np.uint64(logits.shape[3])
    first, top, left = np.uint64(corner[0]), np.uint64(corner[1]), np.uint64(corner[2])
    one = np.uint64(1)
    for head in range(heads):  # outermost, as in memory: with many heads memory is what this waits for
        for z in range(depth):
            source_z = depth - one - z if mirrored[0] else z
            slot = (first + z) % ring
            for y in range(height):
                source_y = height - one - y if mirrored[1] else y
                if mirrored[2]:
                    for x in range(width):
                        weighted = logits[head, source_z, source_y, width - one - x] * weights[z, y, x]
                        sums[head, slot, top + y, left + x] += weighted
                else:
                    for x in range(width):
                        sums[head, slot, top + y, left + x] += logits[head, source_z, source_y, x] * weights[z, y, x]


@compiled
def find_winners(sums: NDArray[np.float32], slot: int, has_regions: bool, winners: NDArray[np.int16]) -> bool:
    """Find the winner at each voxel of a plane; return whether all is finite.

    Parameters
    ----------
    sums
        (head, ring of planes, y, x): logits, each times a number above 0 that is the same for all heads of a voxel.
    slot
        Where in the ring the plane lies.
    has_regions
        Whether the winner is the last head above 0, or the first of the highest.
    winners
        Gets (y, x).
    """
    count, last = winners.size, sums.shape[0] - 1
    lines, found = sums.reshape(sums.shape[0], sums.shape[1], count), winners.reshape(count)
    bests, winning = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.int32)
    faults = np.int32(0)
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        best, winner = bests[: stop - start], winning[: stop - start]
        best[:] = -np.inf
        winner[:] = NOTHING if has_regions else 0
        for first in range(0, last + 1, 4):
            # where there are no four more, the last one stands in for them: it changes nothing a second time
            second, third, fourth = min(first + 1, last), min(first + 2, last), min(first + 3, last)
            numbers = np.int32(first), np.int32(second), np.int32(third), np.int32(fourth)
            one, two = lines[first, slot, start:stop], lines[second, slot, start:stop]
            three, four = lines[third, slot, start:stop], lines[fourth, slot, start:stop]
            if has_regions:
                faults |= _last_above_zero(one, two, three, four, numbers, winner)
            else:
                faults |= _first_highest(one, two, three, four, numbers, best, winner)
        _copy(winner, found[start:stop])
    return bool(faults == 0)


# Loops of their own over arrays as long as the loop, of which the compiler takes many numbers at a time; what is known
# of four heads stays in registers.


@compiled
def _copy(source: NDArray[np.int32], target: NDArray[np.int16]) -> None:
    for x in range(target.size):
        target[x] = source[x]


@inlined
def _fault(a: np.float32, b: np.float32, c: np.float32, d: np.float32) -> np.int32:
    """Return 0 if all four are finite, else 1."""
    is_finite = (abs(a) <= _LARGEST) & (abs(b) <= _LARGEST) & (abs(c) <= _LARGEST) & (abs(d) <= _LARGEST)
    return np.int32(0) if is_finite else np.int32(1)


@compiled
def _first_highest(
    one: NDArray[np.float32],
    two: NDArray[np.float32],
    three: NDArray[np.float32],
    four: NDArray[np.float32],
    heads: tuple[np.int32, np.int32, np.int32, np.int32],
    best: NDArray[np.float32],
    winner: NDArray[np.int32],
) -> np.int32:
    """Put those of four heads that are higher than `best` into it and `winner`; return 0 if all are finite."""
    first, second, third, fourth = heads
    faults = np.int32(0)
    for x in range(winner.size):
        a, b, c, d = one[x], two[x], three[x], four[x]
        lower, lower_head = (b, second) if b > a else (a, first)
        upper, upper_head = (d, fourth) if d > c else (c, third)
        highest, head = (upper, upper_head) if upper > lower else (lower, lower_head)
        is_higher = highest > best[x]
        best[x] = highest if is_higher else best[x]
        winner[x] = head if is_higher else winner[x]
        faults |= _fault(a, b, c, d)
    return faults


@compiled
def _last_above_zero(
    one: NDArray[np.float32],
    two: NDArray[np.float32],
    three: NDArray[np.float32],
    four: NDArray[np.float32],
    heads: tuple[np.int32, np.int32, np.int32, np.int32],
    winner: NDArray[np.int32],
) -> np.int32:
    """Put the last of four heads that is above 0 into `winner`; return 0 if all are finite."""
    first, second, third, fourth = heads
    faults = np.int32(0)
    for x in range(winner.size):
        a, b, c, d = one[x], two[x], three[x], four[x]
        head = first if a > 0 else winner[x]
        head = second if b > 0 else head
        head = third if c > 0 else head
        winner[x] = fourth if d > 0 else head
        faults |= _fault(a, b, c, d)
    return faults


@compiled
def resize_labels_plane(
    below: NDArray[np.int32],
    above: NDArray[np.int32],
    height: float,
    rows: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]],
    columns: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]],
    nearest: NDArray[np.int32],
    resized: NDArray[np.int32],
) -> None:
    """Give each voxel of a plane the label whose linearly interpolated indicator is the highest.

    Where two are equal it is the nearest voxel's label if that is one of them, else the lower one.

    Parameters
    ----------
    below, above, height, rows, columns
        As in `paint_plane`, with labels in place of logits.
    nearest
        (row, column), the label of the nearest voxel.
    resized
        Gets (row, column).
    """
    labels = np.empty(8, np.int32)
    shares = np.empty(8, np.float64)
    scores = np.empty(8, np.float64)
    for row in range(resized.shape[0]):
        y, y_next, down = rows[0][row], rows[1][row], rows[2][row]
        for column in range(resized.shape[1]):
            x, x_next, right = columns[0][column], columns[1][column], columns[2][column]
            same = True
            for corner in range(8):
                plane = above if corner >= 4 else below
                labels[corner] = plane[y_next if corner % 4 >= 2 else y, x_next if corner % 2 else x]
                same = same and labels[corner] == labels[0]
            if same:
                resized[row, column] = labels[0]
                continue
            # products and sums in the order of the spline routine's: ties are told by their last bit
            for corner in range(8):
                share = height if corner >= 4 else 1 - height
                share *= down if corner % 4 >= 2 else 1 - down
                share *= right if corner % 2 else 1 - right
                shares[corner] = share
            highest = 0.0
            for corner in range(8):
                score = 0.0
                for other in range(8):
                    if labels[other] == labels[corner]:
                        score += shares[other]
                scores[corner] = score
                highest = max(highest, score)
            chosen = np.int32(np.iinfo(np.int32).max)
            for corner in range(8):
                if scores[corner] == highest:
                    if labels[corner] == nearest[row, column]:
                        chosen = labels[corner]
                        break
                    chosen = min(chosen, labels[corner])
            resized[row, column] = chosen
