"""What goes into one run of an operator graph, and the record that it leaves: plain data, free of the SDK."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RECORD_FILE = "result.json"
"""Written last, so that its being there says that all the rest is."""
LABELS_FILE = "labels.npz"
"""The label map: ``labels`` (uint8 or uint16, axes slice, row, column), ``affine`` to patient coordinates (LPS, mm),
and ``frame_of_reference_uid``."""


@dataclass(frozen=True)
class ChannelInput:
    """The series that feeds one channel of a model."""

    channel: str
    """Its name, as in the model's ``dataset.json``; empty where a series came without: the model's only channel."""
    files: tuple[Path, ...]
    """The instances of one series, in any order."""


@dataclass(frozen=True)
class GraphRequest:
    """One run: what to read, what to run on it, where to write."""

    inputs: tuple[ChannelInput, ...]
    """One a channel, in the model's order. The first is the primary: results lie on its grid and refer to it."""
    output_folder: Path
    """Gets the objects, the label map and the completion record."""
    model_folder: Path
    triton_target: str
    """gRPC address, ``host:port`` or ``unix:…``."""
    identity: str
    """Of the job; the UIDs of results derive from it."""
    series_description: str
    """Of the results; the model's own if empty."""
    request_seconds: float
    """Deadline of one inference request."""
    shared_memory: bool
    """Whether tensors go through shared memory."""

    @property
    def primary_files(self) -> tuple[Path, ...]:
        """The instances of the first channel's series."""
        return self.inputs[0].files


@dataclass(frozen=True)
class ObjectRecord:
    """A DICOM object that was written."""

    file: str
    """Its name in the output folder."""
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    digest: str
    """SHA-256, 64 hexadecimal digits."""


@dataclass(frozen=True)
class LabelsRecord:
    """The label map that was written."""

    file: str
    digest: str


@dataclass(frozen=True)
class SegmentRecord:
    """A segment, found or not."""

    number: int
    """Segment Number."""
    label_value: int
    """What the label map holds."""
    label: str
    code: str
    """As the Standard writes codes: (value, scheme, "meaning")."""
    voxels: int
    volume_ml: float


@dataclass(frozen=True)
class ModelRecord:
    """What computed it."""

    name: str
    version: str
    weights_digest: str


@dataclass(frozen=True)
class CompletionRecord:
    """What a graph that ran to its end did."""

    identity: str
    objects: tuple[ObjectRecord, ...]
    labels: LabelsRecord
    segments: tuple[SegmentRecord, ...]
    model: ModelRecord
    steps: Mapping[str, float] = field(default_factory=dict)
    """Seconds each step took."""

    def to_json(self) -> bytes:
        """Return it as JSON text."""
        return json.dumps(asdict(self), indent=2).encode()

    @classmethod
    def from_json(cls, text: bytes) -> CompletionRecord:
        """Read it from JSON text.

        Raises
        ------
        ValueError
            If the text is no completion record.
        """
        try:
            content: Any = json.loads(text)
            return cls(
                identity=str(content["identity"]),
                objects=tuple(ObjectRecord(**entry) for entry in content["objects"]),
                labels=LabelsRecord(**content["labels"]),
                segments=tuple(SegmentRecord(**entry) for entry in content["segments"]),
                model=ModelRecord(**content["model"]),
                steps={str(name): float(seconds) for name, seconds in content["steps"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a completion record: {error!r}") from error
