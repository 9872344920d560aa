"""A finding as pictures: Secondary Captures of the slices with coloured outlines, for viewers without Segmentations.

Each picture is a slice through a window, in square pixels whatever the source's are, with text above and below it and
not upon it: that this is a result of AI that nobody verified, the model, and which colour is which segment. The picture
lies in the patient as its slice does (frame of reference, position, orientation, spacing), so viewers can link it; the
rows above and below belong to the same plane.

Shown are the slices with a finding and their neighbours; of very many, every so-manieth, and the pictures say so. Where
nothing was found, one page says that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pydicom
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.valuerep import DSfloat

from operators.results.canvas import LEAST_SIDE, Canvas
from operators.results.common_modules import (
    NOT_VERIFIED,
    described,
    display_rgb,
    prompting_reference,
    referenced_series,
    segment_text,
)
from operators.results.finding import (
    Finding,
    WrittenObject,
    object_instance_uid,
    object_series_uid,
    save_object,
    series_number,
)
from operators.results.legend import Legend
from operators.results.pages import LINE_HEIGHT, MARGIN, WARNING, WHITE, Picture, draw_text, shortened, wrapped
from operators.results.secondary_capture import CaptureSeries
from operators.results.slices import SliceGrid, segments_on_slices
from operators.sam.windowing import Window, to_bytes
from operators.segments import SegmentSpec
from operators.series_checks import numbers
from operators.source_references import SourceReferences

NEIGHBOURS = 1
"""Slices without a finding that are shown at each end of one."""
MOST_CAPTURES = 200
_MOST_BYTES = 256 << 20
"""Of all pictures of a finding."""
_TITLE_LINES = 3
_BAND = MARGIN + _TITLE_LINES * LINE_HEIGHT + MARGIN
_BURNED_IN = "YES"
"""No patient data is drawn into the pixels; but text is, which whoever removes it must know."""


def write_captures(finding: Finding, folder: Path, window: Window, *, prefix: str = "") -> tuple[WrittenObject, ...]:
    """Write pictures of a finding into `folder`, ``<prefix>capture-0001.dcm`` and so on, and return what was written.

    Parameters
    ----------
    window
        Which values are shown, in the unit of the series.

    Raises
    ------
    OperatorError
        ``labels-elsewhere`` and ``label-undescribed`` if the labels are not the series' and the segments';
        ``image-not-finite`` if a value is no number.
    """
    found = [(number, segment) for number, segment, places in segments_on_slices(finding) if any(True for _ in places)]
    pages = _pages(finding, window, found) if found else iter([(_empty_page(finding), None)])
    series = CaptureSeries(
        headers=finding.series.datasets,
        study_instance_uid=str(finding.source.StudyInstanceUID),
        series_instance_uid=object_series_uid(finding.identity, "capture"),
        series_number=series_number(finding.source, "capture"),
        description=described(finding, "pictures"),
        algorithm=finding.algorithm,
        own_text=segment_text(finding.segments),
    )
    references = SourceReferences(finding.series)
    written = []
    for number, (picture, index) in enumerate(pages, start=1):
        uid = object_instance_uid(finding.identity, "capture", number)
        image = series.capture(picture, uid, number, burned_in=_BURNED_IN)
        _add_derivation(image, finding, references, index)
        written.append(save_object(image, folder / f"{prefix}capture-{number:04}.dcm"))
    return tuple(written)


def most_captures(rows: int, columns: int) -> int:
    """Return how many pictures of this size a finding may have."""
    return max(1, min(MOST_CAPTURES, _MOST_BYTES // (3 * rows * columns)))


def canvas_of(finding: Finding, foot: int) -> Canvas:
    """Return how the slices of a finding are laid out, with `foot` rows of pixels below."""
    between_rows, between_columns = numbers(finding.source, "PixelSpacing")
    _, rows, columns = finding.labels.spatial_shape
    return Canvas(rows, columns, between_rows, between_columns, _BAND, foot)


def _pages(
    finding: Finding, window: Window, found: Sequence[tuple[int, SegmentSpec]]
) -> Iterator[tuple[Picture, int | None]]:
    """Yield each picture and the slice that it shows."""
    colours = np.zeros((max(segment.label_value for _, segment in found) + 1, 3), np.uint8)
    for number, segment in found:
        colours[segment.label_value] = display_rgb(segment, number)
    entries = [(display_rgb(segment, number), segment.label) for number, segment in found]
    width = canvas_of(finding, 0).shape[1]
    legend = Legend(entries, width)
    canvas = canvas_of(finding, legend.height)
    indices, step = _chosen(finding, canvas)
    for index in indices:
        picture: Picture = np.zeros((*canvas.shape, 3), np.uint8)
        shown = canvas.shown(to_bytes(finding.series.volume.array[index], window))
        outlined = canvas.outlined(finding.labels.array[index])
        shown[outlined > 0] = colours[outlined[outlined > 0]]
        picture[_BAND : _BAND + shown.shape[0], : shown.shape[1]] = shown
        place = f"slice {index + 1} of {len(finding.series.datasets)}, window {window.centre:g}/{window.width:g}"
        _draw_title(picture, finding, place if step == 1 else f"{place}; one slice of {step} is shown")
        legend.draw(picture, _BAND + shown.shape[0])
        yield picture, index


def _chosen(finding: Finding, canvas: Canvas) -> tuple[list[int], int]:
    """The slices to show, and of how many each is one."""
    slices = len(finding.series.datasets)
    is_found = np.array([bool(plane.any()) for plane in finding.labels.array])
    near = np.convolve(is_found, np.ones(2 * NEIGHBOURS + 1))[NEIGHBOURS : NEIGHBOURS + slices]
    indices = np.flatnonzero(near).tolist()
    step = -(-len(indices) // most_captures(*canvas.shape))
    return indices[::step], step


def _draw_title(picture: Picture, finding: Finding, last: str) -> None:
    width = picture.shape[1] - 2 * MARGIN
    algorithm = finding.algorithm
    draw_text(picture, [NOT_VERIFIED], left=MARGIN, top=MARGIN, colour=WARNING)
    lines = [shortened(f"{algorithm.name} {algorithm.version}", width), shortened(last, width)]
    draw_text(picture, lines, left=MARGIN, top=MARGIN + LINE_HEIGHT, colour=WHITE)


def _empty_page(finding: Finding) -> Picture:
    picture: Picture = np.zeros((LEAST_SIDE, LEAST_SIDE, 3), np.uint8)
    _draw_title(picture, finding, f"{len(finding.series.datasets)} slices were looked at: nothing found")
    looked_for = ", ".join(segment.label for segment in finding.segments)
    lines = wrapped(f"Looked for: {looked_for}", LEAST_SIDE - 2 * MARGIN)
    draw_text(picture, lines, left=MARGIN, top=_BAND + LINE_HEIGHT)
    return picture


def _add_derivation(image: pydicom.Dataset, finding: Finding, references: SourceReferences, index: int | None) -> None:
    """Say what it was made of (PS3.3 C.7.6.1, C.12.2, C.12.4), and where it lies if it shows one slice (C.7.6.2)."""
    shown = finding.series.datasets if index is None else [finding.series.datasets[index]]
    algorithm = finding.algorithm
    image.DerivationDescription = f"{NOT_VERIFIED}: outlines by {algorithm.name} {algorithm.version}"
    image.DerivationCodeSequence = [CodedConcept.from_code(codes.DCM.Segmentation)]
    purpose = codes.DCM.SourceImageForImageProcessingOperation
    image.SourceImageSequence = references.images(None if index is None else [index])
    for item in image.SourceImageSequence:
        item.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(purpose)]
    if finding.prompted_by:
        image.SourceInstanceSequence = [prompting_reference(one) for one in finding.prompted_by]
    image.ReferencedSeriesSequence = referenced_series(shown, finding.prompted_by)
    if index is None:
        return
    (header,) = shown
    canvas = canvas_of(finding, 0)
    position = canvas.position(SliceGrid.of(header))
    image.FrameOfReferenceUID = header.FrameOfReferenceUID
    image.PositionReferenceIndicator = header.get("PositionReferenceIndicator") or ""
    image.ImagePositionPatient = [DSfloat(float(value), auto_format=True) for value in position]
    image.ImageOrientationPatient = header.ImageOrientationPatient
    image.PixelSpacing = [DSfloat(canvas.spacing, auto_format=True)] * 2
    image.SliceThickness = header.get("SliceThickness")
