"""A presentation state, read back by the numbers of its file: its outlines, filled again, are the label map."""

from __future__ import annotations

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from app.graph import FindingRecord
from app.jobs.readback.computed import ComputedLabels, require
from app.jobs.readback.outlines import inside, require_shown
from app.jobs.readback.sources import SourceSlices
from operators.results.common_modules import NOT_VERIFIED
from operators.results.presentation_state import NOTICE_LAYER


def check_presentation_state(
    dataset: pydicom.Dataset, labels: ComputedLabels, finding: FindingRecord, slices: SourceSlices
) -> None:
    """Check layers, images and every pixel. Raises ``VerificationFailed`` if anything is not what was computed."""
    require(dataset.SOPClassUID == GrayscaleSoftcopyPresentationStateStorage, "it is no presentation state")
    model = (str(dataset.SoftwareVersions), str(dataset.DeviceSerialNumber))
    require(model == (finding.model.version, finding.model.weights_digest[:16]), "it names another model")
    _check_images(dataset, slices)
    values = _layer_values(dataset, finding)
    shown: set[tuple[int, int]] = set()
    for annotation in dataset.GraphicAnnotationSequence:
        images = slices.named(annotation.ReferencedImageSequence)
        if annotation.GraphicLayer == NOTICE_LAYER:
            _check_notice(annotation, images == slices.every)
            continue
        require(len(images) == 1, "outlines are for several images")
        plane, value = images[0], values[str(annotation.GraphicLayer)]
        require((plane, value) not in shown, "two annotations show one slice of a segment")
        shown.add((plane, value))
        same = np.array_equal(_enclosed(annotation, labels.array.shape[1:]), labels.array[plane] == value)
        require(same, "the outlines of a segment differ from its voxels")
    require_shown(labels, shown)


def _check_images(dataset: pydicom.Dataset, slices: SourceSlices) -> None:
    """It is of exactly the slices that were read, and each of them has one window."""
    (series,) = dataset.ReferencedSeriesSequence
    same = slices.named(series.ReferencedImageSequence) == slices.every
    require(same, "it does not refer to exactly its source instances")
    windows = [one.get("ReferencedImageSequence") for one in dataset.SoftcopyVOILUTSequence]
    if windows != [None]:  # one for all
        windowed = sorted(index for images in windows for index in slices.named(images or ()))
        require(windowed == slices.every, "not each of its images has one window")


def _layer_values(dataset: pydicom.Dataset, finding: FindingRecord) -> dict[str, int]:
    """The label value of each segment's layer."""
    by_label = {f"SEGMENT {segment.number}": segment for segment in finding.segments}
    found = {}
    for layer in dataset.GraphicLayerSequence:
        name = str(layer.GraphicLayer)
        if name != NOTICE_LAYER:
            segment = by_label[name]
            require(layer.GraphicLayerDescription == segment.label, "a layer has another name than its segment")
            found[name] = segment.label_value
    return found


def _check_notice(annotation: pydicom.Dataset, is_everywhere: bool) -> None:
    (said,) = annotation.TextObjectSequence
    require(str(said.UnformattedTextValue).startswith(NOT_VERIFIED), "it does not say that nobody verified it")
    require(is_everywhere, "it does not say on every image that nobody verified it")


def _enclosed(annotation: pydicom.Dataset, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The pixels within the outlines of one image, those of holes taken out again."""
    counts = np.zeros(shape, np.uint8)
    for graphic in annotation.GraphicObjectSequence:
        kind = (graphic.GraphicType, graphic.GraphicAnnotationUnits, int(graphic.GraphicDimensions))
        require(kind == ("POLYLINE", "PIXEL", 2), "a graphic is no polyline in pixels")
        points = np.array(graphic.GraphicData, np.float64).reshape(-1, 2)
        require(len(points) == graphic.NumberOfGraphicPoints, "a graphic has another number of points than it says")
        require(np.array_equal(points[0], points[-1]), "an outline is not closed")
        inside(points[:-1], shape).add_to(counts)
    odd: NDArray[np.bool_] = counts % 2 == 1
    return odd
