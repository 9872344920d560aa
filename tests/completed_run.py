"""The completion record of a run whose objects and label map were written by a test: what reading back begins with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import highdicom

from app.graph import LABELS_FILE, CompletionRecord, FindingRecord, LabelsRecord, ModelRecord
from app.recording import object_records, segment_records, write_labels
from operators.label_maps import LabelMap
from operators.object_kinds import Kind
from operators.results.finding import Finding, WrittenObject
from operators.results.writing import Written, write_results
from operators.series_volume import SeriesVolume
from tests.segmented_phantom import ALGORITHM, SEGMENTS, label_volume

ALL_KINDS: tuple[Kind, ...] = (
    *("segmentation", "labelmap", "report", "report-on-labelmap", "report-alone"),
    *("structure-set", "capture", "presentation-state"),
)
"""What is made of a finding, but for probabilities, which are none."""


def completed_run(written: WrittenObject, labels: highdicom.Volume, folder: Path) -> CompletionRecord:
    """Write the label map into `folder`, and record it with an object of the identity ``identity``."""
    return CompletionRecord("identity", (_recorded({"segmentation": (written,)}, labels, folder),))


def completed_results(
    series: SeriesVolume, folder: Path, *, paint: Callable[[tuple[int, int, int]], LabelMap] | None = None
) -> CompletionRecord:
    """Write objects of all kinds of a finding on a series into `folder`, and record them with its label map."""
    shape = series.volume.spatial_shape
    labels = label_volume(series) if paint is None else series.volume.with_array(paint(shape))
    finding = Finding(labels, series, SEGMENTS, ALGORITHM, "identity", "organs")
    recorded = _recorded(write_results(finding, ALL_KINDS, folder), labels, folder)
    return CompletionRecord("identity", (recorded,), notes=series.notes, dropped=series.dropped)


def _recorded(written: Written, labels: highdicom.Volume, folder: Path) -> FindingRecord:
    return FindingRecord(
        role="specialist",
        objects=object_records(written),
        labels=LabelsRecord(LABELS_FILE, write_labels(folder / LABELS_FILE, labels)),
        segments=segment_records(labels, SEGMENTS),
        model=ModelRecord("planted", ALGORITHM.version, ALGORITHM.weights_digest),
    )
