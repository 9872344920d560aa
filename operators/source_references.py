"""Which slices a result was derived from: its references to instances, and to frames of them.

highdicom can refer to single-frame images, or to one multi-frame image whose frames share orientation and spacing in
its Shared Functional Groups. A series may be several multi-frame images, or say these frame by frame. So highdicom is
given a stand-in for each slice, and its references to the stand-ins become references to what they stand for.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pydicom
from pydicom.uid import UID
from pydicom.valuerep import DSfloat

from operators.derived_uids import derived_uid
from operators.instances import MULTI_FRAME_SOP_CLASSES
from operators.series_volume import SeriesVolume
from operators.source_identity import normalised_headers, with_same_elements


@dataclass(frozen=True)
class SliceReference:
    """Where a slice's pixels are."""

    sop_class_uid: UID
    sop_instance_uid: UID
    frame_number: int | None
    """From 1; None if the instance is a single-frame image."""


def slice_references(series: SeriesVolume) -> list[SliceReference]:
    """Return what to refer to for each slice of the first channel, in their order."""
    frame_numbers = series.frame_numbers or (None,) * len(series.datasets)
    return [
        SliceReference(header.SOPClassUID, header.SOPInstanceUID, frame_number)
        for header, frame_number in zip(series.datasets, frame_numbers, strict=True)
    ]


class SourceReferences:
    """Items that refer to the slices of a series' first channel."""

    def __init__(self, series: SeriesVolume) -> None:
        self._slices = slice_references(series)
        self._stood_for = {_stand_in(one): one for one in self._slices}
        frames = Counter(one.sop_instance_uid for one in self._slices if one.frame_number is not None)
        self._frame_counts = {uid: count + len(series.dropped.get(str(uid), ())) for uid, count in frames.items()}

    def images(self, indices: Iterable[int] | None = None) -> list[pydicom.Dataset]:
        """Return items that refer to the slices with these indices, or to all (Image SOP Instance Reference Macro).

        Each instance has one item. Frames are named where not all of their instance's are meant (PS3.3 table 10-3).
        """
        items = []
        for one in self._slices if indices is None else [self._slices[index] for index in indices]:
            item = pydicom.Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.sop_class_uid, _stand_in(one)
            items.append(item)
        return self.in_place_of(items)

    def in_place_of(self, items: Iterable[pydicom.Dataset], *, with_frames: bool = True) -> list[pydicom.Dataset]:
        """Return items that refer to what the stand-ins (`single_frame_headers`) in `items` stand for.

        Each instance has the first of its items, with what else that says. Others stay as they are.
        """
        found: dict[UID, pydicom.Dataset] = {}
        frames: dict[UID, list[int]] = defaultdict(list)
        for item in items:
            reference = self._stood_for.get(item.ReferencedSOPInstanceUID)
            if reference is None:
                found.setdefault(item.ReferencedSOPInstanceUID, item)
                continue
            first = found.setdefault(reference.sop_instance_uid, item)
            first.ReferencedSOPClassUID = reference.sop_class_uid
            first.ReferencedSOPInstanceUID = reference.sop_instance_uid
            if reference.frame_number is not None:
                frames[reference.sop_instance_uid].append(reference.frame_number)
        for uid, numbers in frames.items():
            if with_frames and len(numbers) < self._frame_counts[uid]:
                found[uid].ReferencedFrameNumber = sorted(numbers)
        return list(found.values())


def distinct_instances(headers: Sequence[pydicom.Dataset]) -> list[pydicom.Dataset]:
    """Return the first header of each instance: frames have that of their instance each."""
    found: dict[str, pydicom.Dataset] = {}
    for header in headers:
        found.setdefault(str(header.SOPInstanceUID), header)
    return list(found.values())


def single_frame_headers(series: SeriesVolume) -> list[pydicom.Dataset]:
    """Return the slices' headers, those of frames as single-frame images with UIDs of their own that stand for them.

    What highdicom writes of them is to be given to `refer_to_sources`. Elements are shared with the series' own.
    """
    found = []
    for header, reference in zip(series.datasets, slice_references(series), strict=True):
        if reference.frame_number is not None:
            header = with_same_elements(header)
            del header.SOPClassUID, header.SOPInstanceUID
            header.SOPClassUID = MULTI_FRAME_SOP_CLASSES[reference.sop_class_uid]
            header.SOPInstanceUID = _stand_in(reference)
        found.append(header)
    return found


def source_images(series: SeriesVolume) -> list[pydicom.Dataset]:
    """Return the slices' headers as highdicom takes source images: `single_frame_headers`, made fit.

    All have the first's orientation, of which others differ by rounding at most: highdicom wants it the same to the
    last digit. A slice alone states the spacing that its volume has, for which highdicom would write 1 mm.
    """
    spacing = float(series.volume.spacing_between_slices)
    headers = normalised_headers(single_frame_headers(series), spacing)
    if len(headers) == 1:
        headers[0].SpacingBetweenSlices = DSfloat(spacing, auto_format=True)
    orientation = headers[0].ImageOrientationPatient
    found = []
    for header in headers:
        if header.ImageOrientationPatient != orientation:
            header = with_same_elements(header)
            header["ImageOrientationPatient"] = headers[0]["ImageOrientationPatient"]
        found.append(header)
    return found


def refer_to_sources(result: pydicom.Dataset, series: SeriesVolume) -> None:
    """Replace what `result` says of stand-ins by what they stand for.

    What is said of one slice is then said of its frame, by Referenced Frame Number (PS3.3 10.3). What is said of the
    whole names each source instance once: without frames, and so all of them, unless some were left out of the series.
    """
    if not any(series.frame_numbers):
        return
    references = SourceReferences(series)
    for holder, keyword in _references(result):
        items = holder.get(keyword)
        if items:
            setattr(holder, keyword, references.in_place_of(items, with_frames=keyword != "ReferencedInstanceSequence"))


def _stand_in(reference: SliceReference) -> UID:
    if reference.frame_number is None:
        return reference.sop_instance_uid
    return derived_uid(str(reference.sop_instance_uid), "frame", str(reference.frame_number))


def _references(result: pydicom.Dataset) -> Iterator[tuple[pydicom.Dataset, str]]:
    """Where Segmentations and presentation states refer to their images: data set, and keyword of the references."""
    yield result, "SourceImageSequence"
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for groups in result.get(keyword, ()):
            for derivation in groups.get("DerivationImageSequence", ()):
                yield derivation, "SourceImageSequence"
    for one in result.get("ReferencedSeriesSequence", ()):
        yield one, "ReferencedInstanceSequence"
        yield one, "ReferencedImageSequence"
    for keyword in ("GraphicAnnotationSequence", "SoftcopyVOILUTSequence", "DisplayedAreaSelectionSequence"):
        for one in result.get(keyword, ()):
            yield one, "ReferencedImageSequence"
