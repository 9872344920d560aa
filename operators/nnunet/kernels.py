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


def _compiled(function: _Function) -> _Function:
    try:
        compiled: Any = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # there is no folder to keep it in, as in a container that can't be written to
        compiled = numba.njit(nogil=True)(function)
    return cast(_Function, compiled)


NOTHING = -1
"""The winner where no region is found: background."""
UNSURE = -2
"""In place of a winner where neighbours disagree."""


@_compiled
def add_tile(
    total: NDArray[np.float32],
    logits: NDArray[np.float32],
    weights: NDArray[np.float32],
    corner: tuple[int, int, int],
    mirrored: tuple[bool, bool, bool],
) -> None:
    """Add a tile's weighted logits to the running sums.

    Parameters
    ----------
    total
        (head, ring of planes, y, x): plane z of the image lies at z modulo the ring's length.
    logits, weights
        (head, z, y, x) and (z, y, x) of one tile.
    corner
        Where the tile begins in the image.
    mirrored
        The axes along which the network saw the tile mirrored: its answer is turned back.
    """
    # an unsigned index is not looked at for being negative, which costs a tenth of the time here
    heads, ring = np.uint64(logits.shape[0]), np.uint64(total.shape[1])
    depth, height, width = np.uint64(logits.shape[1]), np.uint64(logits.shape[2]), np.uint64(logits.shape[3])
    first, top, left = np.uint64(corner[0]), np.uint64(corner[1]), np.uint64(corner[2])
    one = np.uint64(1)
    for head in range(heads):
        for z in range(depth):
            source_z = depth - one - z if mirrored[0] else z
            slot = (first + z) % ring
            for y in range(height):
                source_y = height - one - y if mirrored[1] else y
                if mirrored[2]:
                    for x in range(width):
                        weighted = logits[head, source_z, source_y, width - one - x] * weights[z, y, x]
                        total[head, slot, top + y, left + x] += weighted
                else:
                    for x in range(width):
                        total[head, slot, top + y, left + x] += logits[head, source_z, source_y, x] * weights[z, y, x]


@_compiled
def finish_plane(
    total: NDArray[np.float32],
    weight_total: NDArray[np.float32],
    slot: int,
    origin: tuple[int, int],
    has_regions: bool,
    logits: NDArray[np.float32],
    winners: NDArray[np.int32],
) -> bool:
    """Divide one plane's sums by its weights, find each voxel's winner, clear the sums; return whether all is finite.

    Parameters
    ----------
    total, weight_total
        The running sums, (head, ring of planes, y, x) and (ring of planes, y, x); those of the plane are set to 0.
    slot
        Where in the ring the plane lies.
    origin
        Row and column at which the image begins in it; what lies around is padding.
    has_regions
        Whether the winner is the last head above 0, or the first of the highest.
    logits, winners
        Get (y, head, x) and (y, x).
    """
    height, heads, width = logits.shape
    top, left = origin
    best = np.empty(width, np.float32)
    unsound = np.zeros(width, np.int32)
    for y in range(height):
        share = np.float32(1) / weight_total[slot, top + y, left : left + width]
        winner = winners[y]
        winner[:] = NOTHING if has_regions else 0
        best[:] = 0 if has_regions else -np.inf
        for head in range(heads):
            line = total[head, slot, top + y, left : left + width]
            result = logits[y, head]
            for x in range(width):
                value = line[x] * share[x]
                result[x] = value
                unsound[x] |= value - value != 0  # infinite, or no number
            if has_regions:
                for x in range(width):
                    winner[x] = head if result[x] > 0 else winner[x]
            else:
                for x in range(width):
                    higher = result[x] > best[x]
                    best[x] = result[x] if higher else best[x]
                    winner[x] = head if higher else winner[x]
            line[:] = 0  # now, while it is near
    if total.shape[2] > height or total.shape[3] > width:
        total[:, slot] = 0
    weight_total[slot] = 0
    return not unsound.any()


@_compiled
def paint_plane(
    below: tuple[NDArray[np.float32], NDArray[np.int32]],
    above: tuple[NDArray[np.float32], NDArray[np.int32]],
    height: float,
    rows: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]],
    columns: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]],
    has_regions: bool,
    winners: NDArray[np.int32],
) -> None:
    """Find the winners on one plane of a finer grid, between two planes of logits, as linear interpolation would.

    A linearly interpolated logit is a weighted mean of its neighbours'. Where one head is the highest (or, with
    regions, the last above 0) at each of them, it is so at every point between them: only voxels whose neighbours
    disagree are computed.

    Parameters
    ----------
    below, above
        The planes: logits (head, y, x) and their winners (y, x).
    height
        How far above the lower plane, as a share of their distance.
    rows, columns
        For each output row and column: its two neighbours, and its distance from the first as a share of theirs.
    winners
        Gets (row, column).
    """
    lower, lower_winners = below
    upper, upper_winners = above
    row_first, row_second, row_share = rows
    column_first, column_second, column_share = columns
    heads = lower.shape[0]
    up = np.float32(height)
    for row in range(winners.shape[0]):
        y, y_next, down = row_first[row], row_second[row], row_share[row]
        for column in range(winners.shape[1]):
            x, x_next, right = column_first[column], column_second[column], column_share[column]
            winner = lower_winners[y, x]
            if (
                lower_winners[y, x_next] == winner
                and lower_winners[y_next, x] == winner
                and lower_winners[y_next, x_next] == winner
                and upper_winners[y, x] == winner
                and upper_winners[y, x_next] == winner
                and upper_winners[y_next, x] == winner
                and upper_winners[y_next, x_next] == winner
            ):
                winners[row, column] = winner
                continue
            one = np.float32(1)
            low_left = (one - up) * (one - down) * (one - right)
            low_right = (one - up) * (one - down) * right
            low_left_next = (one - up) * down * (one - right)
            low_right_next = (one - up) * down * right
            up_left = up * (one - down) * (one - right)
            up_right = up * (one - down) * right
            up_left_next = up * down * (one - right)
            up_right_next = up * down * right
            winner = NOTHING if has_regions else 0
            best = np.float32(0) if has_regions else np.float32(-np.inf)
            for head in range(heads):
                value = (
                    lower[head, y, x] * low_left
                    + lower[head, y, x_next] * low_right
                    + lower[head, y_next, x] * low_left_next
                    + lower[head, y_next, x_next] * low_right_next
                    + upper[head, y, x] * up_left
                    + upper[head, y, x_next] * up_right
                    + upper[head, y_next, x] * up_left_next
                    + upper[head, y_next, x_next] * up_right_next
                )
                if value > best:
                    winner = head
                    if not has_regions:
                        best = value
            winners[row, column] = winner


@_compiled
def sure_winners(
    below: NDArray[np.int32],
    above: NDArray[np.int32],
    rows: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]],
    columns: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]],
    winners: NDArray[np.int32],
) -> None:
    """Give each voxel between two planes the winner on which all its neighbours agree, or `UNSURE`.

    Parameters are those of `paint_plane`, with the planes' winners alone.
    """
    for row in range(winners.shape[0]):
        y, y_next = rows[0][row], rows[1][row]
        for column in range(winners.shape[1]):
            x, x_next = columns[0][column], columns[1][column]
            winner = below[y, x]
            agreed = (
                below[y, x_next] == winner
                and below[y_next, x] == winner
                and below[y_next, x_next] == winner
                and above[y, x] == winner
                and above[y, x_next] == winner
                and above[y_next, x] == winner
                and above[y_next, x_next] == winner
            )
            winners[row, column] = winner if agreed else UNSURE


@_compiled
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
