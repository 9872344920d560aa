"""The loops from planes of logits to labels on a finer grid, compiled as those of `kernels` are.

A linearly interpolated logit is a weighted mean of its neighbours'. Where one head is the highest (or, with regions,
the last above 0) at all eight corners of a cell of the network's grid, it is so at every point in it. So each cell is
looked at once, voxels are filled from the cell they lie in, and only those in cells whose corners disagree are
computed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from operators.nnunet.kernels import NOTHING, UNSURE, compiled, inlined

Layer = tuple[NDArray[np.float32], int, NDArray[np.float32], NDArray[np.int64], NDArray[np.int16]]
"""A plane: sums (head, ring of planes, y, x) and its place in the ring, weights of tiles (plane of a tile, y, x) and
which of these planes add up to those of its voxels, winners (y, x)."""
Rows = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]
"""For each output row: its two neighbours, and its distance from the first as a share of theirs."""
Columns = tuple[NDArray[np.uint32], NDArray[np.float32], NDArray[np.uint32]]
"""For each output column: its first neighbour, from left to right, and its distance from it as a share of that between
it and the next one, which is the second neighbour: or else the share is 0. For each column of the network's grid, and
for the end of them: the first output column whose first neighbour is it or one after it."""


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


@inlined
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
    column_first, column_share, column_start = columns
    heads, width, count = below[0].shape[0], below[0].shape[3], painted.shape[1]
    agreed = agreed_cells(below[4], above[4])
    cells, line = np.empty(width, np.int16), np.empty(count, painted.dtype)
    unsure, corners = np.empty((count, 2), np.uint32), np.empty(width, np.uint32)
    shares, mixed = np.empty((4, width), np.float32), np.empty((heads, width), np.float32)
    best, winner = np.empty(width, np.float32), np.empty(width, np.int32)
    unsure_count = corner_count = 0
    for row in range(painted.shape[0]):
        y, y_next = row_first[row], row_second[row]
        if row == 0 or y != row_first[row - 1] or y_next != row_second[row - 1]:
            if _cells_between(agreed[y], agreed[y_next], cells):
                value = values[cells[0] + 2]
                for column in range(count):
                    line[column] = value
                unsure_count = corner_count = 0
            else:
                unsure_count, corner_count = _fill_line(cells, columns, values, line, unsure, corners)
        for column in range(count):
            painted[row, column] = line[column]
        if unsure_count == 0:
            continue
        between = y, y_next, row_share[row]
        found = shares, mixed, best, winner
        _mix(below, above, np.float32(height), between, corners[:corner_count], has_regions, found)
        for index in range(unsure_count):
            column, corner = unsure[index, 0], unsure[index, 1]
            head = winner[corner]
            if head != winner[min(corner + 1, corner_count - 1)]:
                head = _winner_between(mixed, corner, column_share[column], has_regions)
            painted[row, column] = values[head + 2]


@inlined
def _fill_line(
    cells: NDArray[np.int16],
    columns: Columns,
    values: NDArray[np.unsignedinteger],
    line: NDArray[np.unsignedinteger],
    unsure: NDArray[np.uint32],
    corners: NDArray[np.uint32],
) -> tuple[int, int]:
    """Paint the voxels of a row that lie in cells which agree on a winner.

    Parameters
    ----------
    cells
        What each cell agrees on.
    columns, values
        As `paint_plane` takes them.
    line
        Gets (column).
    unsure, corners
        Get the columns of the other voxels, each with the place of its first neighbour among the corners of their
        cells (voxel, 2), and these corners' columns of the network's grid.

    Returns
    -------
    How many these are.
    """
    column_first, _, column_start = columns
    unsure_count, corner_count, x, width = 0, 0, 0, cells.size
    while x < width:
        start, cell = x, cells[x]
        x += 1
        while x < width and cells[x] == cell:
            x += 1
        if cell != UNSURE:
            value = values[cell + 2]
            for column in range(column_start[start], column_start[x]):
                line[column] = value
            continue
        for column in range(column_start[start], column_start[x]):
            unsure[unsure_count, 0], unsure[unsure_count, 1] = column, column_first[column] - start + corner_count
            unsure_count += 1
        for corner in range(start, min(x + 1, width)):
            corners[corner_count] = corner
            corner_count += 1
    return unsure_count, corner_count


@inlined
def _winner_between(mixed: NDArray[np.float32], x: np.uint32, right: np.float32, has_regions: bool) -> int:
    """Return the winner between a corner and the next of a row of logits (head, corner)."""
    left, following = np.float32(1) - right, np.uint64(x) + np.uint64(1)
    winner, best = (NOTHING, np.float32(0)) if has_regions else (0, np.float32(-np.inf))
    for head in range(mixed.shape[0]):
        value = mixed[head, x] * left + mixed[head, following] * right
        winner = head if value > best else winner
        best = value if value > best and not has_regions else best
    return winner


@inlined
def _mix(
    below: Layer,
    above: Layer,
    up: np.float32,
    between: tuple[int, int, np.float32],
    corners: NDArray[np.uint32],
    has_regions: bool,
    found: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]],
) -> None:
    """Interpolate logits across a row, at some columns of the network's grid, and find their winners.

    Parameters
    ----------
    below, above
        The planes.
    up
        How far the row is above the lower plane, as a share of their distance.
    between
        The rows of the planes that it lies between, and its distance from the first as a share of theirs.
    corners
        The columns.
    has_regions
        Whether the winner is the last head above 0, or the first of the highest.
    found
        Gets what the four sums count for in the logits (4, corner), the logits (head, corner), the highest (corner)
        and the winners (corner).
    """
    lower, lower_slot, weights, lower_places, _ = below
    upper, upper_slot, _, upper_places, _ = above
    y, y_next, down = np.uint64(between[0]), np.uint64(between[1]), between[2]
    low, high = np.uint64(lower_slot), np.uint64(upper_slot)
    shares, mixed, best, winner = found
    one = np.float32(1)
    # a loop for each array that is written: of more the compiler does not see that they don't overlap, and takes one
    # number at a time
    for side in range(4):
        places = lower_places if side < 2 else upper_places
        row = y if side % 2 == 0 else y_next
        share = (one - up if side < 2 else up) * (one - down if side % 2 == 0 else down)
        for corner in range(corners.size):
            shares[side, corner] = 0
        for index in range(places.size):
            place = np.uint64(places[index])
            for corner in range(corners.size):
                shares[side, corner] += weights[place, row, corners[corner]]
        for corner in range(corners.size):
            shares[side, corner] = share * (one / shares[side, corner])
    for corner in range(corners.size):
        winner[corner] = NOTHING if has_regions else 0
    for corner in range(corners.size):
        best[corner] = 0 if has_regions else -np.inf
    for head in range(np.uint64(mixed.shape[0])):
        for corner in range(corners.size):
            x = corners[corner]
            mixed[head, corner] = (
                lower[head, low, y, x] * shares[0, corner]
                + lower[head, low, y_next, x] * shares[1, corner]
                + upper[head, high, y, x] * shares[2, corner]
                + upper[head, high, y_next, x] * shares[3, corner]
            )
        for corner in range(corners.size):
            is_higher = mixed[head, corner] > best[corner]
            winner[corner] = np.int32(head) if is_higher else winner[corner]
            best[corner] = mixed[head, corner] if is_higher and not has_regions else best[corner]
