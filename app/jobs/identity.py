"""A job's identity: the same instances, pipeline, model and program are the same job, on any machine."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from app.identifiers import derive_uuid


@dataclass(frozen=True)
class ModelFacts:
    """What a job records of the model of its pipeline."""

    name: str
    version: str
    weights_digest: str
    """SHA-256 of the weights, as 64 hexadecimal digits."""
    folder: Path


def job_key(
    inputs: Iterable[tuple[str, str]], *, pipeline: str, application: str, model: ModelFacts, program_version: str
) -> str:
    """Return the key of a job as 64 hexadecimal digits; the UIDs of its results derive from it.

    Parameters
    ----------
    inputs
        SOP Instance UID and digest of every instance; the order does not count, nor does a repeated pair.
    """
    facts = {
        "inputs": sorted(set(inputs)),
        "pipeline": pipeline,
        "application": application,
        "model": [model.name, model.version, model.weights_digest],
        "program": program_version,
    }
    # JSON keeps neighbouring facts apart: no two different sets of facts give the same text
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def job_id(key: str) -> uuid.UUID:
    """Return the job's id for its key."""
    return derive_uuid("job", key)
