"""RT Structure Sets (PS3.3 A.19): contours in the patient, by region of interest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial

import pydicom

from operators.errors import PromptRefused
from operators.parse_errors import PARSE_ERRORS
from operators.sam.objects.graphics import shape_of
from operators.sam.objects.prompt_object import Graphic, ImageReference, ObjectPrompt, Part
from operators.sam.objects.values import code_of, coordinates, image_reference, items
from operators.series_checks import text

_EXCLUSIVE = "CLOSEDPLANAR_XOR"


def structure_set_images(dataset: pydicom.Dataset) -> Iterator[ImageReference]:
    """Return the images that the contours were drawn on (PS3.3 C.8.8.5)."""
    for frame_of_reference in items(dataset, "ReferencedFrameOfReferenceSequence"):
        uid = text(frame_of_reference, "FrameOfReferenceUID")
        for study in items(frame_of_reference, "RTReferencedStudySequence"):
            for series in items(study, "RTReferencedSeriesSequence"):
                for image in items(series, "ContourImageSequence"):
                    yield image_reference(image, text(series, "SeriesInstanceUID"), uid)


def structure_set_parts(dataset: pydicom.Dataset) -> Iterator[Part]:
    """Return the regions of interest (PS3.3 C.8.8.5, C.8.8.6, C.8.8.8)."""
    images = {image.sop_instance_uid: image for image in structure_set_images(dataset)}
    regions = items(dataset, "StructureSetROISequence")
    drawn = items(dataset, "ROIContourSequence")
    contours = {_number(item, "ReferencedROINumber"): item for item in drawn}
    observations = {_number(item, "ReferencedROINumber"): item for item in items(dataset, "RTROIObservationsSequence")}
    named = Counter(_number(region, "ROINumber") for region in regions)
    counted = Counter(_number(item, "ReferencedROINumber") for item in drawn)
    for region in regions:
        number = _number(region, "ROINumber")
        if number is None or named[number] > 1 or counted[number] > 1:
            yield number or 0, _refuse_ambiguous
            continue
        found = contours.get(number, pydicom.Dataset()), observations.get(number, pydicom.Dataset())
        yield number, partial(_region, images, region, number, *found)


def _number(item: pydicom.Dataset, keyword: str) -> int | None:
    """The ROI number of an item; None where it is no number, so that the others of its sequence can be read."""
    try:
        return int(text(item, keyword))
    except PARSE_ERRORS:
        return None


def _refuse_ambiguous() -> ObjectPrompt:
    """Contours belong to a region by its number alone: no other region's may be drawn under its name."""
    raise PromptRefused(
        "expected a region of interest with a number of its own and its contours in one item, got no number, or one "
        "that several have, so that nobody knows whose the contours are; store it again",
        code="unreadable",
    )


def _region(
    images: Mapping[str, ImageReference],
    region: pydicom.Dataset,
    number: int,
    drawn: pydicom.Dataset,
    observed: pydicom.Dataset,
) -> ObjectPrompt:
    contours = items(drawn, "ContourSequence")
    if not contours:
        raise PromptRefused("expected contours of the region of interest, got none", code="prompt-empty")
    frame_of_reference = text(region, "ReferencedFrameOfReferenceUID")
    return ObjectPrompt(
        number=number,
        drawings=tuple(_contour(contour, frame_of_reference, images) for contour in contours),
        label=text(region, "ROIName") or text(observed, "ROIObservationLabel"),
        code=code_of(observed, "RTROIIdentificationCodeSequence"),
        interpreted_type=text(observed, "RTROIInterpretedType"),
    )


def _contour(contour: pydicom.Dataset, frame_of_reference_uid: str, images: Mapping[str, ImageReference]) -> Graphic:
    geometric_type = text(contour, "ContourGeometricType")
    shape, points = shape_of(geometric_type, coordinates(contour, "ContourData", 3))
    over = [text(image, "ReferencedSOPInstanceUID") for image in items(contour, "ContourImageSequence")]
    return Graphic(
        shape,
        points,
        frame_of_reference_uid=frame_of_reference_uid,
        drawn_over=tuple(images[uid] for uid in over if uid in images),
        is_exclusive=geometric_type == _EXCLUSIVE,
    )
