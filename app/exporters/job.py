"""What one import is to make: put together by the command line, carried out in the exporter environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.exporters.nnunet import OPSET
from app.exporters.trained import Training, find_training
from operators.model_manifest import Combination


@dataclass(frozen=True)
class Part:
    """One network, and so one Triton model."""

    model: str
    """The Triton model's name."""
    training: Training
    mirroring: bool = True
    """Whether tiles are also seen mirrored where the training allows it."""
    tile_step_size: float = 0.5
    orientation: str | None = None
    previous_stage: str | None = None
    """The Triton model whose labels it sees."""
    label_values: Mapping[int, int] | None = None
    """In a merge, the package's label for each of its own."""


@dataclass(frozen=True)
class Job:
    """One model package."""

    name: str
    version: str
    algorithm_name: str
    parts: tuple[Part, ...]
    """In the order in which a merge paints; one of them is called as the package is."""
    combination: Combination
    segments: Path
    """dcmqi metainfo JSON."""
    postprocessing: tuple[tuple[int, ...], ...] = ()
    max_batch_size: int = 4
    threads: int = 0
    """Of one instance on the CPU; 0 for as many as there are cores."""
    opset: int = field(default=OPSET)


def job_as_json(job: Job) -> dict[str, Any]:
    """Return `job` as what JSON can hold."""
    return {
        "name": job.name,
        "version": job.version,
        "algorithm_name": job.algorithm_name,
        "combination": job.combination,
        "segments": str(job.segments),
        "postprocessing": [list(step) for step in job.postprocessing],
        "max_batch_size": job.max_batch_size,
        "threads": job.threads,
        "opset": job.opset,
        "parts": [
            {
                "model": part.model,
                "folder": str(part.training.folder),
                "configuration": part.training.configuration,
                "folds": list(part.training.folds),
                "checkpoint": part.training.checkpoint,
                "mirroring": part.mirroring,
                "tile_step_size": part.tile_step_size,
                "orientation": part.orientation,
                "previous_stage": part.previous_stage,
                "label_values": None if part.label_values is None else [list(one) for one in part.label_values.items()],
            }
            for part in job.parts
        ],
    }


def job_from_json(content: Mapping[str, Any]) -> Job:
    """Return the job that `job_as_json` described; the trainings are looked at again."""
    return Job(
        name=content["name"],
        version=content["version"],
        algorithm_name=content["algorithm_name"],
        parts=tuple(_part(part) for part in content["parts"]),
        combination=content["combination"],
        segments=Path(content["segments"]),
        postprocessing=tuple(tuple(step) for step in content["postprocessing"]),
        max_batch_size=content["max_batch_size"],
        threads=content["threads"],
        opset=content["opset"],
    )


def _part(content: Mapping[str, Any]) -> Part:
    values = content["label_values"]
    return Part(
        model=content["model"],
        training=find_training(
            Path(content["folder"]),
            configuration=content["configuration"],
            folds=content["folds"],
            checkpoint=content["checkpoint"],
        ),
        mirroring=content["mirroring"],
        tile_step_size=content["tile_step_size"],
        orientation=content["orientation"],
        previous_stage=content["previous_stage"],
        label_values=None if values is None else {int(own): int(common) for own, common in values},
    )
