"""A phantom series with an asymmetric label map, written as a Segmentation: for the tests of all that reads one.

There is one map of few labels, and one of more than uint8 holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import highdicom
import numpy as np
from numpy.typing import NDArray

from operators.label_maps import LabelMap
from operators.results.finding import Algorithm, WrittenObject
from operators.segments import Code, SegmentSpec
from operators.series_volume import SeriesVolume, read_series
from tests.written_segmentation import write_segmentation

_ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
LIVER = SegmentSpec(1, "Liver", _ANATOMY, Code("10200004", "SCT", "Liver"), None, "planted", (221, 130, 101))
LEFT_KIDNEY = SegmentSpec(
    5,
    "Left kidney",
    _ANATOMY,
    Code("64033007", "SCT", "Kidney"),
    Code("7771000", "SCT", "Left"),
    "planted",
    (185, 102, 83),
)
SPLEEN = SegmentSpec(9, "Spleen", _ANATOMY, Code("78961009", "SCT", "Spleen"), None, "planted", None)
SEGMENTS = (LIVER, LEFT_KIDNEY, SPLEEN)
"""Label values with gaps, a modifier, one without colour; the spleen is never found."""
MANY_SEGMENTS = tuple(
    SegmentSpec(100 + 3 * number, f"Segment {number}", _ANATOMY, LIVER.type, None, "planted", None)
    for number in range(1, 301)
)
"""More than 255, label values 103 to 1000 with gaps; the last is never found."""
ALGORITHM = Algorithm("Planted network", "2.1.0", "0123456789abcdef" * 4)


def asymmetric_labels(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Label values that look different from every side, with single voxels in two opposite corners.

    Segment 1 begins at the first slice's first corner; segment 5 is in the last slice's last corner. One slice between
    is left empty.
    """
    slices, rows, columns = shape
    labels = np.zeros(shape, np.uint8)
    labels[1 : slices // 2, 1 : rows // 3, 2 : columns // 2] = 1
    labels[slices // 2 + 1 :, rows // 2 :, columns // 4 : columns // 3] = 5
    labels[slices // 2] = 0
    labels[0, 0, 0] = 1
    labels[-1, -1, -1] = 5
    return labels


def no_labels(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Nothing found."""
    return np.zeros(shape, np.uint8)


def many_labels(shape: tuple[int, int, int]) -> NDArray[np.uint16]:
    """The label values of `MANY_SEGMENTS`, one after the other, the slice counting fastest; each seventh voxel is 0."""
    size = int(np.prod(shape))
    values = np.array([segment.label_value for segment in MANY_SEGMENTS], np.uint16)
    places = np.arange(size)
    found = np.where(places % 7 == 3, 0, values[places * (len(values) - 1) // size])
    return np.ascontiguousarray(found.astype(np.uint16).reshape(shape, order="F"))


def label_volume(series: SeriesVolume) -> highdicom.Volume:
    """The asymmetric labels where the series lies."""
    return series.volume.with_array(asymmetric_labels(series.volume.spatial_shape))


def write_segmented(
    files: list[Path],
    path: Path,
    *,
    identity: str = "identity",
    series_description: str = "organs",
    paint: Callable[[tuple[int, int, int]], LabelMap] = asymmetric_labels,
    segments: Sequence[SegmentSpec] = SEGMENTS,
) -> tuple[WrittenObject, SeriesVolume, highdicom.Volume]:
    """Read a series, write labels on it; return what was written, the series and the labels."""
    series = read_series(files)
    labels = series.volume.with_array(paint(series.volume.spatial_shape))
    written = write_segmentation(
        labels, series, segments, ALGORITHM, identity=identity, series_description=series_description, path=path
    )
    return written, series, labels
