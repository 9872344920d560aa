"""What is read from the settings before anything starts: the models of the pipelines and of the API."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from app.errors import SettingsError
from app.graph import PROMPTED_CHANNELS
from app.jobs.identity import GeneralistFacts, ModelFacts
from app.routing.channels import check_channels
from app.settings import Settings
from app.settings_pipeline import GeneralistSettings, PipelineSettings
from app.telemetry import get_logger
from operators.errors import InferenceFailed, ModelPackageError, PromptRefused
from operators.model_package import SEGMENTS_FILE, ModelPackage
from operators.nnunet.network import check_served
from operators.nnunet.plans import check_supported
from operators.sam import network as sam_network
from operators.sam.guided import check_prompts
from operators.sam.package import GeneralistPackage
from operators.sam.windowing import asked_window
from operators.segments import load_segments

_CHECK_SECONDS = 10.0

_log = get_logger(__name__)


def load_packages(settings: Settings) -> dict[str, ModelPackage]:
    """Read the model of each pipeline that is not prompted.

    Raises
    ------
    SettingsError
        If a pipeline's model can't be used, or has other input channels than a rule binds.
    """
    packages = {}
    for pipeline in settings.pipeline:
        if pipeline.prompt is not None:
            continue
        try:
            package = packages[pipeline.name] = ModelPackage.load(settings.model_repository / pipeline.model)
            check_supported(package)
        except ModelPackageError as error:
            raise SettingsError(f"pipeline '{pipeline.name}': {error}", code=error.code) from error
        for rule in settings.rule:
            if rule.pipeline == pipeline.name:
                check_channels(rule, package.name, package.channel_names)
    return packages


def load_prompted(settings: Settings) -> dict[str, GeneralistPackage]:
    """Read the generalist of each pipeline that is prompted.

    Raises
    ------
    SettingsError
        If one can't be used.
    """
    packages = {}
    for pipeline in settings.pipeline:
        if pipeline.prompt is not None:
            try:
                packages[pipeline.name] = GeneralistPackage.load(settings.model_repository / pipeline.model)
            except ModelPackageError as error:
                raise SettingsError(f"pipeline '{pipeline.name}': {error}", code=error.code) from error
    return packages


def load_web(settings: Settings) -> dict[str, GeneralistPackage]:
    """Read what the API offers; nothing if it is not enabled.

    Raises
    ------
    SettingsError
        If it has no token, or a generalist can't be used.
    """
    if not settings.web.enabled:
        return {}
    settings.web.read_token()
    from app.web.service import load_generalists as load_offered

    return load_offered(settings)


def load_generalists(settings: Settings) -> dict[str, GeneralistPackage]:
    """Read the generalist of each pipeline that has one.

    Raises
    ------
    SettingsError
        If it can't be used, or a window is none, or for no segment of the pipeline's model. What breaks later does not
        stop the specialist.
    """
    packages = {}
    for pipeline in settings.pipeline:
        if pipeline.generalist is None:
            continue
        try:
            package = GeneralistPackage.load(settings.model_repository / pipeline.generalist.model)
            check_prompts(package, pipeline.generalist.prompts)
            _check_windows(pipeline.generalist, settings.model_repository / pipeline.model / SEGMENTS_FILE)
        except (ModelPackageError, PromptRefused, SettingsError) as error:
            raise SettingsError(f"the generalist of pipeline '{pipeline.name}': {error}", code=error.code) from error
        packages[pipeline.name] = package
    return packages


def _check_windows(generalist: GeneralistSettings, segments_path: Path) -> None:
    for window in (generalist.window, *generalist.windows.values()):
        asked_window(window)
    if generalist.windows:
        labels = [segment.label for segment in load_segments(segments_path)]
        unknown = [label for label in generalist.windows if label not in labels]
        if unknown:
            raise SettingsError(
                f"windows names {', '.join(unknown)}, and the pipeline's model has {', '.join(labels)}; name these",
                code="segment-unknown",
            )


def facts_of(
    package: ModelPackage | GeneralistPackage, pipeline: PipelineSettings, generalist: GeneralistPackage | None
) -> ModelFacts:
    """Return what jobs are told of a pipeline's model."""
    second = None
    if generalist is not None and pipeline.generalist is not None:
        second = GeneralistFacts(
            name=generalist.name,
            version=generalist.version,
            weights_digest=generalist.weights_digest,
            folder=generalist.folder,
            window=pipeline.generalist.window,
            box_margin_pixels=pipeline.generalist.box_margin_pixels,
            windows=pipeline.generalist.windows,
            prompts=pipeline.generalist.prompts,
        )
    return ModelFacts(
        generalist=second,
        name=package.name,
        version=package.version,
        weights_digest=package.weights_digest,
        folder=package.folder,
        channels=package.channel_names if isinstance(package, ModelPackage) else PROMPTED_CHANNELS,
        intended_use=package.intended_use.stated,
    )


def check_all_served(packages: Mapping[str, ModelPackage | GeneralistPackage], triton_target: str) -> None:
    """Refuse to start where Triton serves another model than a pipeline's folder describes.

    A Triton that does not answer yet is no reason: studies are taken, and their jobs wait for it.
    """
    for pipeline, package in packages.items():
        try:
            if isinstance(package, ModelPackage):
                check_served(package, triton_target, deadline_seconds=_CHECK_SECONDS)
            else:
                sam_network.check_served(package, triton_target, deadline_seconds=_CHECK_SECONDS)
        except InferenceFailed as error:
            if error.code in ("model-mismatch", "model-missing"):
                raise SettingsError(f"pipeline '{pipeline}': {error}", code=error.code) from error
            _log.warning("triton.not_ready", code=error.code, pipeline=pipeline)


def check_generalists_served(generalists: Mapping[str, GeneralistPackage], triton_target: str) -> None:
    """Say where Triton does not serve a generalist: the specialists work without it, and their results are flagged."""
    for pipeline, package in generalists.items():
        try:
            sam_network.check_served(package, triton_target, deadline_seconds=_CHECK_SECONDS)
        except InferenceFailed as error:
            _log.warning("generalist.not_ready", code=error.code, pipeline=pipeline)
