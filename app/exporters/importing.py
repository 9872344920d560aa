"""The whole of `limner models import nnunet`: look, export, judge, serve, judge again, publish."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.exporters.checking import load_package
from app.exporters.environment import check_exporter, run_task
from app.exporters.job import Job, job_as_json
from app.exporters.parity import DERIVED, EXACT, Limits
from app.exporters.planning import Wishes, check_accelerators, plan_job
from app.exporters.publishing import check_free, publish, staging
from app.exporters.served import add_figures, copy_model, judge_served, served_model, serving, shapes_of
from app.exporters.served_parting import search_of
from app.exporters.triton_config import OPENVINO
from app.settings import Settings
from operators.model_manifest import MANIFEST_FILE
from operators.model_package import ModelPackage

Progress = Callable[[str], None]


def import_nnunet(
    settings: Settings, wishes: Wishes, *, replace: bool, accelerators: Sequence[str], progress: Progress
) -> ModelPackage:
    """Import trained networks as one model package and return it.

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
    job = plan_job(wishes)
    repository = settings.model_repository
    models = [part.model for part in job.parts]
    check_free(repository, job.name, models, replace=replace)
    check_exporter(settings.models.exporter_python)
    with staging(repository) as stage, tempfile.TemporaryDirectory(prefix="limner-gate-") as scratch:
        staged, gate = stage / "repository", Path(scratch) / "gate"
        staged.mkdir()
        request = {
            "task": "export",
            "job": job_as_json(job),
            "repository": str(staged),
            "gate_folder": str(gate),
        }
        run_task(settings.models.exporter_python, request, progress)
        _judge_all(settings, job, staged, gate, Path(scratch), accelerators, progress)
        load_package(staged / job.name)
        publish(staged, repository, job.name, models, replace=replace)
    return load_package(repository / job.name)


def _judge_all(
    settings: Settings,
    job: Job,
    staged: Path,
    gate: Path,
    scratch: Path,
    accelerators: Sequence[str],
    progress: Progress,
) -> None:
    """Judge the served networks, by the default configuration and by each accelerator's."""
    manifest = staged / job.name / MANIFEST_FILE
    progress("the embedded Triton serves it and is compared with torch")
    figures = judge_configuration(settings, job, staged, gate, scratch, None, EXACT)
    add_figures(manifest, "served", figures)
    for accelerator in accelerators:
        progress(f"the embedded Triton serves it with {accelerator} and is compared with torch")
        figures = judge_configuration(settings, job, staged, gate, scratch, accelerator, DERIVED)
        add_figures(manifest, f"served_{accelerator}", figures)
    if OPENVINO not in accelerators:
        for part in job.parts:
            (staged / part.model / "configs" / f"{OPENVINO}.pbtxt").unlink()


def judge_configuration(
    settings: Settings,
    job: Job,
    staged: Path,
    gate: Path,
    scratch: Path,
    configuration: str | None,
    limits: Limits,
) -> Mapping[str, list[dict[str, Any]]]:
    """Serve the staged networks by one of their configurations and judge each; return the figures by model."""
    repository = scratch / f"repository-{configuration or 'default'}"
    repository.mkdir()
    for part in job.parts:
        copy_model(staged / part.model, repository, configuration)
    how = "as it will be" if configuration is None else f"with {configuration}"
    figures = {}
    with serving(settings, repository, scratch / "run") as triton:
        for part in job.parts:
            folder = gate / part.model
            with served_model(settings, triton.target, part.model, shapes_of(folder)) as infer:
                figures[part.model] = judge_served(
                    part.model,
                    infer,
                    folder,
                    part.training.dataset,
                    limits,
                    how,
                    search_of(settings, staged / part.model, configuration),
                )
    return figures
