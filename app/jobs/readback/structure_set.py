"""An RT Structure Set, read back by the numbers of its file: its contours, filled again, are the label map's slices."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.uid import RTStructureSetStorage

from app.graph import FindingRecord
from app.jobs.readback.computed import TOLERANCE_VOXELS, ComputedLabels, Floats, require
from app.jobs.readback.outlines import inside, require_shown
from app.jobs.readback.sources import SourceSlices

_VOLUME_TOLERANCE = 1e-3


def check_structure_set(
    dataset: pydicom.Dataset, labels: ComputedLabels, finding: FindingRecord, slices: SourceSlices
) -> None:
    """Check regions, places and every voxel. Raises ``VerificationFailed`` if anything is not what was computed."""
    require(dataset.SOPClassUID == RTStructureSetStorage, "it is no RT Structure Set")
    _check_regions(dataset, labels, finding)
    _check_frame(dataset, labels, slices)
    shown = set()
    values = {segment.number: segment.label_value for segment in finding.segments}
    for drawn in dataset.ROIContourSequence:
        value = values[int(drawn.ReferencedROINumber)]
        for plane, counts in _painted(drawn, labels, slices).items():
            same = np.array_equal(counts, labels.array[plane] == value)
            require(same, f"the contours of region {drawn.ReferencedROINumber} differ from its voxels")
            shown.add((plane, value))
    require_shown(labels, shown)


def _check_regions(dataset: pydicom.Dataset, labels: ComputedLabels, finding: FindingRecord) -> None:
    """Numbers, names, codes and volumes are the record's, and the model is the one that computed it."""
    codes = {int(one.ReferencedROINumber): _code(one) for one in dataset.RTROIObservationsSequence}
    found = [
        (int(one.ROINumber), str(one.ROIName), codes[int(one.ROINumber)]) for one in dataset.StructureSetROISequence
    ]
    expected = [(segment.number, segment.label, segment.code) for segment in finding.segments]
    require(found == expected, "its regions are not the record's segments")
    drawn = [int(one.ReferencedROINumber) for one in dataset.ROIContourSequence]
    require(drawn == [segment.number for segment in finding.segments], "its contours are of other regions")
    voxel_ml = abs(float(np.linalg.det(labels.affine[:3, :3]))) / 1000.0
    for region, segment in zip(dataset.StructureSetROISequence, finding.segments, strict=True):
        in_frame = region.ReferencedFrameOfReferenceUID == labels.frame_of_reference_uid
        require(in_frame, "a region is in another frame of reference")
        off = abs(float(region.ROIVolume) - segment.voxels * voxel_ml)
        require(off <= _VOLUME_TOLERANCE * segment.voxels * voxel_ml, "a region has another volume")
        (algorithm,) = region.ROIDerivationAlgorithmIdentificationSequence
        require(algorithm.AlgorithmVersion == finding.model.version, "it names another version of the model")
        require(finding.model.weights_digest in algorithm.AlgorithmParameters, "it names other weights")


def _code(observed: pydicom.Dataset) -> str:
    (code,) = observed.RTROIIdentificationCodeSequence
    return f'({code.CodeValue}, {code.CodingSchemeDesignator}, "{code.CodeMeaning}")'


def _check_frame(dataset: pydicom.Dataset, labels: ComputedLabels, slices: SourceSlices) -> None:
    (frame,) = dataset.ReferencedFrameOfReferenceSequence
    require(frame.FrameOfReferenceUID == labels.frame_of_reference_uid, "it is in another frame of reference")
    (study,) = frame.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    same = slices.named(series.ContourImageSequence) == slices.every
    require(same, "it does not refer to exactly its source instances")


def _painted(drawn: pydicom.Dataset, labels: ComputedLabels, slices: SourceSlices) -> dict[int, NDArray[np.uint8]]:
    """How many of a region's contours enclose each pixel, by slice of the label map."""
    rows, columns = labels.array.shape[1:]
    found: dict[int, NDArray[np.uint8]] = defaultdict(lambda: np.zeros((rows, columns), np.uint8))
    for contour in drawn.get("ContourSequence", ()):
        require(contour.ContourGeometricType == "CLOSED_PLANAR", "a contour is not closed and planar")
        (plane,) = slices.named(contour.ContourImageSequence)
        points = _points(contour)
        require(len(points) == contour.NumberOfContourPoints, "a contour has another number of points than it says")
        indices = labels.indices(points) - slices.offsets[plane]
        on_slice = bool(np.all(np.abs(indices[:, 0] - plane) <= TOLERANCE_VOXELS))
        require(on_slice, "a contour lies elsewhere than the slice that it refers to")
        inside(indices[:, [2, 1]] + 0.5, (rows, columns)).add_to(found[plane])
    return found


def _points(contour: pydicom.Dataset) -> Floats:
    """The points of a contour, (n, 3), from the file's own text: pydicom would make an object of each number."""
    element = contour.get_item("ContourData")
    raw = element.value if isinstance(element, RawDataElement) else None
    found: Floats = np.array(contour.ContourData if raw is None else raw.split(b"\\"), np.float64)
    require(len(found) % 3 == 0, "a contour's coordinates are not in threes")
    return found.reshape(-1, 3)
