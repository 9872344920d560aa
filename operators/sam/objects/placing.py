"""From what a DICOM object shows to prompts on the slices of a series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import highdicom
import numpy as np

from operators.errors import PromptRefused
from operators.sam.objects.prompt_object import (
    Drawing,
    Floats,
    Graphic,
    Mask,
    ObjectPrompt,
    Shape,
)
from operators.sam.objects.rasters import Pixels, SliceMask, cut
from operators.sam.objects.slice_prompts import (
    DrawnOnSlice,
    Line,
    PlacedSlice,
    SliceGrid,
    prompt_on,
    refuse_outside,
    stroke_points,
)
from operators.sam.prompts import Box, Point
from operators.series_volume import SeriesVolume
from operators.source_references import slice_references

_MIDDLE = 0.5
"""From a voxel's index, which is its middle's, to coordinates that begin at its corner."""
_WITHIN_A_SLICE = 1.0
"""An outline whose corners lie apart by so many slices lies in none of them."""

_ROUNDING = 1e-3
"""Voxels: faces that fall together are not told apart by the rounding of two affines."""

Slices = defaultdict[int, DrawnOnSlice]


@dataclass(frozen=True, eq=False)
class PlacedPrompt:
    """One wanted structure on the slices of a series."""

    wanted: ObjectPrompt
    slices: tuple[PlacedSlice, ...]
    """By rising slice index; at least one."""
    grid: SliceGrid
    outside: int = 0
    """Drawings, or of a mask or ellipsoid slices, that lie beyond the series."""

    @property
    def key(self) -> PlacedSlice:
        """The slice to begin with: the largest mask or box, of several the first."""
        return max(self.slices, key=lambda one: one.area)


def place_object(wanted: ObjectPrompt, series: SeriesVolume) -> PlacedPrompt:
    """Return one structure's prompt on the slices of `series`.

    Raises
    ------
    PromptRefused
        ``prompt-outside`` if nothing of it lies in the series, ``frame-of-reference-differs`` if what lies in the
        patient has another frame of reference than the series, ``graphic-unsupported`` if an outline lies across the
        slices, ``prompt-empty`` if a box has no area, ``prompt-too-long`` if there are too many points.
    """
    placing = _Placing.on(series)
    outside = sum(placing.add(drawing) for drawing in wanted.drawings)
    if not placing.slices:
        raise refuse_outside("all that was drawn lies")
    slices = tuple(prompt_on(index, placing.slices[index], placing.grid) for index in sorted(placing.slices))
    return PlacedPrompt(wanted, slices, placing.grid, outside)


def slice_grid(volume: highdicom.Volume) -> SliceGrid:
    """Return the pixels of a volume's slices."""
    _, rows, columns = volume.spatial_shape
    _, between_rows, between_columns = volume.spacing
    return SliceGrid(rows, columns, (float(between_rows), float(between_columns)))


@dataclass(frozen=True, eq=False)
class _Placing:
    """One structure on its way onto the slices of a series. Each method returns how much lies beyond the series."""

    volume: highdicom.Volume
    instances: Mapping[str, Mapping[int, int]]
    """Slice index by SOP Instance UID and frame number; of a single-frame image that is 1."""
    grid: SliceGrid
    to_indices: Floats
    """4x4, from the patient to slice, row and column."""
    slices: Slices

    @classmethod
    def on(cls, series: SeriesVolume) -> _Placing:
        volume = series.volume
        instances: dict[str, dict[int, int]] = defaultdict(dict)
        for index, reference in enumerate(slice_references(series)):
            instances[str(reference.sop_instance_uid)][reference.frame_number or 1] = index
        inverse = np.linalg.inv(np.asarray(volume.affine, np.float64))
        return cls(volume, instances, slice_grid(volume), inverse, defaultdict(DrawnOnSlice))

    def add(self, drawing: Drawing) -> int:
        if isinstance(drawing, Mask):
            self._check_frame_of_reference(str(drawing.volume.frame_of_reference_uid or ""))
            return self._add_mask(drawing.volume)
        if drawing.image is not None:
            return self._add_on_image(drawing)
        self._check_frame_of_reference(drawing.frame_of_reference_uid)
        return self._add_in_patient(drawing)

    def _check_frame_of_reference(self, uid: str) -> None:
        if not uid or uid != self.volume.frame_of_reference_uid:
            raise PromptRefused(
                "expected a prompt in the frame of reference of the series, got one in "
                f"{'another' if uid else 'none that is named'}; positions of different ones can't be compared",
                code="frame-of-reference-differs",
            )

    def _add_on_image(self, graphic: Graphic) -> int:
        image = graphic.image
        frames = {} if image is None else self.instances.get(image.sop_instance_uid, {})
        named = frames if image is None or not image.frames else image.frames  # none named: all of them (PS3.3 10.3)
        on_slices = [frames[number] for number in named if number in frames]
        return sum(self._add_on_slice(graphic, index) for index in on_slices) if on_slices else 1

    def _add_on_slice(self, graphic: Graphic, index: int) -> int:
        depth = np.full((len(graphic.points), 1), float(index))
        return self._add_points(graphic, np.concatenate([depth, graphic.points[:, ::-1] - _MIDDLE], axis=1))

    def _add_in_patient(self, graphic: Graphic) -> int:
        indices = graphic.points @ self.to_indices[:3, :3].T + self.to_indices[:3, 3]
        return self._add_points(graphic, indices)

    def _add_points(self, graphic: Graphic, indices: Floats) -> int:
        """Add a graphic whose points are at `indices` (n, 3): slice, row, column, of voxels' middles."""
        match graphic.shape:
            case Shape.POINTS:
                return sum(self._add_point(index) for index in indices)
            case Shape.STROKE:
                return sum(self._add_point(index) for index in stroke_points(indices))
            case Shape.LINE:
                return self._add_line(indices)
            case Shape.ELLIPSOID:
                return self._add_ellipsoid(indices)
            case Shape.OUTLINE:
                return self._add_outline(indices, graphic.is_exclusive)

    def _at(self, depth: float) -> DrawnOnSlice | None:
        """The slice that a place lies in; None beyond the first and the last."""
        index = int(np.floor(depth + _MIDDLE))
        return self.slices[index] if 0 <= index < self.volume.spatial_shape[0] else None

    def _add_point(self, index: Floats) -> int:
        drawn = self._at(index[0])
        if drawn is None:
            return 1
        ((x, y),) = _pixels(index[None]).tolist()
        drawn.points.append(Point(x, y))
        return 0

    def _add_line(self, indices: Floats) -> int:
        drawn = self._at(float(indices[:, 0].mean()))
        if drawn is None:
            return 1
        length = float(np.linalg.norm((indices[1] - indices[0]) * self.volume.spacing))
        drawn.lines.append(Line(_pixels(indices), length))
        return 0

    def _add_outline(self, indices: Floats, is_exclusive: bool) -> int:
        depths = indices[:, 0]
        if np.ptp(depths) >= _WITHIN_A_SLICE:
            raise PromptRefused(
                "expected an outline that lies in a slice of the series, got one that crosses several; draw it on the "
                "series itself",
                code="graphic-unsupported",
            )
        drawn = self._at(float(depths.min() + depths.max()) / 2)
        if drawn is None:
            return 1
        drawn.outlines.append(_pixels(indices))
        drawn.has_exclusive |= is_exclusive
        return 0

    def _add_ellipsoid(self, indices: Floats) -> int:
        """A unit ball's image under the half axes: where a slice cuts it, the ball is cut by a plane, in a disc."""
        centre = indices.mean(axis=0)
        halves: Floats = (indices[1::2] - indices[::2]).T / 2  # rows: slice, row, column
        reach = float(np.linalg.norm(halves[0]))
        if reach == 0:
            raise PromptRefused("expected an ellipsoid, got a flat one that lies in a slice", code="prompt-empty")
        low, high = int(np.ceil(centre[0] - reach)), int(np.floor(centre[0] + reach)) + 1
        inside = range(max(low, 0), min(high, self.volume.spatial_shape[0]))
        for index in inside:
            self.slices[index].boxes.append(_cut_box(centre, halves, index - centre[0]))
        return max(0, high - low) - len(inside)

    def _add_mask(self, mask: highdicom.Volume) -> int:
        """Each voxel of the series has the value of the mask's voxel that its middle lies in."""
        affine, own = np.asarray(self.volume.affine, np.float64), np.asarray(mask.affine, np.float64)
        from_series, to_series = np.linalg.inv(own) @ affine, self.to_indices @ own
        faces = [(-_MIDDLE, length - _MIDDLE) for length in mask.spatial_shape]
        corners = np.stack(np.meshgrid(*faces), axis=-1).reshape(-1, 3)
        reach = corners @ to_series[:3, :3].T + to_series[:3, 3]
        low = np.ceil(reach.min(axis=0) - _ROUNDING).astype(int)
        high = np.floor(reach.max(axis=0) + _ROUNDING).astype(int) + 1
        start, stop = np.maximum(low, 0), np.minimum(high, self.volume.spatial_shape)
        inside = range(int(start[0]), int(stop[0]))
        for index in inside:
            found = cut(_sampled(mask, from_series, index, (start[1], stop[1]), (start[2], stop[2])))
            if found is not None:
                placed = SliceMask(found.top + int(start[1]), found.left + int(start[2]), found.pixels)
                self.slices[index].masks.append(placed)
        return int(high[0] - low[0]) - len(inside)


def _pixels(indices: Floats) -> Floats:
    """From (slice, row, column) of voxels' middles to x and y."""
    return indices[:, :0:-1] + _MIDDLE


def _cut_box(centre: Floats, halves: Floats, depth: float) -> Box:
    """The box around the cut at `depth` slices beyond the centre of the ellipsoid with half axes `halves`."""
    normal = halves[0]
    squared = float(normal @ normal)
    radius = np.sqrt(max(0.0, 1 - depth**2 / squared))
    edges = []
    for axis in (2, 1):
        shift = centre[axis] + depth * float(halves[axis] @ normal) / squared + _MIDDLE
        rest = halves[axis] - normal * float(halves[axis] @ normal) / squared
        reach = radius * float(np.linalg.norm(rest))
        edges.append((float(shift - reach), float(shift + reach)))
    (left, right), (top, bottom) = edges
    return Box(left, top, right, bottom)


def _sampled(
    mask: highdicom.Volume, from_series: Floats, index: int, rows: tuple[int, int], columns: tuple[int, int]
) -> Pixels:
    """The mask on part of one slice of the series."""
    down, right = np.arange(*rows)[:, None, None], np.arange(*columns)[None, :, None]
    step = from_series[:3]
    places = step[:, 0] * index + step[:, 1] * down + step[:, 2] * right + step[:, 3]
    nearest = np.floor(places + _MIDDLE).astype(int)
    inside = np.all((nearest >= 0) & (nearest < mask.spatial_shape), axis=-1)
    nearest[~inside] = 0
    sampled: Pixels = inside & mask.array[tuple(np.moveaxis(nearest, -1, 0))]
    return sampled
