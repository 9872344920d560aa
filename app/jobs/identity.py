"""A job's identity: the same instances, pipeline, model and program are the same job, on any machine."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.identifiers import derive_uuid
from app.jobs.entries import Job, JobInput
from operators.sam.prompts import SegmentPrompts


@dataclass(frozen=True)
class GeneralistFacts:
    """What a job records of the generalist of its pipeline, and what else decides its result."""

    name: str
    version: str
    weights_digest: str
    """SHA-256 of the weights, as 64 hexadecimal digits."""
    folder: Path
    window: str
    box_margin_pixels: float
    windows: Mapping[str, str] = field(default_factory=dict)
    """Of segments, by their label, that are shown in another one."""
    prompts: SegmentPrompts = "boxes"

    @property
    def asked(self) -> dict[str, Any]:
        """What settings ask for that not every job's key has: nothing where they ask for none of it."""
        return {
            **({"windows": dict(self.windows)} if self.windows else {}),
            **({"prompts": self.prompts} if self.prompts != "boxes" else {}),
        }


@dataclass(frozen=True)
class ModelFacts:
    """What a job records of the model of its pipeline."""

    name: str
    version: str
    weights_digest: str
    """SHA-256 of the weights, as 64 hexadecimal digits."""
    folder: Path
    channels: tuple[str, ...]
    """The names of its input channels, in the network's order."""
    generalist: GeneralistFacts | None = None
    """None where it runs alone."""
    intended_use: Mapping[str, Any] = field(default_factory=dict)
    """What its card states (`operators.gate.intended_use.IntendedUse.stated`): it decides what is refused."""


def job_key(
    inputs: Iterable[JobInput],
    *,
    pipeline: str,
    application: str,
    model: ModelFacts,
    program_version: str,
    refusal: str = "",
    accepted: str = "",
    prompt: Mapping[str, str] | None = None,
    gate: Mapping[str, Any] | None = None,
) -> str:
    """Return the key of a job as 64 hexadecimal digits; the UIDs of its results derive from it.

    Parameters
    ----------
    inputs
        Every instance, with its channel; the order does not count, nor does a repeated one.
    refusal
        The code of a job that is refused as it is made: the same inputs may make another job under another rule.
    accepted
        The digest of what a person accepted, where a person had it drawn.
    prompt
        Of a prompted pipeline, how it is prompted (`app.settings_prompt.PromptSettings`).
    gate
        What the pipeline's gate does otherwise than by default (`app.settings_gate.GateSettings`).
    """
    facts: dict[str, Any] = {
        "inputs": sorted({one if one.channel else one[:2] for one in inputs}),
        "pipeline": pipeline,
        "application": application,
        "model": [model.name, model.version, model.weights_digest],
        "program": program_version,
    }
    if refusal:
        facts["refused"] = refusal
    if accepted:
        facts["accepted"] = accepted
    other = model.generalist
    if other is not None:
        facts["generalist"] = [other.name, other.version, other.weights_digest, other.window, other.box_margin_pixels]
        if other.asked:
            facts["generalist_asked"] = other.asked
    if prompt is not None:
        facts["prompt"] = dict(prompt)
    if gate:
        facts["gate"] = dict(gate)
    if model.intended_use:
        facts["intended_use"] = dict(model.intended_use)
    # JSON keeps neighbouring facts apart: no two different sets of facts give the same text
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def job_id(key: str) -> uuid.UUID:
    """Return the job's id for its key."""
    return derive_uuid("job", key)


def is_made_for(job: Job, model: ModelFacts) -> bool:
    """Whether a job was made for the models that its pipeline has now."""
    other = model.generalist
    second = ("", "", "") if other is None else (other.name, other.version, other.weights_digest)
    return (job.model_name, job.model_version, job.weights_digest) == (
        model.name,
        model.version,
        model.weights_digest,
    ) and (job.generalist_name, job.generalist_version, job.generalist_digest) == second
