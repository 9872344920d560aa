"""The slices that a result was computed from, by the numbers of their files alone, and what a result says of them.

A slice is an instance of a single-frame image or a frame of a multi-frame one (PS3.3 C.7.6.16). The functional groups
are read here once more, apart from the code that read them for the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pydicom

from app.jobs.readback.computed import (
    ComputedLabels,
    Floats,
    corner_positions,
    functional_group,
    require,
    slice_of,
    source_slice_of,
)

SOURCE_KEYWORDS = (
    *("NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "FrameOfReferenceUID"),
    *("SOPClassUID", "SOPInstanceUID"),
)
"""What is asked of a source here."""

Reference = tuple[str, int | None]
"""SOP Instance UID, and of a multi-frame image the frame number, from 1."""
Dropped = Mapping[str, Sequence[int]]
"""SOP Instance UIDs of what the gate left out, with frame numbers where only some of an instance's frames were."""
NOTHING_DROPPED: Dropped = MappingProxyType({})


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


@dataclass(frozen=True)
class SourceSlices:
    """Which slice of the label map each slice of the source is, and what refers to which."""

    indices: Mapping[Reference, int]
    """Of those that the volume was made of."""
    references: Mapping[str, Sequence[Reference]]
    """All slices of each instance, also those that the gate left out."""
    classes: Mapping[str, str]
    """SOP Class UID by SOP Instance UID."""
    offsets: Mapping[int, Floats]
    """How far each slice lies beside its place on the label map's even grid: in slices, rows and columns. What is drawn
    on a source slice lies as far beside it."""

    @property
    def every(self) -> list[int]:
        """All slices of the label map."""
        return list(range(len(self.indices)))

    def named(self, items: Iterable[pydicom.Dataset]) -> list[int]:
        """Return the slices of the label map that the items of a sequence refer to, in order (PS3.3 10.3).

        An item without Referenced Frame Number means its whole instance. Raises ``VerificationFailed`` if an item
        refers to what is no slice of the label map, to an instance as one of another class, or twice to one.
        """
        found: list[int] = []
        seen: set[str] = set()
        for item in items:
            uid = str(item.ReferencedSOPInstanceUID)
            require(uid not in seen, "it refers to a source instance twice")
            seen.add(uid)
            require(self.classes.get(uid) == item.ReferencedSOPClassUID, "it refers to another instance than a source")
            for reference in self._references(uid, item.get("ReferencedFrameNumber")):
                require(reference in self.indices, "it refers to what is no slice of the source that was read")
                found.append(self.indices[reference])
        return sorted(found)

    def _references(self, uid: str, frame_numbers: Any) -> Sequence[Reference]:
        if frame_numbers is None:
            return self.references[uid]
        several = frame_numbers if isinstance(frame_numbers, Sequence) else [frame_numbers]
        return [(uid, int(number)) for number in several]


def check_grid(
    labels: ComputedLabels, sources: Sequence[pydicom.Dataset], dropped: Dropped = NOTHING_DROPPED
) -> SourceSlices:
    """Return which slice of the label map each slice of the source is: same rows, same columns, same place.

    Parameters
    ----------
    dropped
        Instances and frames that were left out.

    Raises ``VerificationFailed`` if any of either is left over.
    """
    everything = [plane for source in sources for plane in source_planes(source)]
    planes = [plane for plane in everything if not _is_dropped(plane.reference, dropped)]
    require(len(planes) == labels.array.shape[0], "the label map has another number of slices than the series")
    found: dict[int, Reference] = {}
    offsets: dict[int, Floats] = {}
    for plane in planes:
        source = plane.instance
        require((source.Rows, source.Columns) == labels.array.shape[1:], "the label map's matrix is not the source's")
        require(str(source.FrameOfReferenceUID) == labels.frame_of_reference_uid, "the frame of reference")
        corners = corner_positions(plane.position, plane.orientation, plane.spacing, source)
        index = source_slice_of(labels, corners)
        found[index] = plane.reference
        offsets[index] = labels.indices(corners[:1])[0] - np.array([index, 0, 0])
    require(len(found) == len(planes), "two source slices fall on one slice of the label map")
    references: dict[str, list[Reference]] = {}
    for plane in everything:
        references.setdefault(plane.reference[0], []).append(plane.reference)
    classes = {str(source.SOPInstanceUID): str(source.SOPClassUID) for source in sources}
    return SourceSlices({reference: index for index, reference in found.items()}, references, classes, offsets)


def _is_dropped(reference: Reference, dropped: Dropped) -> bool:
    uid, number = reference
    frames = dropped.get(uid)
    return frames is not None and (not frames or number in frames)


def check_derivations(dataset: pydicom.Dataset, labels: ComputedLabels, slices: SourceSlices) -> None:
    """Check that each frame that says what it was derived from names the source's slice of its place, the whole all.

    Raises ``VerificationFailed`` if one names another instance or another frame.
    """
    whole = [one for one in _sources_of(dataset) if str(one.ReferencedSOPInstanceUID) in slices.classes]
    require(slices.named(whole) == slices.every, "its source images are not the slices that were read")
    (shared,) = dataset.SharedFunctionalGroupsSequence
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        position = functional_group(groups, shared, "PlanePositionSequence").ImagePositionPatient
        orientation = functional_group(groups, shared, "PlaneOrientationSequence").ImageOrientationPatient
        spacing = functional_group(groups, shared, "PixelMeasuresSequence").PixelSpacing
        corners = corner_positions(position, orientation, spacing, dataset)
        index = slice_of(labels, corners, "a frame lies elsewhere than the label map's slices")
        for derivation in groups.get("DerivationImageSequence", ()):
            for item in derivation.get("SourceImageSequence", ()):
                here = slices.named([item]) == [index]
                require(here, "a frame names another source slice than the one at its place")


def _sources_of(dataset: pydicom.Dataset) -> Iterable[pydicom.Dataset]:
    """What the whole was derived from: all instances that it refers to, unless it names its source images."""
    if "SourceImageSequence" in dataset:
        yield from dataset.SourceImageSequence
        return
    for series in dataset.ReferencedSeriesSequence:
        yield from series.ReferencedInstanceSequence
