"""The whole of `limner models import sam`: look, export, judge, serve, judge again, publish."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.errors import ImportRefused
from app.exporters.environment import check_exporter, run_task
from app.exporters.parity import DERIVED, Limits
from app.exporters.planning import check_accelerators
from app.exporters.publishing import check_free, publish, staging
from app.exporters.sam.job import GeneralistJob, job_as_json
from app.exporters.sam.kept import kept_cases
from app.exporters.sam.parity import NEAR, judge
from app.exporters.sam.served import asker
from app.exporters.served import add_figures, copy_model, serving
from app.exporters.triton_config import OPENVINO
from app.settings import Settings
from operators.errors import ModelPackageError
from operators.model_manifest import MANIFEST_FILE
from operators.sam.package import GeneralistPackage

Progress = Callable[[str], None]
_REMEMBERED = Limits(logit_error=2e-2, agreement=0, dice=None)
"""For what remembers, run by other means: it gives no mask by which it could be judged."""


def import_generalist(
    settings: Settings, job: GeneralistJob, *, replace: bool, accelerators: Sequence[str], progress: Progress
) -> GeneralistPackage:
    """Import a checkpoint as one package of several Triton models and return it.

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
    check_free(repository, job.name, job.models, replace=replace)
    check_exporter(settings.models.exporter_python)
    with staging(repository) as stage, tempfile.TemporaryDirectory(prefix="limner-gate-") as scratch:
        staged, gate = stage / "repository", Path(scratch) / "gate"
        staged.mkdir()
        request = {
            "task": "export-generalist",
            "job": job_as_json(job),
            "repository": str(staged),
            "gate_folder": str(gate),
        }
        run_task(settings.models.exporter_python, request, progress)
        _judge_all(settings, job, staged, gate, Path(scratch), accelerators, progress)
        load_generalist(staged / job.name)
        publish(staged, repository, job.name, job.models, replace=replace)
    return load_generalist(repository / job.name)


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


def _judge_all(
    settings: Settings,
    job: GeneralistJob,
    staged: Path,
    gate: Path,
    scratch: Path,
    accelerators: Sequence[str],
    progress: Progress,
) -> None:
    """Judge the served networks, by the default configuration and by each accelerator's."""
    manifest = staged / job.name / MANIFEST_FILE
    progress("the embedded Triton serves it and is compared with torch")
    add_figures(manifest, "served", judge_configuration(settings, job, staged, gate, scratch, None, NEAR))
    for accelerator in accelerators:
        progress(f"the embedded Triton serves it with {accelerator} and is compared with torch")
        figures = judge_configuration(settings, job, staged, gate, scratch, accelerator, DERIVED)
        add_figures(manifest, f"served_{accelerator}", figures)
    if OPENVINO not in accelerators:
        for model in job.models:
            (staged / model / "configs" / f"{OPENVINO}.pbtxt").unlink()


def judge_configuration(
    settings: Settings,
    job: GeneralistJob,
    staged: Path,
    gate: Path,
    scratch: Path,
    configuration: str | None,
    limits: Limits,
) -> Mapping[str, list[dict[str, Any]]]:
    """Serve the staged networks by one of their configurations and judge all; return the figures by model.

    Where only the masks are judged, and not how near values are, the decoder sees what the served encoder answers.
    """
    repository = scratch / f"repository-{configuration or 'default'}"
    repository.mkdir()
    for model in job.models:
        copy_model(staged / model, repository, configuration)
    how = "as it will be" if configuration is None else f"with {configuration}"
    with serving(settings, repository, scratch / "run") as triton:
        encoder, decoder, *others = (asker(settings, triton.target, model) for model in job.models)
        pictures = list(kept_cases(gate / job.encoder))
        figures = {
            job.encoder: judge(f"the encoder {job.encoder}, served {how},", pictures, encoder, limits, has_masks=False)
        }
        questions = kept_cases(gate / job.decoder)
        if limits.logit_error is None:
            served = {one.image: encoder(one.inputs) for one in pictures}
            questions = (one.seeing(served[one.image]) for one in questions)
        figures[job.decoder] = judge(
            f"the decoder {job.decoder}, served {how},", questions, decoder, limits, has_masks=True
        )
        for model, asked in zip(job.models[2:], others, strict=True):
            nearness = limits if limits.logit_error is not None else _REMEMBERED
            kept = kept_cases(gate / model)
            figures[model] = judge(f"{model}, served {how},", kept, asked, nearness, has_masks=False)
    return figures
