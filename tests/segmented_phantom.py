"""A phantom series with an asymmetric label map, written as a Segmentation: for the tests of all that reads one."""

from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
from numpy.typing import NDArray

from operators.segmentation_writer import Algorithm, WrittenObject, write_segmentation
from operators.segments import Code, SegmentSpec
from operators.series_volume import SeriesVolume, read_series

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


def label_volume(series: SeriesVolume) -> highdicom.Volume:
    """The asymmetric labels where the series lies."""
    return series.volume.with_array(asymmetric_labels(series.volume.spatial_shape))


def write_segmented(
    files: list[Path], path: Path, *, identity: str = "identity", series_description: str = "organs"
) -> tuple[WrittenObject, SeriesVolume, highdicom.Volume]:
    """Read a series, write asymmetric labels on it; return what was written, the series and the labels."""
    series = read_series(files)
    labels = label_volume(series)
    written = write_segmentation(
        labels, series, SEGMENTS, ALGORITHM, identity=identity, series_description=series_description, path=path
    )
    return written, series, labels
