"""From blended planes of logits on the network's grid to labels on the scanner's, in nnU-Net v2's order.

Resample the logits, choose the label, put the crop back, transpose back. Choosing before resampling would be cheaper
and is wrong at every edge; what is done here gives the same labels at nearly that price (`painting.paint_plane`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.nnunet.painting import Columns, Rows, paint_plane
from operators.nnunet.plans import Configuration
from operators.nnunet.preprocess import Placement
from operators.nnunet.probability_maps import ProbabilityMaps
from operators.nnunet.resampling import Neighbours, grid_neighbours, separate_axis
from operators.nnunet.sliding_window import Plane


@dataclass(frozen=True)
class OutputGrid:
    """How the scanner's grid, cropped, lies in the network's: the neighbours of each plane, row and column."""

    planes: Neighbours
    rows: Neighbours
    columns: Neighbours
    network_width: int
    """Columns of the network's grid."""

    @classmethod
    def of(cls, placement: Placement, configuration: Configuration) -> OutputGrid:
        """Return the grid to which a network's logits are brought back."""
        plan = configuration.logits_resampling
        apart = separate_axis(placement.network_spacing, placement.spacing, plan)
        planes, rows, columns = grid_neighbours(placement.network_shape, placement.cropped_shape, plan.order, apart)
        return cls(planes, rows, columns, network_width=placement.network_shape[2])

    def rows_and_columns(self) -> tuple[Rows, Columns]:
        """Return rows and columns as the loops of `painting` take them."""
        first, _, share = self.columns.of(np.float32)
        starts = np.searchsorted(first, np.arange(self.network_width + 1))
        return self.rows.of(np.float32), (first.astype(np.uint32), share, starts.astype(np.uint32))

    def pairs(self, planes: Iterable[Plane]) -> Iterator[tuple[int, Plane, Plane]]:
        """Yield each output plane with the two of `planes` that it lies between, as soon as both are there."""
        target, count = 0, len(self.planes.first)
        before: Plane | None = None
        for plane in planes:
            while target < count and self.planes.second[target] <= plane.index:
                first = self.planes.first[target]
                yield target, plane if before is None or first == plane.index else before, plane
                target += 1
            before = plane

    def logits_between(self, below: Plane, above: Plane, index: int) -> NDArray[np.float32]:
        """Return the interpolated logits (head, y, x) of output plane `index`, which lies between two planes."""
        height = np.float32(self.planes.share[index])
        mixed = below.logits if below is above else below.logits * (1 - height) + above.logits * height
        for axis, neighbours in ((1, self.rows), (2, self.columns)):
            first, second, share = neighbours.of(np.float32)
            weight = share.reshape((-1, 1) if axis == 1 else (-1,))
            mixed = mixed.take(first, axis) * (1 - weight) + mixed.take(second, axis) * weight
        return np.asarray(mixed)


def paint_labels(
    planes: Iterable[Plane], placement: Placement, configuration: Configuration, maps: ProbabilityMaps | None = None
) -> NDArray[Any]:
    """Return labels, axes z, y, x, on the grid the image came on; 0 is background and all that was cropped away.

    Parameters
    ----------
    planes
        All planes of the network's grid, by rising index.
    placement
        Where the image came from.
    configuration
        What was planned.
    maps
        Gets the probabilities, if it is given.
    """
    grid = OutputGrid.of(placement, configuration)
    canvas = Canvas(placement, configuration)
    if maps is not None:
        maps.begin(placement, configuration)
    rows, columns = grid.rows_and_columns()
    painted = np.empty((len(grid.rows.first), len(grid.columns.first)), canvas.labels.dtype)
    for index, below, above in grid.pairs(planes):
        paint_plane(
            (below.ring, below.slot, below.weights, below.places, below.winners),
            (above.ring, above.slot, above.weights, above.places, above.winners),
            float(grid.planes.share[index]),
            rows,
            columns,
            configuration.labels.has_regions,
            canvas.values,
            painted,
        )
        canvas.paint(index, painted)
        if maps is not None:
            maps.keep(index, grid.logits_between(below, above, index))
    return canvas.labels


class Canvas:
    """The label map in the making: labels of a cropped, transposed plane go to where they belong."""

    def __init__(self, placement: Placement, configuration: Configuration) -> None:
        forward, backward = configuration.transpose_forward, configuration.transpose_backward
        first, second, third = (placement.shape[axis] for axis in backward)
        self.labels: NDArray[Any] = np.zeros((first, second, third), configuration.labels.dtype)
        """Axes z, y, x, on the grid the image came on."""
        self._cropped = self.labels.transpose(forward)[placement.box]
        self.values = np.array((0, 0, *configuration.labels.values), configuration.labels.dtype)
        """The label of each winner, beginning with those of `UNSURE`, which is never left, and of `NOTHING`."""

    def paint(self, index: int, labels: NDArray[Any]) -> None:
        """Paint plane `index`, labels (y, x)."""
        self._cropped[index] = labels
