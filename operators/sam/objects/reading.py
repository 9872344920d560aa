"""One data set in, a `PromptObject` out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pydicom
from pydicom.uid import (
    ColorSoftcopyPresentationStateStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    ExtensibleSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    PseudoColorSoftcopyPresentationStateStorage,
    RTStructureSetStorage,
    SegmentationStorage,
)

from operators.errors import PromptRefused
from operators.object_kinds import LABEL_MAP_SEGMENTATION_STORAGE
from operators.parse_errors import PARSE_ERRORS
from operators.sam.objects.presentation_state import presentation_state_images, presentation_state_parts
from operators.sam.objects.prompt_object import (
    DAMAGED,
    Graphic,
    ImageReference,
    Kind,
    Mask,
    Part,
    PromptObject,
    collected,
    the_one_series,
    to_draw_on,
    unreadable,
)
from operators.sam.objects.report import report_images, report_parts
from operators.sam.objects.segmentation import segment_count, segmentation_images, segmentation_parts
from operators.sam.objects.structure_set import structure_set_images, structure_set_parts
from operators.series_checks import text


@dataclass(frozen=True)
class _Reader:
    kind: Kind
    images: Callable[[pydicom.Dataset], Iterator[ImageReference]]
    parts: Callable[[pydicom.Dataset], Iterator[Part]]


_PRESENTATION_STATE = _Reader(Kind.PRESENTATION_STATE, presentation_state_images, presentation_state_parts)
_REPORT = _Reader(Kind.REPORT, report_images, report_parts)
_STRUCTURE_SET = _Reader(Kind.STRUCTURE_SET, structure_set_images, structure_set_parts)
_SEGMENTATION = _Reader(Kind.SEGMENTATION, segmentation_images, segmentation_parts)
_READERS: Mapping[str, _Reader] = {
    GrayscaleSoftcopyPresentationStateStorage: _PRESENTATION_STATE,
    ColorSoftcopyPresentationStateStorage: _PRESENTATION_STATE,
    PseudoColorSoftcopyPresentationStateStorage: _PRESENTATION_STATE,
    EnhancedSRStorage: _REPORT,
    ComprehensiveSRStorage: _REPORT,
    Comprehensive3DSRStorage: _REPORT,
    ExtensibleSRStorage: _REPORT,
    RTStructureSetStorage: _STRUCTURE_SET,
    SegmentationStorage: _SEGMENTATION,
    LABEL_MAP_SEGMENTATION_STORAGE: _SEGMENTATION,
}
PROMPT_SOP_CLASSES: tuple[str, ...] = tuple(_READERS)
"""What can show a generalist where to segment."""


def read_prompts(dataset: pydicom.Dataset) -> PromptObject:
    """Return what `dataset` shows: a presentation state, a structured report, a structure set or a segmentation.

    What can't be followed is left out and named with its reason, as long as something can.

    Parameters
    ----------
    dataset
        The whole object, for a Segmentation with its pixel data and file meta information.

    Raises
    ------
    PromptRefused
        ``prompt-object-unsupported`` if it is another object, ``unreadable`` if it can't be parsed, and otherwise as
        its first part, if no part of it can be followed.
    """
    reader = _reader(dataset)
    try:
        objects, left_out = collected(reader.parts(dataset))
        images = tuple(reader.images(dataset))
    except DAMAGED as error:
        raise unreadable("the object") from error
    drawings = [drawing for prompt in objects for drawing in prompt.drawings]
    frames = {one.frame_of_reference_uid for one in drawings if isinstance(one, Graphic)}
    frames |= {str(one.volume.frame_of_reference_uid or "") for one in drawings if isinstance(one, Mask)}
    frames -= {""}
    return PromptObject(
        kind=reader.kind,
        sop_class_uid=text(dataset, "SOPClassUID"),
        sop_instance_uid=text(dataset, "SOPInstanceUID"),
        study_instance_uid=text(dataset, "StudyInstanceUID"),
        series_instance_uid=text(dataset, "SeriesInstanceUID"),
        frame_of_reference_uid=frames.pop() if len(frames) == 1 else text(dataset, "FrameOfReferenceUID"),
        images=images,
        objects=objects,
        left_out=left_out,
    )


def structure_count(dataset: pydicom.Dataset) -> int:
    """Return how many structures `dataset` asks for, whether they can be followed or not.

    Parameters
    ----------
    dataset
        The object; of a Segmentation the pixel data are not needed, and not looked at.

    Raises
    ------
    PromptRefused
        ``prompt-object-unsupported``, ``unreadable``, ``prompt-too-long`` as `read_prompts`.
    """
    reader = _reader(dataset)
    try:
        if reader is _SEGMENTATION:
            return segment_count(dataset)
        return sum(1 for _ in reader.parts(dataset))
    except DAMAGED as error:
        raise unreadable("the object") from error


def referenced_series(dataset: pydicom.Dataset) -> str:
    """Return the Series Instance UID of the one series that the prompts in `dataset` are for.

    Parameters
    ----------
    dataset
        The object; of a Segmentation the pixel data are not needed, and not looked at.

    Raises
    ------
    PromptRefused
        As `read_prompts` and `PromptObject.referenced_series`.
    """
    if _reader(dataset) is not _SEGMENTATION:
        return read_prompts(dataset).referenced_series()
    try:
        return the_one_series(to_draw_on(segmentation_images(dataset)))
    except DAMAGED as error:
        raise unreadable("the object") from error


def _reader(dataset: pydicom.Dataset) -> _Reader:
    reader = _READERS.get(_sop_class(dataset))
    if reader is None:
        raise PromptRefused(
            "expected a softcopy presentation state, a structured report with coordinates, an RT structure set or a "
            "segmentation, got another object",
            code="prompt-object-unsupported",
        )
    return reader


def _sop_class(dataset: pydicom.Dataset) -> str:
    try:
        return text(dataset, "SOPClassUID")
    except PARSE_ERRORS:
        return ""
