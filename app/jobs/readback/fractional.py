"""A FRACTIONAL Segmentation, decoded by pydicom and held against the probabilities: not through what wrote it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.utils import pixel_array

from app.graph import FindingRecord
from app.jobs.readback.computed import ComputedLabels, require
from app.jobs.readback.segments import check_segments, frame_slices, referenced_segment_number

_ROUNDING = 1e-6
"""Of float32, beside half a step of what is stored."""


def check_fractional(
    dataset: pydicom.Dataset,
    labels: ComputedLabels,
    finding: FindingRecord,
    probabilities: Iterable[tuple[int, NDArray[np.floating]]],
) -> None:
    """Check segments, places and values. Raises ``VerificationFailed`` if anything is not what was computed.

    Parameters
    ----------
    labels
        Where the grid lies.
    probabilities
        Label value and probabilities of each segment, in any order: axes slice, row, column, on the grid of `labels`.
        They are asked for one after the other and not kept.
    """
    kind = (dataset.SegmentationType, dataset.SegmentationFractionalType, dataset.BitsAllocated)
    require(kind == ("FRACTIONAL", "PROBABILITY", 8), "it is no FRACTIONAL Segmentation of probabilities")
    check_segments(dataset.SegmentSequence, finding)
    frames = _frames(dataset, labels)
    numbers = {segment.label_value: segment.number for segment in finding.segments}
    for value, computed in probabilities:
        require(value in numbers, "there are more probabilities than segments, or of other labels")
        require(computed.shape == labels.array.shape, "the probabilities lie on another grid than the label map")
        _check_values(dataset, numbers.pop(value), computed, frames)
    require(not numbers, "there are segments without probabilities")
    require(not frames, "there are frames of other segments")


def _frames(dataset: pydicom.Dataset, labels: ComputedLabels) -> dict[tuple[int, int], int]:
    """The frames' indices by segment number and slice."""
    frames: dict[tuple[int, int], int] = {}
    for index, (groups, plane) in enumerate(frame_slices(dataset, labels)):
        place = (referenced_segment_number(dataset, groups), plane)
        require(place not in frames, "two frames show one slice of a segment")
        frames[place] = index
    require(len(frames) == dataset.NumberOfFrames, "it has another number of frames than it describes")
    return frames


def _check_values(
    dataset: pydicom.Dataset, number: int, computed: NDArray[np.floating], frames: dict[tuple[int, int], int]
) -> None:
    """Each value is stored as the nearest step, and what has no frame is 0; takes the frames out of `frames`."""
    highest = float(dataset.MaximumFractionalValue)
    for plane, expected in enumerate(computed):
        index = frames.pop((number, plane), None)
        stored = 0.0 if index is None else pixel_array(dataset, index=index) / highest
        near = np.abs(stored - expected) <= 0.5 / highest + _ROUNDING
        require(bool(np.all(near)), f"the probabilities of segment {number} differ")
