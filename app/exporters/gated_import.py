"""What all imports have in common: export aside, serve, judge what is served, and publish only what passed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.exporters.environment import check_exporter, run_task
from app.exporters.parity import DERIVED, Limits
from app.exporters.planning import check_accelerators
from app.exporters.publishing import check_free, publish, staging
from app.exporters.served import add_figures
from app.exporters.triton_config import OPENVINO
from app.settings import Settings
from operators.model_manifest import MANIFEST_FILE

Progress = Callable[[str], None]
Figures = Mapping[str, list[dict[str, Any]]]
"""By Triton model, how far what is served strayed."""


@dataclass(frozen=True)
class Workplace:
    """Where an import works until it is published."""

    staged: Path
    """A model repository of its own."""
    gate: Path
    """The fixed questions and torch's answers, by model."""
    scratch: Path


@dataclass(frozen=True)
class GatedImport:
    """One package on its way into the model repository."""

    name: str
    models: Sequence[str]
    """The Triton models that it is made of."""
    task: str
    """Of `app.exporters.tasks`, which writes the package into the workplace."""
    job: Mapping[str, Any]
    limits: Limits
    """For what is served by its default configuration; by others they are `DERIVED`."""
    judge: Callable[[Workplace, str | None, Limits], Figures]
    """Serves the staged networks by one of their configurations and judges them; ImportRefused if they stray."""
    check: Callable[[Path], object]
    """Reads the package in a folder; ImportRefused if it can't be used."""


def run_import(
    settings: Settings, wanted: GatedImport, *, replace: bool, accelerators: Sequence[str], progress: Progress
) -> Path:
    """Bring a package through the parity gate into the model repository, and return its folder there.

    Parameters
    ----------
    replace
        Whether a package of the same name gives way.
    accelerators
        Configurations beside the default that must pass the gate too, such as ``openvino``; others are not published.

    Raises
    ------
    ImportRefused
        For every reason there is; nothing is published then.
    """
    check_accelerators(accelerators)
    repository = settings.model_repository
    check_free(repository, wanted.name, wanted.models, replace=replace)
    check_exporter(settings.models.exporter_python)
    with staging(repository) as stage, tempfile.TemporaryDirectory(prefix="limner-gate-") as scratch:
        place = Workplace(stage / "repository", Path(scratch) / "gate", Path(scratch))
        place.staged.mkdir()
        request = {
            "task": wanted.task,
            "job": wanted.job,
            "repository": str(place.staged),
            "gate_folder": str(place.gate),
        }
        run_task(settings.models.exporter_python, request, progress)
        _judge_all(wanted, place, accelerators, progress)
        wanted.check(place.staged / wanted.name)
        publish(place.staged, repository, wanted.name, wanted.models, replace=replace)
    return repository / wanted.name


def _judge_all(wanted: GatedImport, place: Workplace, accelerators: Sequence[str], progress: Progress) -> None:
    """Judge the served networks, by the default configuration and by each accelerator's."""
    manifest = place.staged / wanted.name / MANIFEST_FILE
    progress("the embedded Triton serves it and is compared with torch")
    add_figures(manifest, "served", wanted.judge(place, None, wanted.limits))
    for accelerator in accelerators:
        progress(f"the embedded Triton serves it with {accelerator} and is compared with torch")
        add_figures(manifest, f"served_{accelerator}", wanted.judge(place, accelerator, DERIVED))
    if OPENVINO not in accelerators:
        for model in wanted.models:
            (place.staged / model / "configs" / f"{OPENVINO}.pbtxt").unlink()
