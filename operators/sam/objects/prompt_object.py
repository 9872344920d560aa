"""What a DICOM object shows a generalist, before it is known which series it is put on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

import highdicom
import numpy as np
from numpy.typing import NDArray

from operators.errors import PromptRefused
from operators.instances import IMAGE_SOP_CLASSES
from operators.parse_errors import PARSE_ERRORS
from operators.segments import Code

Floats = NDArray[np.float64]

DAMAGED = (*PARSE_ERRORS, IndexError, OverflowError)
"""What reading values raises that are not as the Standard says."""


class Kind(StrEnum):
    """What an object is."""

    PRESENTATION_STATE = "presentation-state"
    REPORT = "report"
    STRUCTURE_SET = "structure-set"
    SEGMENTATION = "segmentation"


class Shape(StrEnum):
    """What was drawn."""

    POINTS = "points"
    """Each stands on what is meant."""
    LINE = "line"
    """Two ends of a diameter."""
    STROKE = "stroke"
    """Three points or more on what is meant, in their order, not closed."""
    OUTLINE = "outline"
    """Corners of a closed polygon around what is meant; the first is not repeated."""
    ELLIPSOID = "ellipsoid"
    """Ends of three axes, two each."""


@dataclass(frozen=True)
class ImageReference:
    """An image that an object names."""

    sop_instance_uid: str
    series_instance_uid: str = ""
    """Empty where the object does not say it."""
    frames: tuple[int, ...] = ()
    """Frame numbers, from 1; empty means all."""
    sop_class_uid: str = ""
    frame_of_reference_uid: str = ""
    """Empty where the object does not say it."""


@dataclass(frozen=True, eq=False)
class Graphic:
    """Something drawn with points."""

    shape: Shape
    points: Floats
    """On an image (n, 2): x (column) and y (row) in pixels, (0, 0) in the corner of the first pixel. In the patient
    (n, 3): LPS, mm."""
    image: ImageReference | None = None
    """The image that it is drawn on; None if it lies in the patient."""
    frame_of_reference_uid: str = ""
    """Of what lies in the patient."""
    drawn_over: tuple[ImageReference, ...] = ()
    """Of what lies in the patient, images whose series is known that it was drawn over; none if the object says none.
    It says which series is meant, not where the graphic lies."""
    is_exclusive: bool = False
    """Whether outlines of one slice are taken together by exclusive or (CLOSEDPLANAR_XOR), and not by union."""


@dataclass(frozen=True, eq=False)
class Mask:
    """Voxels."""

    volume: highdicom.Volume
    """bool, axes slice, row, column, cut to the box around what is True."""


Drawing = Graphic | Mask


@dataclass(frozen=True, eq=False)
class ObjectPrompt:
    """One wanted structure and all that was drawn for it."""

    number: int
    """Segment number or ROI number; else its place in the object, from 1."""
    drawings: tuple[Drawing, ...]
    label: str = ""
    """For people; it may be a person's free text, so that it belongs in no log."""
    code: Code | None = None
    """Finding, segmented property type or ROI identification code."""
    category: Code | None = None
    """Segmented property category."""
    site: Code | None = None
    """Finding site."""
    interpreted_type: str = ""
    """RT ROI Interpreted Type (PS3.3 C.8.8.8)."""
    tracking_id: str = ""
    tracking_uid: str = ""
    is_automatic: bool = False
    """Whether an algorithm alone drew it, as a Segmentation says with Segment Algorithm Type (0062,0008) AUTOMATIC."""


@dataclass(frozen=True)
class LeftOut:
    """A part of the object that can't be followed, while others can."""

    number: int
    """The structure's; 0 of a structure that has none, and of a whole object beside others."""
    code: str
    reason: str


@dataclass(frozen=True, eq=False)
class PromptObject:
    """What one DICOM object shows."""

    kind: Kind
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    """Empty where it has none."""
    images: tuple[ImageReference, ...]
    """All that the object refers to, in its order."""
    objects: tuple[ObjectPrompt, ...]
    """At least one."""
    left_out: tuple[LeftOut, ...]

    def referenced_series(self) -> str:
        """Return the Series Instance UID of the one series that the prompts are for.

        It is that of the images that were drawn on or over. Where no drawing names any, it is that of the images that
        the object refers to, in the frame of reference of its drawings.

        Raises
        ------
        PromptRefused
            ``prompt-references-nothing`` if no series is named, ``prompt-references-several-series`` if several are.
        """
        graphics = [one for prompt in self.objects for one in prompt.drawings if isinstance(one, Graphic)]
        drawn = [image for one in graphics for image in (one.drawn_over if one.image is None else (one.image,))]
        frames_of_reference = {one.frame_of_reference_uid for one in graphics}
        return the_one_series(drawn or to_draw_on(self.images, frames_of_reference))


def to_draw_on(images: Iterable[ImageReference], frames_of_reference: Collection[str] = ()) -> list[ImageReference]:
    """Return those of the images that an object refers to that can be meant to be drawn on.

    What prompted a result, or a former report, is among the evidence and no image; an image in another frame of
    reference than the drawings' is another place. All are returned if none is left: what is wrong shows later.
    """
    every = list(images)
    likely = [
        one
        for one in every
        if one.sop_class_uid in ("", *IMAGE_SOP_CLASSES) and one.frame_of_reference_uid in ("", *frames_of_reference)
    ]
    return likely or every


def the_one_series(images: Iterable[ImageReference]) -> str:
    """Return the Series Instance UID that all `images` with one have.

    Raises
    ------
    PromptRefused
        ``prompt-references-nothing`` if none has one, ``prompt-references-several-series`` if they have several.
    """
    named = {image.series_instance_uid for image in images} - {""}
    if not named:
        raise PromptRefused(
            "the object does not say which series its prompts are for; store it with references to its images",
            code="prompt-references-nothing",
        )
    if len(named) > 1:
        raise PromptRefused(
            f"expected prompts for one series, got them for {len(named)}; store one object for each series",
            code="prompt-references-several-series",
        )
    return named.pop()


Part = tuple[int, Callable[[], ObjectPrompt]]
"""The number of what may be wanted, or 0 where it has none, and what reads it."""


def collected(parts: Iterable[Part]) -> tuple[tuple[ObjectPrompt, ...], tuple[LeftOut, ...]]:
    """Return what can be read, and what can't with its reason: what is damaged in one part leaves the others alone.

    Raises
    ------
    PromptRefused
        If nothing can be read: with the first part's reason, or ``prompt-empty`` if there is no part.
    """
    objects: list[ObjectPrompt] = []
    left_out: list[LeftOut] = []
    first: PromptRefused | None = None
    for number, read in parts:
        try:
            objects.append(_read(read))
        except PromptRefused as error:
            first = first or error
            left_out.append(LeftOut(number, error.code, str(error)))
    if not objects:
        raise first or PromptRefused("expected something drawn, and the object holds nothing", code="prompt-empty")
    return tuple(objects), tuple(left_out)


def unreadable(what: str) -> PromptRefused:
    """Return the refusal of what is damaged."""
    return PromptRefused(
        f"{what} can't be read: it is damaged or not as the Standard says; store it again", code="unreadable"
    )


def _read(read: Callable[[], ObjectPrompt]) -> ObjectPrompt:
    try:
        return read()
    except DAMAGED as error:
        raise unreadable("a structure") from error
