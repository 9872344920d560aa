"""What goes into one run of an operator graph, and the record that it leaves: plain data, free of the SDK."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from operators.agreement_limits import AgreementLimits
from operators.gate.notes import GateNote
from operators.gate.policies import Policy
from operators.object_kinds import Kind
from operators.results.replacing import ReplacedObject, say_replaces
from operators.sam.prompts import SegmentPrompts

RECORD_FILE = "result.json"
"""Written last, so that its being there says that all the rest is."""
SPECIALIST_RECORD_FILE = "specialist.json"
"""Where a generalist follows: the record of what the specialist made, written before the generalist begins, so that
nothing that happens to the generalist can lose it."""
LABELS_FILE = "labels.npz"
"""The label map: ``labels`` (uint8 or uint16, axes slice, row, column), ``affine`` to patient coordinates (LPS, mm),
and ``frame_of_reference_uid``."""
GENERALIST_LABELS_FILE = "generalist.npz"
"""The generalist's label map, in the same form."""

PROBABILITIES_FILE = "probabilities.npy"
"""What `operators.nnunet.probability_maps` keeps, where a FRACTIONAL Segmentation is wanted."""

Role = Literal["specialist", "generalist"]
"""What a model is in a pipeline: the one that was trained for it, or the one that is prompted with what that found."""
IMAGES_CHANNEL, PROMPT_CHANNEL = "images", "prompt"
PROMPTED_CHANNELS = (IMAGES_CHANNEL, PROMPT_CHANNEL)
"""What a run that is prompted reads, in the order of its inputs."""


@dataclass(frozen=True)
class ChannelInput:
    """The series that feeds one channel of a model."""

    channel: str
    """Its name, as in the model's ``dataset.json``; empty where a series came without: the model's only channel."""
    files: tuple[Path, ...]
    """The instances of one series, in any order."""


@dataclass(frozen=True)
class EmbeddingsRequest:
    """Where a generalist's embeddings are kept beyond the run, so that no later prompt on a slice pays for them."""

    folder: Path
    """That of all processes on this host that ask generalists (`app.settings.Settings.embeddings_folder`)."""
    most_bytes: int
    """What all files in it may hold together."""


@dataclass(frozen=True)
class GeneralistRequest:
    """The generalist that is to look at the same series, and what counts as agreement with the specialist."""

    model_folder: Path
    window: str
    """What the series is shown in, as `operators.sam.windowing.asked_window` reads it; empty: by modality."""
    box_margin_pixels: float
    """How much larger than what the specialist found a box is, on each side."""
    limits: AgreementLimits = AgreementLimits()
    windows: Mapping[str, str] = field(default_factory=dict)
    """By the label of a segment, what it is shown in instead."""
    prompts: SegmentPrompts = "boxes"
    """What each segment is shown by."""
    embeddings: EmbeddingsRequest | None = None
    """None where there is no server that keeps them: none are kept, since a run asks about each slice once."""

    def window_for(self, label: str) -> str:
        """Return what the series is shown in for the segment of this label."""
        return self.windows.get(label, self.window)


@dataclass(frozen=True)
class PromptRequest:
    """How prompt objects prompt a generalist (`app.settings_prompt.PromptSettings`)."""

    window: str = ""
    reach: Literal["slice", "volume"] = "slice"
    form: Literal["box", "mask"] = "box"
    embeddings: EmbeddingsRequest | None = None
    """None where there is no server that keeps them: they last as long as the run."""


@dataclass(frozen=True)
class GateRequest:
    """What the pipeline's gate does otherwise than by default (`app.settings_gate.GateSettings`)."""

    policies: Mapping[str, Policy] = field(default_factory=dict)
    """By the code of the check."""
    take: Mapping[str, str | float] = field(default_factory=dict)
    """DICOM keywords, and the value that images must have to go on."""


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
    generalist: GeneralistRequest | None = None
    """None where the specialist runs alone."""
    kinds: tuple[Kind, ...] = ("segmentation",)
    """What is written of each finding, whatever of it is sent in the end."""
    prompt: PromptRequest = PromptRequest()
    """Of a pipeline that is prompted."""
    gate: GateRequest = GateRequest()
    replaces: Mapping[Role, tuple[ReplacedObject, ...]] = field(default_factory=dict)
    """What was sent of earlier jobs whose place this one takes, by the model that made it."""

    def described(self, otherwise: str) -> str:
        """Return the Series Description of the results: as asked for, or `otherwise`; and that they replace others."""
        description = self.series_description or otherwise
        return say_replaces(description) if self.replaces else description

    @property
    def probabilities_path(self) -> Path | None:
        """Where a specialist is to keep its probabilities; None if nobody wants them."""
        return self.output_folder / PROBABILITIES_FILE if "fractional" in self.kinds else None

    @property
    def primary_files(self) -> tuple[Path, ...]:
        """The instances of the first channel's series."""
        return self.inputs[0].files


@dataclass(frozen=True)
class ObjectRecord:
    """A DICOM object that was written."""

    file: str
    """Its name in the output folder."""
    kind: Kind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    digest: str
    """SHA-256, 64 hexadecimal digits."""


@dataclass(frozen=True)
class LabelsRecord:
    """The label map that was written, or the probabilities."""

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
class FindingRecord:
    """What one model found: the objects and the label map that hold it, and its segments."""

    role: Role
    objects: tuple[ObjectRecord, ...]
    """The BINARY Segmentation first, which every finding has."""
    labels: LabelsRecord
    segments: tuple[SegmentRecord, ...]
    model: ModelRecord
    probabilities: LabelsRecord | None = None
    """Where a FRACTIONAL Segmentation was made of them."""


@dataclass(frozen=True)
class AgreementRecord:
    """How far the generalist agrees with the specialist on one segment (`operators.agreement`)."""

    number: int
    """Segment Number."""
    label: str
    dice: float
    distance_mm: float | None
    """The 95th percentile of the distances of the surfaces; None where only one of them found the segment."""
    difference_ml: float
    """The generalist's volume less the specialist's."""
    difference_percent: float | None
    """Of the specialist's volume; None where that is 0."""
    beyond: tuple[str, ...]
    """The pipeline's limits that it lies beyond: ``dice``, ``distance``, ``volume``, or ``one-empty``."""

    @property
    def in_words(self) -> str:
        """Such as "Liver: Dice 0.71, volume +21.4 %": what lies beyond the limits, for people."""
        if "one-empty" in self.beyond:
            return f"{self.label}: found by the {'generalist' if self.difference_ml > 0 else 'specialist'} alone"
        figures = {
            "dice": f"Dice {self.dice:.3f}",
            "distance": "no distance"
            if self.distance_mm is None
            else f"distance of the surfaces {self.distance_mm:.1f} mm",
            "volume": "no volume" if self.difference_percent is None else f"volume {self.difference_percent:+.1f} %",
        }
        return f"{self.label}: {', '.join(figures[limit] for limit in self.beyond)}"


@dataclass(frozen=True)
class FailureRecord:
    """Why the generalist has no result."""

    code: str
    reason: str


@dataclass(frozen=True)
class CompletionRecord:
    """What a graph that ran to its end did."""

    identity: str
    findings: tuple[FindingRecord, ...]
    """One for each model that has a result, the specialist's first."""
    agreement: tuple[AgreementRecord, ...] = ()
    """One a segment, where a generalist has a result too."""
    generalist_failure: FailureRecord | None = None
    steps: Mapping[str, float] = field(default_factory=dict)
    """Seconds each step took."""
    left_out: tuple[str, ...] = ()
    """What of prompt objects could not be followed while the rest could: ``number: code``."""
    prompted_by: Mapping[str, str] = field(default_factory=dict)
    """The objects that prompted it: Series Instance UID by SOP Instance UID."""
    notes: tuple[GateNote, ...] = ()
    """What the gate let pass or put in order; of prompts, what was left out and what overlaps."""
    dropped: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """SOP Instance UIDs of what the gate left out of the series, so that no result refers to it; with the numbers of
    the frames where only some of an instance's were left out."""

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
            failure = content["generalist_failure"]
            return cls(
                identity=str(content["identity"]),
                findings=tuple(_finding(entry) for entry in content["findings"]),
                agreement=tuple(
                    AgreementRecord(**{**entry, "beyond": tuple(entry["beyond"])}) for entry in content["agreement"]
                ),
                generalist_failure=None if failure is None else FailureRecord(**failure),
                steps={str(name): float(seconds) for name, seconds in content["steps"].items()},
                left_out=tuple(str(one) for one in content["left_out"]),
                prompted_by={str(instance): str(series) for instance, series in content["prompted_by"].items()},
                notes=tuple(GateNote(**entry) for entry in content["notes"]),
                dropped={str(uid): tuple(map(int, frames)) for uid, frames in content["dropped"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a completion record: {error!r}") from error


def specialist_alone(folder: Path, code: str, reason: str) -> CompletionRecord | None:
    """Return what the specialist made in a run that failed after it with `code`; None if that is not there."""
    try:
        record = CompletionRecord.from_json((folder / SPECIALIST_RECORD_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return replace(record, generalist_failure=FailureRecord(code, reason))


def _finding(entry: Mapping[str, Any]) -> FindingRecord:
    return FindingRecord(
        role=entry["role"],
        objects=tuple(ObjectRecord(**one) for one in entry["objects"]),
        labels=LabelsRecord(**entry["labels"]),
        segments=tuple(SegmentRecord(**one) for one in entry["segments"]),
        model=ModelRecord(**entry["model"]),
        probabilities=None if entry["probabilities"] is None else LabelsRecord(**entry["probabilities"]),
    )
