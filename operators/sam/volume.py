"""Prompts on a volume in patient coordinates, and a label map on its grid.

Works on any orientation of acquisition: slices are what the volume has along its first axis, whichever way they lie in
the patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Literal

import highdicom
import numpy as np
from numpy.typing import NDArray

from operators.errors import PromptRefused
from operators.label_maps import MOST_LABELS
from operators.sam.contract import Contract
from operators.sam.following import follow_structure, kept_parts
from operators.sam.frames import framed_prompt
from operators.sam.laying import Layers, Overlap
from operators.sam.predictor import SlicePrediction, SlicePredictor
from operators.sam.prompts import SlicePrompt
from operators.sam.propagation import Progress
from operators.sam.windowing import Window, to_bytes

_HALF_A_VOXEL = 0.5
_ROUNDING = 1e-6
"""Of a voxel: a place on the outer face itself is inside, whatever the affine's last bit says."""

Reach = Literal["slice", "structure"] | tuple[int, int]
"""How far a prompt reaches: its slice alone; on through the stack until nothing is found; from one slice to another,
both included."""


@dataclass(frozen=True)
class VolumePrompt:
    """A prompt for one object of a volume."""

    slice_index: int
    """The slice that it was drawn on, from 0, along the volume's first axis."""
    prompt: SlicePrompt
    """In that slice's pixels."""
    label: int
    """The object's value in the label map, 1 to `MOST_LABELS`. Several prompts may have one, on several slices."""
    reach: Reach = "slice"


@dataclass(frozen=True, eq=False)
class SegmentedVolume:
    """What prompts show on a volume."""

    labels: highdicom.Volume
    """The volume's geometry; uint8, or uint16 where a label needs it. 0 where no object is."""
    overlaps: tuple[Overlap, ...]
    """Objects that gave voxels to smaller ones."""


@dataclass(frozen=True)
class Place:
    """Where a point of the patient lies in a volume."""

    slice_index: int
    """The slice it is nearest to."""
    x: float
    """In pixels from the left face of the first column; the middle of that column is at 0.5."""
    y: float
    """In pixels from the upper face of the first row."""


def place_in_volume(position: Sequence[float], volume: highdicom.Volume, *, frame_of_reference_uid: str) -> Place:
    """Return where a position lies in `volume`.

    Parameters
    ----------
    position
        x, y, z in patient coordinates (LPS), mm.
    volume
        Axes slice, row, column.
    frame_of_reference_uid
        The one that the position is given in.

    Raises
    ------
    PromptRefused
        ``frame-of-reference-differs`` if it is another than the volume's; ``prompt-outside`` if the position lies
        outside the outer faces of the volume's voxels; ``prompt-not-finite`` if a coordinate is no number.
    """
    if frame_of_reference_uid != volume.frame_of_reference_uid:
        raise PromptRefused(
            "the prompt was drawn in another frame of reference than the series has, so that its place there is "
            "unknown; prompt on the series itself, or on one that is registered with it",
            code="frame-of-reference-differs",
        )
    place = np.asarray(position, np.float64)
    if place.shape != (3,) or not np.isfinite(place).all():
        raise PromptRefused("a position must be three finite numbers, x, y and z in mm", code="prompt-not-finite")
    index = (np.linalg.inv(volume.affine) @ np.append(place, 1.0))[:3]
    edge = _HALF_A_VOXEL + _ROUNDING
    shape = np.array(volume.spatial_shape)
    if (index < -edge).any() or (index > shape - 1 + edge).any():
        raise PromptRefused(
            f"the prompt lies outside the series: at slice {index[0]:.1f}, row {index[1]:.1f}, column {index[2]:.1f}, "
            f"counted from 0, of {' by '.join(map(str, shape))}; choose the series that it was drawn on",
            code="prompt-outside",
        )
    nearest = int(np.clip(np.floor(index[0] + _HALF_A_VOXEL), 0, shape[0] - 1))
    y, x = np.clip(index[1:] + _HALF_A_VOXEL, 0, shape[1:])
    return Place(nearest, float(x), float(y))


class Shown:
    """The slices of a volume as a window shows them, each made when it is asked for."""

    def __init__(self, volume: highdicom.Volume, window: Window, *, zero_stays_black: bool = False) -> None:
        self._slices: NDArray[np.float32] = volume.array
        self._show = partial(to_bytes, window=window, zero_stays_black=zero_stays_black)

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self._show(self._slices[index])


def segment_volume(
    volume: highdicom.Volume,
    prompts: Sequence[VolumePrompt],
    predictor: SlicePredictor,
    shown: Shown,
    progress: Progress | None = None,
) -> SegmentedVolume:
    """Return a label map of what the prompts show.

    Parameters
    ----------
    volume
        Axes slice, row, column, as `operators.series_volume` reads a series.
    prompts
        What is meant. Where objects overlap, the one with fewer voxels has the voxel (`operators.sam.laying`).
    predictor
        The generalist.
    shown
        The slices of `volume`.
    progress
        Told the prompts that are done, and how many there are.

    Raises
    ------
    PromptRefused
        ``prompt-outside`` if a prompt's slice is not in the volume, ``prompt-label`` if a label is not 1 to
        `MOST_LABELS`, ``prompt-empty`` if there are no prompts; else as `follow_structure`. Nothing is computed then.
    InferenceFailed
        If a network does not answer.
    """
    report = progress or (lambda done, total: None)
    _check(prompts, volume.spatial_shape, predictor.contract)
    layers = Layers()
    on_slice: dict[int, list[int]] = {}
    for number, placed in enumerate(prompts):
        if placed.reach == "slice":
            on_slice.setdefault(placed.slice_index, []).append(number)
    waiting: dict[int, SlicePrediction] = {}
    for number, placed in enumerate(prompts):
        if placed.reach == "slice":
            if number not in waiting:  # all on this slice go to the decoder together
                together = on_slice[placed.slice_index]
                asked = [prompts[one].prompt for one in together]
                waiting.update(zip(together, predictor.predict(shown[placed.slice_index], asked), strict=True))
            layers.add(placed.label, placed.slice_index, waiting.pop(number).mask)
        else:
            _follow(layers, placed, predictor, shown)
        report(number + 1, len(prompts))
    labels, overlaps = layers.laid(volume.spatial_shape)
    return SegmentedVolume(volume.with_array(labels), overlaps)


def _follow(layers: Layers, placed: VolumePrompt, predictor: SlicePredictor, shown: Shown) -> None:
    """Add an object that goes through several slices."""
    slices = placed.reach if isinstance(placed.reach, tuple) else None
    with closing(follow_structure(predictor, shown, placed.slice_index, placed.prompt, slices=slices)) as steps:
        found = {index: prediction.mask for index, prediction in steps}
    for index, mask in kept_parts(found, predictor.contract).items():
        layers.add(placed.label, index, mask)


def _check(prompts: Sequence[VolumePrompt], shape: tuple[int, int, int], contract: Contract) -> None:
    if not prompts:
        raise PromptRefused("expected at least one prompt, got none", code="prompt-empty")
    for placed in prompts:
        if not 1 <= placed.label <= MOST_LABELS:
            raise PromptRefused(f"a prompt's label must be 1 to {MOST_LABELS}, got {placed.label}", code="prompt-label")
        if not 0 <= placed.slice_index < shape[0]:
            raise PromptRefused(
                f"a prompt is on slice {placed.slice_index}, counted from 0, and the series has {shape[0]}",
                code="prompt-outside",
            )
        framed_prompt(placed.prompt, shape[1], shape[2], contract)
