"""Which slices a result was derived from: its references to instances, and to frames of them.

highdicom can refer to single-frame images, or to one multi-frame image whose frames share orientation and spacing in
its Shared Functional Groups. A series may be several multi-frame images, or say these frame by frame. So highdicom is
given a stand-in for each slice, and its references to the stand-ins become references to what they stand for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pydicom
from pydicom.uid import UID

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


def source_images(series: SeriesVolume) -> list[pydicom.Dataset]:
    """Return the slices' headers as highdicom takes source images: one single-frame image a slice.

    All have the first's orientation, of which others differ by rounding at most: highdicom wants it the same to the
    last digit. What highdicom writes of them is to be given to `refer_to_sources`.
    """
    headers = normalised_headers(series.datasets, float(series.volume.spacing_between_slices))
    orientation = headers[0].ImageOrientationPatient
    found = []
    for header, reference in zip(headers, slice_references(series), strict=True):
        if reference.frame_number is not None:
            header = with_same_elements(header)
            del header.SOPClassUID, header.SOPInstanceUID
            header.SOPClassUID = MULTI_FRAME_SOP_CLASSES[reference.sop_class_uid]
            header.SOPInstanceUID = _stand_in(reference)
        if header.ImageOrientationPatient != orientation:
            header = with_same_elements(header)
            header["ImageOrientationPatient"] = headers[0]["ImageOrientationPatient"]
        found.append(header)
    return found


def refer_to_sources(result: pydicom.Dataset, series: SeriesVolume) -> None:
    """Replace what `result` says of `source_images` by what they stand for.

    Each frame is then derived from its frame (Referenced Frame Number, PS3.3 10.3). The instance as a whole refers to
    each source instance once, and so to all its frames.
    """
    stood_for = {_stand_in(one): one for one in slice_references(series) if one.frame_number is not None}
    if not stood_for:
        return
    groups = [*result.SharedFunctionalGroupsSequence, *result.PerFrameFunctionalGroupsSequence]
    for item in _derivations(groups):
        _refer(item, stood_for, with_frame=True)
    for holder, keyword in (
        (result, "SourceImageSequence"),
        *((one, "ReferencedInstanceSequence") for one in result.get("ReferencedSeriesSequence", ())),
    ):
        for item in holder.get(keyword, ()):
            _refer(item, stood_for, with_frame=False)
        if keyword in holder:
            setattr(holder, keyword, _once(holder[keyword].value))


def _stand_in(reference: SliceReference) -> UID:
    return derived_uid(str(reference.sop_instance_uid), "frame", str(reference.frame_number))


def _derivations(groups: Sequence[pydicom.Dataset]) -> Iterator[pydicom.Dataset]:
    for one in groups:
        for derivation in one.get("DerivationImageSequence", ()):
            yield from derivation.get("SourceImageSequence", ())


def _refer(item: pydicom.Dataset, stood_for: Mapping[UID, SliceReference], *, with_frame: bool) -> None:
    reference = stood_for.get(item.ReferencedSOPInstanceUID)
    if reference is None:
        return
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    if with_frame:
        item.ReferencedFrameNumber = reference.frame_number


def _once(items: Sequence[pydicom.Dataset]) -> list[pydicom.Dataset]:
    return list({str(item.ReferencedSOPInstanceUID): item for item in items}.values())
