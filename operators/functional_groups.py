"""The frames of a multi-frame instance, each with the header that a single-frame image of it would have.

So the checks, the geometry and whoever asks a header need to know one kind of slice. What the functional group macros
(PS3.3 C.7.6.16) say of a frame becomes attributes of its header: where it lies, its rescale, its echo time.
"""

from __future__ import annotations

from collections.abc import Iterator

import pydicom
from pydicom.tag import Tag

from operators.errors import SeriesRefused
from operators.instances import MULTI_FRAME_SOP_CLASSES, frame_count, unreadable
from operators.parse_errors import PARSE_ERRORS
from operators.source_identity import IDENTITY_KEYWORDS, with_same_elements

_PLACE_AND_VALUE = (
    "PixelMeasuresSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelValueTransformationSequence",
)
"""The macros without which a frame is no slice."""
_TOLD = (
    *_PLACE_AND_VALUE,
    "FrameContentSequence",
    "FrameAnatomySequence",
    "FrameVOILUTSequence",
    "RealWorldValueMappingSequence",
    "TemporalPositionSequence",
    "CardiacSynchronizationSequence",
    "RespiratorySynchronizationSequence",
    "ContrastBolusUsageSequence",
    "CTImageFrameTypeSequence",
    "CTAcquisitionTypeSequence",
    "CTAcquisitionDetailsSequence",
    "CTReconstructionSequence",
    "CTExposureSequence",
    "CTXRayDetailsSequence",
    "MRImageFrameTypeSequence",
    "MRTimingAndRelatedParametersSequence",
    "MREchoSequence",
    "MRDiffusionSequence",
    "MRAveragesSequence",
    "MRModifierSequence",
    "PETFrameTypeSequence",
    "PETFrameAcquisitionSequence",
    "PETReconstructionSequence",
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
)
"""What is told of a frame by its header. A macro of several items (the anatomy, at times) is left out."""
_TOLD_TAGS = frozenset(Tag(macro) for macro in _TOLD)
_OF_THE_FRAMES = (
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "NumberOfFrames"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ComplexImageComponent"),
)
"""What the instance's own header does not lend to its frames: the Standard has these in their groups alone, or sums
them up in the header, as MIXED where frames differ (PS3.3 C.8.13.3.1.1)."""
FIRST_FRAME_KEYWORDS = ("SOPClassUID", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
"""What `first_frame_header` needs of an instance, beside what its header is to lend to the frame."""
_NEVER_OF_A_FRAME = frozenset(
    (*IDENTITY_KEYWORDS, "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
)


def frame_headers(instance: pydicom.Dataset) -> list[pydicom.Dataset]:
    """Return a header for each frame of a multi-frame CT, MR or PET, in the order of the frames.

    The SOP Class UID and SOP Instance UID are the instance's; Number of Frames is left out.

    Raises
    ------
    SeriesRefused
        ``multi-frame-unsupported`` if nothing says where its frames lie; ``unreadable-instance`` if it is damaged.
    """
    try:
        shared, groups = _groups(instance)
        if len(groups) != frame_count(instance):
            raise unreadable("it describes another number of frames than it has")
        common = _without_frames(instance)
        with_shared = _with_groups(common, shared, common)
        return [_with_groups(with_shared, one, common) for one in groups]
    except PARSE_ERRORS as error:
        raise unreadable("its functional groups are damaged") from error


def first_frame_header(instance: pydicom.Dataset) -> pydicom.Dataset:
    """Return the header of the first frame of a multi-frame CT, MR or PET; of what is none, or damaged, its own."""
    try:
        if instance.get("SOPClassUID") not in MULTI_FRAME_SOP_CLASSES:
            return instance
        shared, groups = _groups(instance)
        common = _without_frames(instance)
        return _with_groups(_with_groups(common, shared, common), groups[0], common)
    except (SeriesRefused, *PARSE_ERRORS):
        return instance


def _groups(instance: pydicom.Dataset) -> tuple[pydicom.Dataset, list[pydicom.Dataset]]:
    """The functional groups that all frames share, and those of each frame."""
    shared = list(instance.get("SharedFunctionalGroupsSequence") or [])
    groups = list(instance.get("PerFrameFunctionalGroupsSequence") or [])
    if not groups or len(shared) > 1:
        raise SeriesRefused(
            f"expected functional groups that say where the frames lie, got {instance.SOPClassUID.name} without; "
            "send the single-frame images that it was made of",
            code="multi-frame-unsupported",
        )
    return (shared or [pydicom.Dataset()])[0], groups


def _without_frames(instance: pydicom.Dataset) -> pydicom.Dataset:
    common = with_same_elements(instance)
    for keyword in _OF_THE_FRAMES:
        if keyword in common:
            del common[keyword]
    return common


def _with_groups(header: pydicom.Dataset, groups: pydicom.Dataset, common: pydicom.Dataset) -> pydicom.Dataset:
    """A header and what functional groups tell, but for what `common`, the instance's own, says."""
    found = with_same_elements(header)
    for element in _told(groups):
        if element.tag not in common:
            found[element.tag] = element
    return found


def _told(groups: pydicom.Dataset) -> Iterator[pydicom.DataElement]:
    for tag in sorted(groups.keys() & _TOLD_TAGS):
        items = groups[tag].value or []
        if len(items) == 1:
            yield from (one for one in items[0] if not one.tag.is_private and one.keyword not in _NEVER_OF_A_FRAME)
