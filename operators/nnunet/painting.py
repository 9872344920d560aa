"""The loops from planes of logits to labels on a finer grid, compiled as those of `kernels` are.

A linearly interpolated logit is a weighted mean of its neighbours'. Where one head is the highest (or, with regions,
the last above 0) at all eight corners of a cell of the network's grid, it is so at every point in it. So each cell is
looked at once, voxels are filled from the cell they lie in, and only those in cells whose corners disagree are
computed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from operators.nnunet.kernels import NOTHING, UNSURE, compiled

Layer = tuple[NDArray[np.float32], int, NDArray[np.float32], NDArray[np.int16]]
"""A plane: sums (head, ring of planes, y, x) and its place in the ring, shares and winners (y, x)."""
Rows = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]
"""For each output row: its two neighbours, and its distance from the first as a share of theirs."""
Columns = tuple[NDArray[np.uint32], NDArray[np.float32]]
"""For each output column: its first neighbour, from left to right, and its distance from it as a share of that between
it and the next one, which is the second neighbour: or else the share is 0."""


@compiled
def agreed_cells(below: NDArray[np.int16], above: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return the winner on which two planes agree at x and at x + 1, for each y and x; `UNSURE` elsewhere."""
    height, width = below.shape
    agreed = np.empty((height, width), np.int16)
    unsure = np.int16(UNSURE)
    for y in range(height):
        lower, upper, line = below[y], above[y], agreed[y]
        for x in range(width - 1):
            winner = lower[x]
            same = (upper[x] == winner) & (lower[x + 1] == winner) & (upper[x + 1] == winner)
            line[x] = winner if same else unsure
        line[width - 1] = lower[width - 1] if lower[width - 1] == upper[width - 1] else unsure
    return agreed


@compiled
def _cells_between(first: NDArray[np.int16], second: NDArray[np.int16], cells: NDArray[np.int16]) -> bool:
    """Put into `cells` on what two rows of agreed cells agree; return whether it is one winner all along."""
    unsure, others = np.int16(UNSURE), np.int16(0)
    head = first[0]
    for x in range(cells.size):
        cell = first[x] if first[x] == second[x] else unsure
        cells[x] = cell
        others |= cell ^ head
    return bool(others == 0 and head != unsure)


@compiled
def sure_winners(
    below: NDArray[np.int16],
    above: NDArray[np.int16],
    rows: Rows,
    columns: Columns,
    winners: NDArray[np.int16],
) -> None:
    """Give each voxel of a plane between two planes the winner on which its cell's corners agree, or `UNSURE`.

    Parameters are those of `paint_plane`, with the planes' winners alone.
    """
    agreed = agreed_cells(below, above)
    cells = np.empty(below.shape[1], np.int16)
    for row in range(winners.shape[0]):
        _cells_between(agreed[rows[0][row]], agreed[rows[1][row]], cells)
        for column in range(winners.shape[1]):
            winners[row, column] = cells[columns[0][column]]


@compiled
def paint_plane(
    below: Layer,
    above: Layer,
    height: float,
    rows: Rows,
    columns: Columns,
    has_regions: bool,
    values: NDArray[np.unsignedinteger],
    painted: NDArray[np.unsignedinteger],
) -> None:
    """Paint one plane of a finer grid, between two planes of logits, as linear interpolation would.

    Parameters
    ----------
    below, above
        The planes.
    height
        How far above the lower plane, as a share of their distance.
    rows, columns
        Where the finer grid lies between them.
    has_regions
        Whether the winner is the last head above 0, or the first of the highest.
    values
        What is painted: for `UNSURE`, for `NOTHING`, and for each head.
    painted
        Gets (row, column).
    """
    row_first, row_second, row_share = rows
    column_first, column_share = columns
    heads, width, count = below[0].shape[0], below[0].shape[3], painted.shape[1]
    agreed = agreed_cells(below[3], above[3])
    cells, named = np.empty(width, np.int16), np.empty(width, painted.dtype)
    line, unsure, edges = np.empty(count, painted.dtype), np.empty(count, np.uint32), np.empty(count, np.uint32)
    mixed, shares = np.empty((heads, width), np.float32), np.empty((4, width), np.float32)
    best, winner = np.empty(width, np.float32), np.empty(width, np.int32)
    unsure_count = 0
    for row in range(painted.shape[0]):
        y, y_next = row_first[row], row_second[row]
        if row == 0 or y != row_first[row - 1] or y_next != row_second[row - 1]:
            unsure_count = 0
            if _cells_between(agreed[y], agreed[y_next], cells):
                line[:] = values[cells[0] + 2]
            else:
                for x in range(width):
                    named[x] = values[cells[x] + 2]
                for column in range(count):
                    line[column] = named[column_first[column]]
                    unsure[unsure_count] = column
                    unsure_count += cells[column_first[column]] == UNSURE
        painted[row] = line
        if unsure_count == 0:
            continue
        span = column_first[unsure[0]], min(column_first[unsure[unsure_count - 1]] + 2, width)
        between = y, y_next, row_share[row]
        _mix(below, above, np.float32(height), between, span, has_regions, (mixed, shares, best, winner))
        edge_count = 0
        for index in range(unsure_count):
            column = unsure[index]
            x = column_first[column]
            painted[row, column] = values[winner[x] + 2]
            edges[edge_count] = column
            edge_count += winner[x] != winner[min(x + 1, width - 1)]
        for index in range(edge_count):
            column = edges[index]
            x, right = column_first[column], column_share[column]
            painted[row, column] = values[_winner_between(mixed, x, right, has_regions) + 2]


@compiled
def _winner_between(mixed: NDArray[np.float32], x: np.uint32, right: np.float32, has_regions: bool) -> int:
    """Return the winner between x and x + 1 of a row of logits (head, x)."""
    left, following = np.float32(1) - right, np.uint64(x) + np.uint64(1)
    winner, best = (NOTHING, np.float32(0)) if has_regions else (0, np.float32(-np.inf))
    for head in range(mixed.shape[0]):
        value = mixed[head, x] * left + mixed[head, following] * right
        winner = head if value > best else winner
        best = value if value > best and not has_regions else best
    return winner


@compiled
def _mix(
    below: Layer,
    above: Layer,
    up: np.float32,
    between: tuple[int, int, np.float32],
    span: tuple[int, int],
    has_regions: bool,
    found: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]],
) -> None:
    """Interpolate logits across a row, at the columns of the network's grid within `span`, and find their winners.

    Parameters
    ----------
    below, above
        The planes.
    up
        How far the row is above the lower plane, as a share of their distance.
    between
        The rows of the planes that it lies between, and its distance from the first as a share of theirs.
    found
        Gets the logits (head, x), the shares of the four sums (4, x), the highest logit (x) and the winners (x).
    """
    lower, lower_slot, lower_shares, _ = below
    upper, upper_slot, upper_shares, _ = above
    y, y_next, down = np.uint64(between[0]), np.uint64(between[1]), between[2]
    low, high = np.uint64(lower_slot), np.uint64(upper_slot)
    start, stop = np.uint64(span[0]), np.uint64(span[1])
    mixed, shares, best, winner = found
    one = np.float32(1)
    # a loop for each array that is written: of more the compiler does not see that they don't overlap, and takes one
    # number at a time
    for x in range(start, stop):
        shares[0, x] = (one - up) * (one - down) * lower_shares[y, x]
    for x in range(start, stop):
        shares[1, x] = (one - up) * down * lower_shares[y_next, x]
    for x in range(start, stop):
        shares[2, x] = up * (one - down) * upper_shares[y, x]
    for x in range(start, stop):
        shares[3, x] = up * down * upper_shares[y_next, x]
    winner[start:stop] = NOTHING if has_regions else 0
    best[start:stop] = 0 if has_regions else -np.inf
    for head in range(np.uint64(mixed.shape[0])):
        for x in range(start, stop):
            mixed[head, x] = (
                lower[head, low, y, x] * shares[0, x]
                + lower[head, low, y_next, x] * shares[1, x]
                + upper[head, high, y, x] * shares[2, x]
                + upper[head, high, y_next, x] * shares[3, x]
            )
        if has_regions:
            for x in range(start, stop):
                winner[x] = np.int32(head) if mixed[head, x] > 0 else winner[x]
        else:
            for x in range(start, stop):
                higher = mixed[head, x] > best[x]
                best[x] = mixed[head, x] if higher else best[x]
                winner[x] = np.int32(head) if higher else winner[x]
