"""How sure the network is of each label at each voxel of the scanner's grid, kept on disk in steps of 1/255.

nnU-Net's labels are the winners among these (`postprocess`, `probabilities`); to keep them all takes a byte a voxel and
label, so it is done only where somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from operators.nnunet.plans import Configuration
from operators.nnunet.preprocess import Placement

if TYPE_CHECKING:  # the exporter environment computes labels too, and has no highdicom
    import highdicom

STEPS = 255
"""What a probability of 1 is kept as."""


class ProbabilityMaps:
    """Takes probabilities plane by plane, and gives them back label by label.

    Parameters
    ----------
    path
        The file: ``.npy`` of uint8, axes label by rising value, z, y, x.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._heads: list[list[int]] = []
        self._has_regions = False
        self._cropped: list[NDArray[np.uint8]] = []
        self._stored: NDArray[np.uint8] | None = None

    def begin(self, placement: Placement, configuration: Configuration) -> None:
        """Make room for the labels of `configuration` on the grid of `placement`; all is 0 that was cropped away."""
        labels, backward = configuration.labels, configuration.transpose_backward
        values = sorted(labels.painted)
        self._heads = [[head for head, one in enumerate(labels.values) if one == value] for value in values]
        self._has_regions = labels.has_regions
        shape = (len(values), *(placement.shape[axis] for axis in backward))
        stored: NDArray[np.uint8] = np.lib.format.open_memmap(self.path, mode="w+", dtype=np.uint8, shape=shape)
        self._cropped = [one.transpose(configuration.transpose_forward)[placement.box] for one in stored]
        self._stored = stored

    def keep(self, index: int, logits: NDArray[np.float32]) -> None:
        """Keep what the logits (head, y, x) of plane `index` of the cropped grid say."""
        self.keep_probabilities(index, probabilities_of(logits, has_regions=self._has_regions))

    def keep_probabilities(self, index: int, probabilities: NDArray[Any]) -> None:
        """Keep the probabilities (head, y, x) of plane `index` of the cropped grid.

        Where several regions are painted as one label, it is as probable as the most probable of them.
        """
        for heads, target in zip(self._heads, self._cropped, strict=True):
            target[index] = np.rint(probabilities[heads].max(axis=0) * STEPS)

    def turn(self, turned: highdicom.Volume, grid: highdicom.Volume) -> None:
        """Bring what was kept on the grid of `turned` to that of `grid`: the same voxels, otherwise turned."""
        if self._stored is None or turned.geometry_equal(grid):
            return
        kept, self._stored, self._cropped = self._stored, None, []
        aside = self.path.with_suffix(".turned")
        shape = (len(kept), *grid.spatial_shape)
        stored: NDArray[np.uint8] = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=shape)
        for label, target in zip(kept, stored, strict=True):
            target[...] = turned.with_array(np.asarray(label)).match_geometry(grid).array
        aside.replace(self.path)


def probabilities_of(logits: NDArray[Any], *, has_regions: bool) -> NDArray[Any]:
    """Softmax over the heads; with regions, each head's sigmoid."""
    if has_regions:
        return np.asarray(1 / (1 + np.exp(-logits)))
    exponentials = np.exp(logits - logits.max(axis=0))
    return np.asarray(exponentials / exponentials.sum(axis=0))


def kept_probabilities(path: Path) -> Iterator[NDArray[np.float32]]:
    """Yield the probabilities in `path`, axes slice, row, column, of one label after the other by rising value."""
    for label in np.load(path, mmap_mode="r"):
        yield label.astype(np.float32) / STEPS
