"""From blended planes of logits on the network's grid to labels on the scanner's, in nnU-Net v2's order.

Resample the logits, choose the label, put the crop back, transpose back. Choosing before resampling would be cheaper
and is wrong at every edge; what is done here gives the same labels at nearly that price (`kernels.paint_plane`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.nnunet.kernels import paint_plane
from operators.nnunet.plans import Configuration
from operators.nnunet.preprocess import Placement
from operators.nnunet.resampling import Neighbours, grid_neighbours, separate_axis
from operators.nnunet.sliding_window import Plane


@dataclass(frozen=True)
class OutputGrid:
    """How the scanner's grid, cropped, lies in the network's: the neighbours of each plane, row and column."""

    planes: Neighbours
    rows: Neighbours
    columns: Neighbours

    @classmethod
    def of(cls, placement: Placement, configuration: Configuration) -> OutputGrid:
        """Return the grid to which a network's logits are brought back."""
        plan = configuration.logits_resampling
        apart = separate_axis(placement.network_spacing, placement.spacing, plan)
        return cls(*grid_neighbours(placement.network_shape, placement.cropped_shape, plan.order, apart))

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


def paint_labels(planes: Iterable[Plane], placement: Placement, configuration: Configuration) -> NDArray[Any]:
    """Return labels, axes z, y, x, on the grid the image came on; 0 is background and all that was cropped away.

    Parameters
    ----------
    planes
        All planes of the network's grid, by rising index.
    placement
        Where the image came from.
    configuration
        What was planned.
    """
    grid = OutputGrid.of(placement, configuration)
    canvas = Canvas(placement, configuration)
    winners = np.empty((len(grid.rows.first), len(grid.columns.first)), np.int32)
    rows, columns = grid.rows.of(np.float32), grid.columns.of(np.float32)
    for index, below, above in grid.pairs(planes):
        paint_plane(
            (below.logits, below.winners),
            (above.logits, above.winners),
            float(grid.planes.share[index]),
            rows,
            columns,
            configuration.labels.has_regions,
            winners,
        )
        canvas.paint(index, winners)
    return canvas.labels


class Canvas:
    """The label map in the making: winners of a cropped, transposed plane go to where they belong."""

    def __init__(self, placement: Placement, configuration: Configuration) -> None:
        forward, backward = configuration.transpose_forward, configuration.transpose_backward
        first, second, third = (placement.shape[axis] for axis in backward)
        self.labels: NDArray[Any] = np.zeros((first, second, third), configuration.labels.dtype)
        """Axes z, y, x, on the grid the image came on."""
        self._cropped = self.labels.transpose(forward)[placement.box]
        # the first entry is for a winner of -1: no region
        self._values = np.array((0, *configuration.labels.values), configuration.labels.dtype)

    def paint(self, index: int, winners: NDArray[np.int32]) -> None:
        """Paint plane `index` with what each voxel's winner (y, x) stands for."""
        self._cropped[index] = self._values[winners + 1]
