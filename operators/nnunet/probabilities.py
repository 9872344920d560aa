"""An ensemble of configurations: the mean of their probabilities, as ``nnunetv2.ensembling`` takes it.

Each network has its own grid, so that probabilities can only meet on the scanner's. To hold them all there would need
image times labels times networks; here each network's logits are kept on disk, on its own grid, and met plane by plane.

Where a network's neighbours all have one winner, that winner has the highest probability between them too (or, with
regions, one above a half); where all networks agree on it, so does their mean. Only the other voxels are computed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from operators.nnunet.kernels import NOTHING, UNSURE
from operators.nnunet.painting import sure_winners
from operators.nnunet.plans import Configuration
from operators.nnunet.postprocess import Canvas, OutputGrid
from operators.nnunet.preprocess import Placement
from operators.nnunet.probability_maps import ProbabilityMaps, probabilities_of
from operators.nnunet.sliding_window import Plane

_HALF = 0.5
_POINTS = 1 << 16
"""Voxels computed at once."""


@dataclass(frozen=True)
class _StoredPlane:
    """One plane as it was stored."""

    logits: NDArray[np.float32]
    """(head, y, x)."""
    winners: NDArray[np.int16]
    """(y, x)."""


class StoredPlanes:
    """The planes of one network on disk; a context manager. Reading keeps the last two."""

    def __init__(self, planes: Iterable[Plane], folder: Path | None) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
        self._shape: tuple[int, ...] = ()
        self._winners: list[NDArray[np.int16]] = []
        self._held: dict[int, _StoredPlane] = {}
        for plane in planes:
            logits = plane.logits
            self._shape = logits.shape
            self._file.write(logits.tobytes())
            self._winners.append(plane.winners.copy())

    def __enter__(self) -> StoredPlanes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def plane(self, index: int) -> _StoredPlane:
        """Return plane `index`."""
        if index not in self._held:
            self._held = {other: plane for other, plane in self._held.items() if other == index - 1}
            count = int(np.prod(self._shape))
            self._file.seek(4 * count * index)
            logits = np.frombuffer(self._file.read(4 * count), np.float32).reshape(self._shape)
            self._held[index] = _StoredPlane(logits, self._winners[index])
        return self._held[index]


@dataclass(frozen=True)
class Member:
    """One network of the ensemble and what it said."""

    planes: StoredPlanes
    placement: Placement
    configuration: Configuration


def paint_mean(members: Sequence[Member], maps: ProbabilityMaps | None = None) -> NDArray[Any]:
    """Return the labels of the mean of the members' probabilities, axes z, y, x, on the grid the image came on.

    All members have the same labels and the same transposed axes. `maps` gets the mean itself, if it is given.
    """
    first = members[0]
    if maps is not None:
        maps.begin(first.placement, first.configuration)
    canvas = Canvas(first.placement, first.configuration)
    has_regions = first.configuration.labels.has_regions
    grids = [OutputGrid.of(member.placement, member.configuration) for member in members]
    for index in range(first.placement.cropped_shape[0]):
        views = [_View(member.planes, grid, index) for member, grid in zip(members, grids, strict=True)]
        winners = views[0].sure_winners()
        for view in views[1:]:
            winners[winners != view.sure_winners()] = UNSURE
        rows, columns = np.nonzero(winners == UNSURE)
        for start in range(0, len(rows), _POINTS):
            points = rows[start : start + _POINTS], columns[start : start + _POINTS]
            total = sum(probabilities_of(view.logits(*points), has_regions=has_regions) for view in views)
            winners[points] = _winners(np.asarray(total) / len(views), has_regions)
        canvas.paint(index, canvas.values[winners - UNSURE])
        if maps is not None:
            maps.keep_probabilities(index, _mean_of_all(views, winners.shape, has_regions))
    return canvas.labels


def _mean_of_all(views: Sequence[_View], shape: tuple[int, ...], has_regions: bool) -> NDArray[np.float32]:
    """The mean of the members' probabilities at all voxels of a plane: (head, y, x)."""
    rows, columns = (axis.reshape(-1) for axis in np.indices(shape))
    parts = []
    for start in range(0, len(rows), _POINTS):
        points = rows[start : start + _POINTS], columns[start : start + _POINTS]
        total = sum(probabilities_of(view.logits(*points), has_regions=has_regions) for view in views)
        parts.append((np.asarray(total) / len(views)).astype(np.float32))
    return np.concatenate(parts, axis=1).reshape(-1, *shape)


def _winners(probabilities: NDArray[Any], has_regions: bool) -> NDArray[Any]:
    if not has_regions:
        return np.asarray(probabilities.argmax(axis=0))
    found = probabilities > _HALF
    last = len(found) - 1 - found[::-1].argmax(axis=0)
    return np.where(found.any(axis=0), last, NOTHING)


class _View:
    """One member at one plane of the output."""

    def __init__(self, planes: StoredPlanes, grid: OutputGrid, index: int) -> None:
        self._below = planes.plane(int(grid.planes.first[index]))
        self._above = planes.plane(int(grid.planes.second[index]))
        self._height = np.float32(grid.planes.share[index])
        self._grid = grid
        self._rows, self._columns = grid.rows.of(np.float32), grid.columns.of(np.float32)

    def sure_winners(self) -> NDArray[np.int16]:
        """Return the winner of each voxel whose neighbours agree on it, `UNSURE` elsewhere."""
        winners = np.empty((len(self._rows[0]), len(self._columns[0])), np.int16)
        sure_winners(self._below.winners, self._above.winners, *self._grid.rows_and_columns(), winners)
        return winners

    def logits(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the interpolated logits (head, point) of the voxels at `rows` and `columns`."""
        down, right = self._rows[2][rows], self._columns[2][columns]
        total = np.zeros((self._below.logits.shape[0], len(rows)), np.float32)
        for plane, height in ((self._below, 1 - self._height), (self._above, self._height)):
            for side, vertical in ((0, 1 - down), (1, down)):
                for end, horizontal in ((0, 1 - right), (1, right)):
                    values = plane.logits[:, self._rows[side][rows], self._columns[end][columns]]
                    total += values * (height * vertical * horizontal)
        return total
