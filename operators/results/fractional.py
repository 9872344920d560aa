"""A finding's probabilities as a FRACTIONAL Segmentation (PS3.3 A.51, C.8.20.2): 8 bits a voxel and segment.

highdicom takes all segments at once, four bytes a voxel each: 19 GB for 60 labels on 300 slices. So it is given which
frames there will be, as images of one pixel, and describes and orders them; their pixels are put in afterwards, made of
one segment after the other. In memory is one segment's volume and the frames that are written.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import highdicom
import numpy as np
from highdicom.seg import Segmentation, SegmentationTypeValues
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian

from operators.errors import OperatorError
from operators.label_maps import check_grid
from operators.results.finding import Finding, WrittenObject, save_object
from operators.results.segmentation import check_size, segmentation_object

HIGHEST = 255
"""Maximum Fractional Value: what a probability of 1 is stored as."""

Frames = dict[tuple[int, int], bytes]
"""Pixels by segment number and slice index."""


def write_fractional(
    finding: Finding, probabilities: Iterable[tuple[int, highdicom.Volume]], path: Path
) -> WrittenObject:
    """Write probabilities as one FRACTIONAL Segmentation instance of type PROBABILITY, and return what was written.

    Parameters
    ----------
    probabilities
        Label value and volume of each segment of the finding, once, in any order. The volumes are asked for one after
        the other and not kept, so an iterator that makes them bounds the memory. They are floats from 0 to 1, axes
        slice, row, column, on exactly the series' grid; they are stored as multiples of 1/255, rounded to the nearest.
        Frames that are 0 everywhere are left out; if all are, one is written.

    Raises
    ------
    OperatorError
        ``labels-elsewhere`` if a volume lies elsewhere than the series, ``label-undescribed`` if no segment has its
        label, ``probabilities-incomplete`` if a segment comes not once, ``probabilities-beyond`` if a value is no
        number from 0 to 1, ``segmentation-too-large`` if its frames are more than a DICOM object can hold.
    """
    frames = _frames(finding, probabilities)
    segmentation = segmentation_object(
        finding,
        _outline(finding, frames),
        "fractional",
        SegmentationTypeValues.FRACTIONAL,
        ExplicitVRLittleEndian,
        omit_empty_frames=True,
    )
    _put_pixels(segmentation, finding.series.volume, frames)
    return save_object(segmentation, path)


def quantised(plane: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return probabilities as the multiples of 1/255 that are stored.

    Raises
    ------
    OperatorError
        ``probabilities-beyond``.
    """
    if not np.all((plane >= 0) & (plane <= 1)):  # nor is any comparison with NaN true
        raise OperatorError(
            f"expected probabilities from 0 to 1, got values from {np.min(plane):.6g} to {np.max(plane):.6g}",
            code="probabilities-beyond",
        )
    stored: NDArray[np.uint8] = np.rint(plane * HIGHEST).astype(np.uint8)
    return stored


def _frames(finding: Finding, probabilities: Iterable[tuple[int, highdicom.Volume]]) -> Frames:
    numbers = {segment.label_value: number for number, segment in enumerate(finding.segments, start=1)}
    came: list[int] = []
    frames: Frames = {}
    for value, volume in probabilities:
        if value not in numbers:
            raise OperatorError(
                f"probabilities came for the label {value}, which segments.json does not describe",
                code="label-undescribed",
            )
        check_grid(volume, finding.series.volume, "probabilities")
        came.append(numbers[value])
        for index, plane in enumerate(volume.array):
            stored = quantised(plane)
            if stored.any():
                frames[numbers[value], index] = stored.tobytes()
                check_size(len(frames), len(frames) * stored.size)
    if sorted(came) != sorted(numbers.values()):
        raise OperatorError(
            f"expected the probabilities of each of {len(numbers)} segments once, got {len(came)} volumes for "
            f"{len(set(came))} of them",
            code="probabilities-incomplete",
        )
    return frames


def _outline(finding: Finding, frames: Frames) -> highdicom.Volume:
    """Which segment has a frame on which slice, as one pixel for each: where the first pixel of the slice is."""
    grid = finding.series.volume
    there = np.zeros((grid.spatial_shape[0], 1, 1, len(finding.segments)), np.uint8)
    for number, index in frames or [(1, 0)]:
        there[index, 0, 0, number - 1] = 1
    return highdicom.Volume(
        array=there,
        affine=grid.affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=grid.frame_of_reference_uid,
        channels={"SegmentNumber": list(range(1, len(finding.segments) + 1))},
    )


def _put_pixels(segmentation: Segmentation, grid: highdicom.Volume, frames: Frames) -> None:
    """Give the frames their pixels, in the order that highdicom has put them in."""
    _, rows, columns = grid.spatial_shape
    segmentation.Rows, segmentation.Columns = rows, columns
    segmentation.SegmentsOverlap = "UNDEFINED" if len(segmentation.SegmentSequence) > 1 else "NO"
    for groups in segmentation.PerFrameFunctionalGroupsSequence:
        for source in groups.DerivationImageSequence[0].SourceImageSequence:
            source.SpatialLocationsPreserved = "YES"  # highdicom compared the source's matrix with one pixel
    order = _order(segmentation, grid)
    pixels = b"".join(frames.get(place, bytes(rows * columns)) for place in order)
    segmentation.PixelData = pixels + bytes(len(pixels) % 2)


def _order(segmentation: Segmentation, grid: highdicom.Volume) -> list[tuple[int, int]]:
    """Segment number and slice index of each frame."""
    groups = segmentation.PerFrameFunctionalGroupsSequence
    positions = np.array([one.PlanePositionSequence[0].ImagePositionPatient for one in groups], np.float64)
    slices = np.rint(grid.map_reference_to_indices(positions)[:, 0]).astype(int).tolist()
    shared = segmentation.SharedFunctionalGroupsSequence[0]  # has the number where there is but one segment
    numbers = [
        int((one if "SegmentIdentificationSequence" in one else shared).SegmentIdentificationSequence[0]
            .ReferencedSegmentNumber)
        for one in groups
    ]  # fmt: skip
    return list(zip(numbers, slices, strict=True))
