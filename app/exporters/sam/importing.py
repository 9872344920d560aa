"""The whole of `limner models import sam`: look, export, judge, serve, judge again, publish."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from app.errors import ImportRefused
from app.exporters.gated_import import Figures, GatedImport, Progress, Workplace, run_import
from app.exporters.parity import Limits
from app.exporters.sam.job import GeneralistJob, job_as_json
from app.exporters.sam.kept import kept_cases
from app.exporters.sam.parity import NEAR, judge
from app.exporters.sam.served import asker
from app.exporters.served import copy_model, serving
from app.settings import Settings
from operators.errors import ModelPackageError
from operators.sam.package import GeneralistPackage

_REMEMBERED = Limits(logit_error=2e-2, agreement=0, dice=None)
"""For what remembers, run by other means: it gives no mask by which it could be judged."""


def import_generalist(
    settings: Settings, job: GeneralistJob, *, replace: bool, accelerators: Sequence[str], progress: Progress
) -> GeneralistPackage:
    """Import a checkpoint as one package of several Triton models and return it; else as `run_import`."""
    wanted = GatedImport(
        name=job.name,
        models=job.models,
        task="export-generalist",
        job=job_as_json(job),
        limits=NEAR,
        judge=partial(judge_configuration, settings, job),
        check=load_generalist,
    )
    return load_generalist(run_import(settings, wanted, replace=replace, accelerators=accelerators, progress=progress))


def load_generalist(folder: Path) -> GeneralistPackage:
    """Read a package.

    Raises
    ------
    ImportRefused
        By the code of what is wrong with it.
    """
    try:
        return GeneralistPackage.load(folder)
    except ModelPackageError as error:
        raise ImportRefused(str(error), code=error.code) from error


def judge_configuration(
    settings: Settings, job: GeneralistJob, place: Workplace, configuration: str | None, limits: Limits
) -> Figures:
    """Serve the staged networks by one of their configurations and judge all; return the figures by model.

    Where only the masks are judged, and not how near values are, the decoder sees what the served encoder answers.
    """
    repository = place.scratch / f"repository-{configuration or 'default'}"
    repository.mkdir()
    for model in job.models:
        copy_model(place.staged / model, repository, configuration)
    how = "as it will be" if configuration is None else f"with {configuration}"
    with serving(settings, repository, place.scratch / "run") as triton:
        encoder, decoder, *others = (asker(settings, triton.target, model) for model in job.models)
        pictures = list(kept_cases(place.gate / job.encoder))
        figures = {
            job.encoder: judge(f"the encoder {job.encoder}, served {how},", pictures, encoder, limits, has_masks=False)
        }
        questions = kept_cases(place.gate / job.decoder)
        if limits.logit_error is None:
            served = {one.image: encoder(one.inputs) for one in pictures}
            questions = (one.seeing(served[one.image]) for one in questions)
        figures[job.decoder] = judge(
            f"the decoder {job.decoder}, served {how},", questions, decoder, limits, has_masks=True
        )
        for model, asked in zip(job.models[2:], others, strict=True):
            nearness = limits if limits.logit_error is not None else _REMEMBERED
            kept = kept_cases(place.gate / model)
            figures[model] = judge(f"{model}, served {how},", kept, asked, nearness, has_masks=False)
    return figures
