"""A finding on a phantom series, as CT or MR, for the tests of all objects that are made of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from app.graph import LABELS_FILE, FindingRecord, LabelsRecord, ModelRecord
from app.jobs.readback.computed import ComputedLabels
from app.recording import object_records, segment_records
from operators.gate.gate import Gate
from operators.label_maps import LabelMap
from operators.results.finding import Finding, WrittenObject
from operators.segments import Code, SegmentSpec
from operators.series_volume import read_series
from tests.phantom import AXIAL, OBLIQUE, SAGITTAL, Edit, Phantom, setting
from tests.segmented_phantom import ALGORITHM, SEGMENTS, asymmetric_labels

_ANY = Gate()
PHANTOM = Phantom()
JAPANESE = replace(PHANTOM, character_set=["", "ISO 2022 IR 87"], patient_name="Yamada^Tarou=山田^太郎=やまだ^たろう")
TUMOUR = SegmentSpec(
    7,
    "Tumour, right",
    Code("49755003", "SCT", "Morphologically Abnormal Structure"),
    Code("108369006", "SCT", "Neoplasm"),
    Code("24028007", "SCT", "Right"),
    "planted",
    (255, 0, 0),
)
"""What is no anatomical structure, on a side."""
WITHOUT_TYPE_2 = setting(
    PatientName=None,
    PatientID=None,
    PatientBirthDate=None,
    PatientSex=None,
    AccessionNumber=None,
    StudyID=None,
    StudyTime=None,
    ReferringPhysicianName=None,
)


def as_mr(index: int, dataset: Dataset) -> Dataset:
    """An edit that makes a slice of an MR series of it."""
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.Modality = "MR"
    del dataset.RescaleType, dataset.KVP
    return dataset


KINDS: dict[str, tuple[Phantom, Edit | None]] = {
    "ct-axial": (PHANTOM, None),
    "ct-oblique": (replace(PHANTOM, orientation=OBLIQUE, against_normal=True), None),
    "ct-square": (replace(PHANTOM, orientation=AXIAL, row_spacing=0.7, column_spacing=0.7), None),
    "mr-sagittal": (replace(PHANTOM, orientation=SAGITTAL, seed=1), as_mr),
    "japanese": (JAPANESE, None),
}
"""Series that objects are made of: oblique, sagittal, of square and other pixels, CT and MR."""


def planted_finding(
    folder: Path,
    phantom: Phantom = PHANTOM,
    *,
    edit: Edit | None = None,
    paint: Callable[[tuple[int, int, int]], LabelMap] = asymmetric_labels,
    segments: Sequence[SegmentSpec] = SEGMENTS,
    gate: Gate = _ANY,
) -> Finding:
    """Write a series into `folder`, and return what is found on it."""
    series = read_series(phantom.write(folder, edit=edit), gate=gate)
    labels = series.volume.with_array(paint(series.volume.spatial_shape))
    return Finding(labels, series, segments, ALGORITHM, "identity", "organs")


def planted_probabilities(finding: Finding) -> Iterator[tuple[int, highdicom.Volume]]:
    """High where a segment is, low around it and 0 in one half; of what was not found there are some too."""
    volume = finding.series.volume
    noise = np.random.default_rng(7).random(volume.spatial_shape, np.float32)
    half = np.arange(volume.spatial_shape[2]) < volume.spatial_shape[2] // 2
    for segment in finding.segments:
        found = finding.labels.array == segment.label_value
        yield segment.label_value, volume.with_array(np.where(found, 1 - noise / 4, noise / 4 * half * found.any()))


def record_of(finding: Finding, written: WrittenObject) -> FindingRecord:
    """What the graph records of it."""
    return FindingRecord(
        role="specialist",
        objects=object_records({"segmentation": (written,)}),
        labels=LabelsRecord(LABELS_FILE, "0" * 64),
        segments=segment_records(finding.labels, finding.segments),
        model=ModelRecord("planted", ALGORITHM.version, ALGORITHM.weights_digest),
    )


def computed(finding: Finding) -> ComputedLabels:
    """Its label map as verification has it."""
    labels = finding.labels
    return ComputedLabels(labels.array, np.asarray(labels.affine), str(labels.frame_of_reference_uid))
