"""The completion record of a run whose object and label map were written by a test: what reading back begins with."""

from __future__ import annotations

from pathlib import Path

import highdicom

from app.graph import LABELS_FILE, CompletionRecord, FindingRecord, LabelsRecord, ModelRecord
from app.recording import object_records, segment_records, write_labels
from operators.results.finding import WrittenObject
from tests.segmented_phantom import ALGORITHM, SEGMENTS


def completed_run(written: WrittenObject, labels: highdicom.Volume, folder: Path) -> CompletionRecord:
    """Write the label map into `folder`, and record it with an object of the identity ``identity``."""
    finding = FindingRecord(
        role="specialist",
        objects=object_records({"segmentation": (written,)}),
        labels=LabelsRecord(LABELS_FILE, write_labels(folder / LABELS_FILE, labels)),
        segments=segment_records(labels, SEGMENTS),
        model=ModelRecord("planted", ALGORITHM.version, ALGORITHM.weights_digest),
    )
    return CompletionRecord("identity", (finding,))
