"""A finding as a Grayscale Softcopy Presentation State (PS3.3 A.33.1): outlines that a viewer draws over the images.

Graphic Data are x, y in units of PIXEL (C.10.5.1.1): (0, 0) is the outer corner of the first pixel, whose middle is
(0.5, 0.5), and (columns, rows) the outer corner of the last one. Outlines run along the edges of pixels
(`operators.results.contours`), so their coordinates are whole numbers. The Displayed Area's corners are another matter:
they count pixels from 1.

Each segment has a graphic layer of its own with its colour, which viewers can switch off. Each outline is a closed
POLYLINE, that of a hole too. One layer more says on every image that this is a result of AI that nobody verified, or
that nothing was found.

A presentation state's own transformations stand in the place of the images' (PS3.4 N.2), so it must have them: the
rescaling, where it is one for all images, and a window, that of the images unless one is given.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pydicom
from highdicom.color import CIELabColor
from highdicom.pr import (
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GrayscaleSoftcopyPresentationState,
    TextObject,
)
from pydicom.sr.codedict import codes

from operators.results.common_modules import (
    NOT_VERIFIED,
    complete,
    described,
    display_rgb,
    identity_header,
    segment_text,
    transfer_syntax,
)
from operators.results.contours import Corners, rings
from operators.results.display import Display, display_of
from operators.results.equipment import equipment_attributes
from operators.results.finding import (
    Finding,
    WrittenObject,
    object_instance_uid,
    object_series_uid,
    save_object,
    series_number,
)
from operators.results.slices import CornerCount, SegmentOnSlice, segments_on_slices
from operators.sam.windowing import Window
from operators.segments import SegmentSpec
from operators.source_identity import moment_of
from operators.source_references import refer_to_sources, single_frame_headers

NOTICE_LAYER = "NOTICE"
_NOTICE_BOX = (0.01, 0.01, 0.99, 0.06)
"""In units of DISPLAY: left, top, right and bottom of a line at the upper edge."""
_BYTES_A_POINT = 8
_SHOWN_KEYWORDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Rows", "Columns")


def write_presentation_state(finding: Finding, path: Path, window: Window | None = None) -> WrittenObject:
    """Write the outlines of a finding as one presentation state of the series, and return what was written.

    Parameters
    ----------
    window
        Which values are shown; None: those that the images themselves say, or else what suits the modality.

    Raises
    ------
    OperatorError
        ``labels-elsewhere`` and ``label-undescribed`` if the labels are not the series' and the segments';
        ``outlines-too-many`` if they are noise.
    """
    images = [_shown(header) for header in single_frame_headers(finding.series)]
    outlined = list(_outlined(finding))
    layers = {number: _layer(number, segment) for number, segment, *_ in outlined}
    notice = GraphicLayer(NOTICE_LAYER, len(finding.segments) + 1, description=NOT_VERIFIED)
    annotations = [
        _annotation(images[place.slice_index], layers[number], segment, found)
        for number, segment, place, found in outlined
    ]
    longest = max((_BYTES_A_POINT * (len(ring) + 1) for *_, found in outlined for ring in found), default=0)
    state = _state(
        finding,
        images,
        [*layers.values(), notice],
        [*annotations, _notice(finding, images, notice)],
        longest,
        display_of(finding.series, window, images),
    )
    refer_to_sources(state, finding.series)
    text = [*segment_text(finding.segments), str(state.SeriesDescription)]
    moment = moment_of(finding.series.datasets)
    state.PresentationCreationDate, state.PresentationCreationTime = moment
    complete(state, finding.source, moment, finding.algorithm, own_text=text)
    return save_object(state, path)


def _shown(header: pydicom.Dataset) -> pydicom.Dataset:
    """What highdicom needs of an image; of the rest it would ask more than images of real studies hold.

    Frames are single-frame images to it, which `refer_to_sources` puts right in what it wrote.
    """
    image = pydicom.Dataset()
    for keyword in _SHOWN_KEYWORDS:
        image[keyword] = copy.deepcopy(header[keyword])
    image.SamplesPerPixel = 1
    return image


def _outlined(finding: Finding) -> Iterator[tuple[int, SegmentSpec, SegmentOnSlice, list[Corners]]]:
    """Yield number and segment, slice, and the outlines on it."""
    count = CornerCount()
    for number, segment, places in segments_on_slices(finding):
        for place in places:
            found = [place.placed(ring.corners) for ring in rings(place.mask)]
            count.add(sum(map(len, found)))
            yield number, segment, place, found


def _layer(number: int, segment: SegmentSpec) -> GraphicLayer:
    return GraphicLayer(
        f"SEGMENT {number}",
        number,
        description=segment.label,
        display_color=CIELabColor.from_rgb(*display_rgb(segment, number)),
    )


def _annotation(
    image: pydicom.Dataset, layer: GraphicLayer, segment: SegmentSpec, found: Sequence[Corners]
) -> GraphicAnnotation:
    """A segment's outlines on one image, and its label beside the first one's upper corner."""
    x, y = (float(value) for value in found[0][0])
    return GraphicAnnotation(
        referenced_images=[image],
        graphic_layer=layer,
        graphic_objects=[
            GraphicObject("POLYLINE", np.concatenate([ring, ring[:1]]).astype(np.float64), units="PIXEL")
            for ring in found
        ],
        text_objects=[TextObject(segment.label, units="PIXEL", anchor_point=(x, y), anchor_point_visible=False)],
    )


def _notice(finding: Finding, images: Sequence[pydicom.Dataset], layer: GraphicLayer) -> GraphicAnnotation:
    algorithm = finding.algorithm
    found = "" if np.any(finding.labels.array) else ": nothing found"
    text = f"{NOT_VERIFIED}{found} ({algorithm.name} {algorithm.version})"
    return GraphicAnnotation(
        referenced_images=images,
        graphic_layer=layer,
        text_objects=[TextObject(text, units="DISPLAY", bounding_box=_NOTICE_BOX, text_justification="LEFT")],
    )


def _state(
    finding: Finding,
    images: Sequence[pydicom.Dataset],
    layers: Sequence[GraphicLayer],
    annotations: Sequence[GraphicAnnotation],
    longest: int,
    display: Display,
) -> GrayscaleSoftcopyPresentationState:
    first = identity_header(single_frame_headers(finding.series))
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        if keyword in first:
            del first[keyword]
    description = described(finding, "outlines")
    state = GrayscaleSoftcopyPresentationState(
        referenced_images=[first, *images[1:]],
        series_instance_uid=object_series_uid(finding.identity, "presentation-state"),
        series_number=series_number(finding.source, "presentation-state"),
        sop_instance_uid=object_instance_uid(finding.identity, "presentation-state"),
        instance_number=1,
        content_label="AI RESULT",
        content_description=description,
        series_description=description,
        graphic_layers=layers,
        graphic_annotations=annotations,
        concept_name=codes.DCM.PresentationState,
        modality_lut_transformation=display.modality,
        voi_lut_transformations=display.windows,
        transfer_syntax_uid=transfer_syntax(longest),
        specific_character_set=None,
        **equipment_attributes(finding.algorithm),
    )
    state.Laterality = ""  # Type 2C, and highdicom leaves it out
    (area,) = state.DisplayedAreaSelectionSequence
    del area.PresentationPixelAspectRatio  # highdicom takes pixels to be square
    area.PresentationPixelSpacing = finding.source.PixelSpacing
    return state
