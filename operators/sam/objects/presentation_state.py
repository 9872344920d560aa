"""Softcopy Presentation States (PS3.3 A.33): graphics and texts on images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pydicom

from operators.errors import PromptRefused
from operators.sam.objects.graphics import shape_of
from operators.sam.objects.prompt_object import Floats, Graphic, ImageReference, ObjectPrompt, Part
from operators.sam.objects.values import coordinates, image_reference, items, references_by_series
from operators.series_checks import text


def presentation_state_images(dataset: pydicom.Dataset) -> Iterator[ImageReference]:
    """Return the images that the presentation state applies to (PS3.3 C.11.11)."""
    return references_by_series(dataset, "ReferencedImageSequence")


def presentation_state_parts(dataset: pydicom.Dataset) -> Iterator[Part]:
    """Return each graphic, or each group of graphics (Graphic Group ID), of the annotations (PS3.3 C.10.5)."""
    number = 0
    for annotation in items(dataset, "GraphicAnnotationSequence"):
        groups = _groups(items(annotation, "GraphicObjectSequence"))
        for group in groups:
            number += 1
            label = _label(annotation, group, is_alone=len(groups) == 1)
            yield number, partial(_object, dataset, annotation, group, number, label)
        for _ in range(_compounds_without_graphics(annotation)):
            number += 1
            yield number, _refuse_compound


def _object(
    dataset: pydicom.Dataset, annotation: pydicom.Dataset, group: Sequence[pydicom.Dataset], number: int, label: str
) -> ObjectPrompt:
    return ObjectPrompt(number=number, drawings=tuple(_drawings(dataset, annotation, group)), label=label)


def _groups(graphics: Sequence[pydicom.Dataset]) -> list[list[pydicom.Dataset]]:
    """Graphics of one Graphic Group ID, or of one compound graphic, together; others alone."""
    groups: dict[str, list[pydicom.Dataset]] = {}
    for place, graphic in enumerate(graphics):
        group, compound = text(graphic, "GraphicGroupID"), text(graphic, "CompoundGraphicInstanceID")
        key = f"group {group}" if group else f"compound {compound}" if compound else f"alone {place}"
        groups.setdefault(key, []).append(graphic)
    return list(groups.values())


def _compounds_without_graphics(annotation: pydicom.Dataset) -> int:
    """How many compound graphics have no simple graphics that draw the same."""
    drawn = {text(graphic, "CompoundGraphicInstanceID") for graphic in items(annotation, "GraphicObjectSequence")}
    compounds = items(annotation, "CompoundGraphicSequence")
    return sum(text(compound, "CompoundGraphicInstanceID") not in drawn - {""} for compound in compounds)


def _refuse_compound() -> ObjectPrompt:
    raise PromptRefused(
        "expected simple graphics, got a compound graphic without them; let the viewer store both",
        code="graphic-unsupported",
    )


def _label(annotation: pydicom.Dataset, group: Sequence[pydicom.Dataset], *, is_alone: bool) -> str:
    """The texts that belong to a group; of several groups without Graphic Group ID nobody knows which text is whose."""
    texts = items(annotation, "TextObjectSequence")
    group_id = text(group[0], "GraphicGroupID")
    if group_id and not is_alone:
        texts = [one for one in texts if text(one, "GraphicGroupID") == group_id]
    elif not is_alone and len(texts) > 1:
        texts = []
    return ", ".join(filter(None, (text(one, "UnformattedTextValue").strip() for one in texts)))


def _drawings(
    dataset: pydicom.Dataset, annotation: pydicom.Dataset, group: Sequence[pydicom.Dataset]
) -> Iterator[Graphic]:
    for image in _images(dataset, annotation):
        for graphic in group:
            points = _pixels(dataset, graphic, image)
            shape, corners = shape_of(
                text(graphic, "GraphicType"), points, is_closed=text(graphic, "GraphicFilled") == "Y"
            )
            yield Graphic(shape, corners, image)


def _images(dataset: pydicom.Dataset, annotation: pydicom.Dataset) -> list[ImageReference]:
    """The images that an annotation applies to: those it names, or else all that the presentation state names."""
    every = list(presentation_state_images(dataset))
    series = {image.sop_instance_uid: image.series_instance_uid for image in every}
    named = [image_reference(item) for item in items(annotation, "ReferencedImageSequence")]
    if named:
        return [replace(one, series_instance_uid=series.get(one.sop_instance_uid, "")) for one in named]
    if len(every) != 1:
        raise PromptRefused(
            f"the annotation names no image, and its presentation state names {len(every)}; store it with the image "
            "that it was drawn on",
            code="prompt-references-nothing",
        )
    return every


def _pixels(dataset: pydicom.Dataset, graphic: pydicom.Dataset, image: ImageReference) -> Floats:
    """The points of a graphic in pixels of the image."""
    points = coordinates(graphic, "GraphicData", 2)
    units = text(graphic, "GraphicAnnotationUnits")
    if units == "PIXEL":
        return points
    if units == "DISPLAY":
        return _from_display(points, dataset, image)
    named = "MATRIX, which is for tiled images" if units == "MATRIX" else "others"
    raise PromptRefused(
        f"expected Graphic Annotation Units PIXEL or DISPLAY, got {named}; store the annotation in pixels",
        code="units-unsupported",
    )


def _from_display(points: Floats, dataset: pydicom.Dataset, image: ImageReference) -> Floats:
    """From fractions of the displayed area to pixels (PS3.3 C.10.4, C.10.5, C.10.6).

    The area's corners are numbers of pixels in the stored image, the first being 1; which of them is top left is said
    as displayed, after rotation clockwise and then horizontal flip.
    """
    corners = _displayed_area(dataset, image)
    right, down = points[:, 0], points[:, 1]
    if text(dataset, "ImageHorizontalFlip") == "Y":
        right = 1 - right
    turned = {"": (right, down), "0": (right, down), "90": (down, 1 - right), "180": (1 - right, 1 - down)}
    turned["270"] = (1 - down, right)
    rotation = text(dataset, "ImageRotation")
    if rotation not in turned:
        raise PromptRefused("expected an image rotation of 0, 90, 180 or 270, got another", code="units-unsupported")
    start, end = corners.min(axis=0) - 1, corners.max(axis=0)
    pixels: Floats = start + np.stack(turned[rotation], axis=1) * (end - start)
    return pixels


def _displayed_area(dataset: pydicom.Dataset, image: ImageReference) -> Floats:
    """The first and last pixel displayed, (2, 2): column and row each."""
    for selection in items(dataset, "DisplayedAreaSelectionSequence"):
        named = [text(one, "ReferencedSOPInstanceUID") for one in items(selection, "ReferencedImageSequence")]
        if named and image.sop_instance_uid not in named:
            continue
        first = coordinates(selection, "DisplayedAreaTopLeftHandCorner", 2)
        last = coordinates(selection, "DisplayedAreaBottomRightHandCorner", 2)
        return np.concatenate([first[:1], last[:1]])
    raise PromptRefused(
        "a graphic is in units of the displayed area, and the presentation state names none for its image; store it "
        "in pixels",
        code="units-unsupported",
    )
