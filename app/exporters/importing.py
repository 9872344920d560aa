"""The whole of `limner models import nnunet`: look, export, judge, serve, judge again, publish."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from app.exporters.checking import load_package
from app.exporters.gated_import import Figures, GatedImport, Progress, Workplace, run_import
from app.exporters.job import Job, job_as_json
from app.exporters.parity import EXACT, Limits
from app.exporters.planning import Wishes, plan_job
from app.exporters.served import copy_model, judge_served, served_model, serving, shapes_of
from app.exporters.served_parting import search_of
from app.settings import Settings
from operators.model_package import ModelPackage


def import_nnunet(
    settings: Settings, wishes: Wishes, *, replace: bool, accelerators: Sequence[str], progress: Progress
) -> ModelPackage:
    """Import trained networks as one model package and return it; other parameters and errors as `run_import`."""
    job = plan_job(wishes)
    wanted = GatedImport(
        name=job.name,
        models=[part.model for part in job.parts],
        task="export",
        job=job_as_json(job),
        limits=EXACT,
        judge=partial(judge_configuration, settings, job),
        check=load_package,
    )
    return load_package(run_import(settings, wanted, replace=replace, accelerators=accelerators, progress=progress))


def judge_configuration(
    settings: Settings, job: Job, place: Workplace, configuration: str | None, limits: Limits
) -> Figures:
    """Serve the staged networks by one of their configurations and judge each; return the figures by model."""
    repository = place.scratch / f"repository-{configuration or 'default'}"
    repository.mkdir()
    for part in job.parts:
        copy_model(place.staged / part.model, repository, configuration)
    how = "as it will be" if configuration is None else f"with {configuration}"
    figures = {}
    with serving(settings, repository, place.scratch / "run") as triton:
        for part in job.parts:
            folder = place.gate / part.model
            with served_model(settings, triton.target, part.model, shapes_of(folder)) as infer:
                figures[part.model] = judge_served(
                    part.model,
                    infer,
                    folder,
                    part.training.dataset,
                    limits,
                    how,
                    search_of(settings, place.staged / part.model, configuration),
                )
    return figures
