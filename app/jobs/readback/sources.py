"""The slices that a result was computed from, by the numbers of their files alone, and what a result says of them.

A slice is an instance of a single-frame image or a frame of a multi-frame one (PS3.3 C.7.6.16). The functional groups
are read here once more, apart from the code that read them for the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydicom

from app.jobs.readback.computed import (
    TOLERANCE_VOXELS,
    ComputedLabels,
    corner_positions,
    functional_group,
    require,
    slice_of,
)

SOURCE_KEYWORDS = (
    *("NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "SOPInstanceUID", "FrameOfReferenceUID"),
)
"""What is asked of a source here."""
_SLICE_TOLERANCE_VOXELS = 0.2
"""Of a source slice from its place on an even grid; the series was accepted with less."""

Reference = tuple[str, int | None]
"""SOP Instance UID, and of a multi-frame image the frame number, from 1."""


@dataclass(frozen=True)
class SourcePlane:
    """One slice where its file says that it lies."""

    reference: Reference
    position: Any
    orientation: Any
    spacing: Any
    """Between rows, between columns, in mm."""
    instance: pydicom.Dataset


def source_planes(source: pydicom.Dataset) -> Iterator[SourcePlane]:
    """Yield the slices of one instance."""
    uid = str(source.SOPInstanceUID)
    if "PerFrameFunctionalGroupsSequence" not in source:
        yield SourcePlane(
            (uid, None), source.ImagePositionPatient, source.ImageOrientationPatient, source.PixelSpacing, source
        )
        return
    (shared,) = source.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
    frames = source.PerFrameFunctionalGroupsSequence
    require(len(frames) == int(source.NumberOfFrames), "a source describes another number of frames than it has")
    for number, groups in enumerate(frames, start=1):
        yield SourcePlane(
            (uid, number),
            functional_group(groups, shared, "PlanePositionSequence").ImagePositionPatient,
            functional_group(groups, shared, "PlaneOrientationSequence").ImageOrientationPatient,
            functional_group(groups, shared, "PixelMeasuresSequence").PixelSpacing,
            source,
        )


def check_grid(labels: ComputedLabels, sources: Sequence[pydicom.Dataset]) -> Mapping[int, Reference]:
    """Return which slice of the source each slice of the label map is: same rows, same columns, same place.

    Raises ``VerificationFailed`` if any of either is left over.
    """
    planes = [plane for source in sources for plane in source_planes(source)]
    require(len(planes) == labels.array.shape[0], "the label map has another number of slices than the series")
    found: dict[int, Reference] = {}
    for plane in planes:
        source = plane.instance
        require((source.Rows, source.Columns) == labels.array.shape[1:], "the label map's matrix is not the source's")
        require(str(source.FrameOfReferenceUID) == labels.frame_of_reference_uid, "the frame of reference")
        corners = corner_positions(plane.position, plane.orientation, plane.spacing, source)
        index = slice_of(labels, corners, _SLICE_TOLERANCE_VOXELS, "the label map does not lie on the source")
        found[index] = plane.reference
    require(len(found) == len(planes), "two source slices fall on one slice of the label map")
    return found


def check_derivations(dataset: pydicom.Dataset, labels: ComputedLabels, slices: Mapping[int, Reference]) -> None:
    """Check that each frame that says what it was derived from names the source's slice of its place.

    Raises ``VerificationFailed`` if one names another instance or another frame.
    """
    (shared,) = dataset.SharedFunctionalGroupsSequence
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        position = functional_group(groups, shared, "PlanePositionSequence").ImagePositionPatient
        orientation = functional_group(groups, shared, "PlaneOrientationSequence").ImageOrientationPatient
        spacing = functional_group(groups, shared, "PixelMeasuresSequence").PixelSpacing
        corners = corner_positions(position, orientation, spacing, dataset)
        index = slice_of(labels, corners, TOLERANCE_VOXELS, "a frame lies elsewhere than the label map's slices")
        for derivation in groups.get("DerivationImageSequence", ()):
            for item in derivation.get("SourceImageSequence", ()):
                number = item.get("ReferencedFrameNumber")
                named = (str(item.ReferencedSOPInstanceUID), None if number is None else int(number))
                require(named == slices[index], "a frame names another source slice than the one at its place")
