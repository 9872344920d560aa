"""A finding on a phantom with all that outlines get wrong, and its record: for the tests of what draws outlines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import MRImageStorage

from app.graph import FindingRecord, LabelsRecord, ModelRecord, ObjectRecord
from app.jobs.readback.computed import ComputedLabels
from app.jobs.readback.sources import SourceSlices, check_grid
from app.recording import segment_records
from operators.results.finding import Finding
from operators.segments import SegmentSpec
from operators.series_volume import read_series
from tests.phantom import AXIAL, CORONAL, OBLIQUE, SAGITTAL, Edit, Phantom, setting
from tests.segmented_phantom import ALGORITHM, SEGMENTS

PHANTOM = Phantom(slices=7, rows=24, columns=30)
ORIENTED = {
    "axial": PHANTOM,
    "axial-against-normal": replace(PHANTOM, against_normal=True),
    "coronal": replace(PHANTOM, orientation=CORONAL),
    "sagittal": replace(PHANTOM, orientation=SAGITTAL, row_spacing=1.2, column_spacing=0.9),
    "oblique": replace(PHANTOM, orientation=OBLIQUE, against_normal=True),
    "square": replace(PHANTOM, orientation=AXIAL, row_spacing=0.7, column_spacing=0.7),
}
AS_MR: Edit = setting(
    SOPClassUID=MRImageStorage,
    Modality="MR",
    KVP=None,
    RescaleSlope=None,
    RescaleIntercept=None,
    RescaleType=None,
    ScanningSequence="GR",
    SequenceVariant="NONE",
    ScanOptions="",
    MRAcquisitionType="2D",
    EchoTime="2",
    EchoTrainLength=1,
)


def intricate_labels(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A ring with two holes and an island, components, pixels that touch at a corner, single voxels, and the border.

    It looks different from every side. One slice is left empty, and segment 9 is never found.
    """
    labels = np.zeros(shape, np.uint8)
    ring = labels[1:3]
    ring[:, 2:20, 3:24] = 1
    ring[:, 5:12, 6:14] = 0
    ring[:, 7:9, 8:10] = 1  # an island in a hole
    ring[:, 14:18, 16:17] = 0
    ring[0, 5:7, 18:21] = 0  # level with the other hole
    ring[1, 4, 14] = 0  # touches the first hole at a corner
    labels[2, 21:23, 26:29] = 1  # another component
    labels[2, 23, 29] = 1  # the border, and a corner
    labels[4, 3, 3] = labels[4, 4, 4] = labels[4, 3, 5] = 1  # touch at corners
    labels[4, 10, 10:14] = 5
    labels[4, 9:12, 12] = 5
    labels[5, 0:4, 0:7] = 5  # beside each other
    labels[5, 4:6, 0:7] = 1
    labels[0, 0, 0] = 1
    labels[-1, -1, -1] = 5
    return labels


@dataclass(frozen=True)
class Pictured:
    """A finding, the files of its series, and what the graph records of it."""

    finding: Finding
    files: list[Path]
    record: FindingRecord

    @property
    def computed(self) -> ComputedLabels:
        """The label map as verification reads it."""
        labels = self.finding.labels
        return ComputedLabels(labels.array, np.asarray(labels.affine), str(labels.frame_of_reference_uid))

    @property
    def sources(self) -> list[pydicom.Dataset]:
        """The source instances, in the order of their files."""
        return [pydicom.dcmread(path, stop_before_pixels=True) for path in self.files]

    @property
    def slices(self) -> SourceSlices:
        """Which slice each of them is."""
        return check_grid(self.computed, self.sources)


def pictured(
    folder: Path,
    phantom: Phantom = PHANTOM,
    *,
    paint: Callable[[tuple[int, int, int]], NDArray[np.uint8]] = intricate_labels,
    segments: Sequence[SegmentSpec] = SEGMENTS,
    edit: Edit | None = None,
    identity: str = "identity",
) -> Pictured:
    """Write the series, and paint a finding on it."""
    files = phantom.write(folder, edit=edit)
    series = read_series(files)
    labels: highdicom.Volume = series.volume.with_array(paint(series.volume.spatial_shape))
    record = FindingRecord(
        role="specialist",
        objects=(ObjectRecord("", "segmentation", "", "", "", ""),),
        labels=LabelsRecord("", ""),
        segments=segment_records(labels, segments),
        model=ModelRecord("planted", ALGORITHM.version, ALGORITHM.weights_digest),
    )
    return Pictured(Finding(labels, series, segments, ALGORITHM, identity, "organs"), files, record)
