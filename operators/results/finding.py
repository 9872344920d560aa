"""What a model found on a series, and what all objects that say so have in common.

One finding becomes objects of several kinds (`Kind`). Each kind has a modality of its own, so a series of its own,
numbered after its source's series; all UIDs derive from the job, so that the same finding gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import highdicom
import pydicom
from pydicom.uid import UID

from operators.derived_uids import (
    derived_uid,
    object_instance_uid,
    object_series_uid,
)
from operators.durable import write_durably
from operators.object_kinds import Kind
from operators.prompting_object import PromptingObject
from operators.results.encoding import encode_file
from operators.results.replacing import ReplacedObject
from operators.segments import SegmentSpec
from operators.series_volume import SeriesVolume

__all__ = [
    "Algorithm",
    "Finding",
    "Kind",
    "PromptingObject",
    "ReplacedObject",
    "WrittenObject",
    "device_uid",
    "object_instance_uid",
    "object_series_uid",
    "save_object",
    "series_number",
]

_SERIES_NUMBER_OFFSETS: dict[Kind, int] = {
    "segmentation": 1000,
    "labelmap": 1000,
    "fractional": 1000,
    "report": 2000,
    "report-on-labelmap": 2000,
    "report-alone": 2000,
    "structure-set": 3000,
    "capture": 4000,
    "presentation-state": 5000,
    "notice": 6000,
    "notice-page": 7000,
    "rejection-note": 8000,
}
"""A result's Series Number is its source's and this: beside it, and not another acquisition's."""
_MOST_SERIES_NUMBER = 99999


@dataclass(frozen=True)
class Algorithm:
    """Who says so (PS3.3 10.16)."""

    name: str
    version: str
    weights_digest: str
    """SHA-256 of the weights, 64 hexadecimal digits."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """What else decides its result, such as what prompted it."""

    @property
    def all_parameters(self) -> dict[str, str]:
        """`parameters`, and before them the digest of the weights."""
        return {"weights_sha256": self.weights_digest, **self.parameters}

    @property
    def own_text(self) -> str:
        """All text of it that a result holds."""
        return " ".join([self.name, self.version, *(text for pair in self.parameters.items() for text in pair)])


@dataclass(frozen=True)
class WrittenObject:
    """An object on disk."""

    path: Path
    digest: str
    """SHA-256 of the file, 64 hexadecimal digits."""
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True)
class Finding:
    """What every kind of object is made of."""

    labels: highdicom.Volume
    """uint8 or uint16, axes slice, row, column, on exactly the grid of the series' volume; 0 is background, other
    values are label values of `segments`."""
    series: SeriesVolume
    segments: Sequence[SegmentSpec]
    """Every label that the model can paint, found or not; segment numbers count them from 1."""
    algorithm: Algorithm
    identity: str
    """Of the job, or of the generalist in it; all UIDs derive from it."""
    series_description: str
    is_automatic: bool = True
    """False where a person's hand guided the algorithm."""
    prompted_by: Sequence[PromptingObject] = ()
    replaces: Sequence[ReplacedObject] = ()
    """What of an earlier result somebody has; its series description says so too (`say_replaces`)."""

    @property
    def source(self) -> pydicom.Dataset:
        """The header of the series' first slice."""
        return self.series.datasets[0]

    def tracking(self, number: int) -> tuple[str, str]:
        """Return Tracking ID and Tracking UID of segment `number`, the same in all objects (PS3.3 C.8.20.4)."""
        segment = self.segments[number - 1]
        derived = derived_uid(self.identity, "tracking", str(number))
        return segment.tracking_id or segment.label, segment.tracking_uid or derived

    def own_text(self, *more: str) -> str:
        """Return all text that a result says itself: what decides whether the source's character set can hold it."""
        codes = (code for one in self.segments for code in (one.category, one.type, one.modifier) if code)
        labels = (text for one in self.segments for text in (one.label, one.tracking_id))
        return " ".join([*more, self.algorithm.own_text, *labels, *(code.meaning for code in codes)])


def device_uid(algorithm: Algorithm) -> UID:
    """Return the Device UID of a model: another version or other weights are another device (IHE AI Results)."""
    return derived_uid("device", algorithm.name, algorithm.version, algorithm.weights_digest)


def series_number(source: pydicom.Dataset, kind: Kind) -> int:
    """Return the Series Number of the objects of one kind, by that of the series that was read."""
    try:
        number = int(source.get("SeriesNumber") or 0)
    except ValueError:
        number = 0
    return _SERIES_NUMBER_OFFSETS[kind] + (number if 0 < number <= _MOST_SERIES_NUMBER else 0)


def save_object(dataset: pydicom.Dataset, path: Path) -> WrittenObject:
    """Write a finished object durably as a Part 10 file, and return what was written."""
    return WrittenObject(
        path=path,
        digest=write_durably(path, encode_file(dataset)),
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
    )
