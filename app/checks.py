"""What `limner check` looks at: each check says what it found, and when it fails, what to do."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app import bootstrap
from app.bootstrap.loading import load_generalists, load_web
from app.delivery.archive import DimseArchive
from app.errors import LimnerError, SettingsError
from app.health import CheckResult
from app.routing.channels import check_channels
from app.routing.rules import RuleSet
from app.settings import ArchiveSettings, DestinationSettings, Settings
from app.settings_pipeline import PipelineSettings
from operators.errors import OperatorError
from operators.model_package import ModelPackage
from operators.nnunet.network import check_served
from operators.nnunet.plans import check_supported
from operators.sam import network as sam_network
from operators.sam.package import GeneralistPackage
from operators.triton import probe

_PROBE_SECONDS = 10.0


def check_all(settings: Settings) -> list[CheckResult]:
    """Run every check, the quick ones first. A failing check never stops the others."""
    return [
        _check_folders(settings),
        *_check_models(settings),
        *_check_generalists(settings),
        _check_rules(settings),
        *_check_web(settings),
        *_check_shared_storage(settings),
        _check_triton(settings),
        *(_check_destination(one, settings) for one in settings.destination),
        *(_check_archive(one, settings) for one in settings.archive),
    ]


def _check_folders(settings: Settings) -> CheckResult:
    folder = settings.data_folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / ".limner-check"
        trial.write_bytes(b"")
        trial.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        advice = "make the folder writable for the server's user, or set data_folder"
        return CheckResult("data folder", False, f"{folder}: {error.strerror}", advice)
    detail = f"{folder} is writable, {free / 1e9:.1f} GB free"
    if free < settings.listener.low_water_bytes:
        return CheckResult(
            "data folder", False, detail, "free space is below listener.low_water_bytes: instances would be refused"
        )
    return CheckResult("data folder", True, detail)


def _check_models(settings: Settings) -> Iterator[CheckResult]:
    for pipeline in settings.pipeline:
        name = f"pipeline {pipeline.name}"
        folder = settings.model_repository / pipeline.model
        try:
            package = _load(pipeline, folder)
            if isinstance(package, ModelPackage):
                check_supported(package)
                for rule in settings.rule:
                    if rule.pipeline == pipeline.name:
                        check_channels(rule, package.name, package.channel_names)
        except OperatorError as error:
            yield CheckResult(name, False, str(error), f"complete the model's folder {folder}")
        except SettingsError as error:
            yield CheckResult(name, False, str(error), "correct the rule; docs/reference/rules.md says how it binds")
        else:
            yield CheckResult(name, True, f"{package.name} {package.version}, weights {package.weights_digest[:12]}…")


def _check_generalists(settings: Settings) -> Iterator[CheckResult]:
    for pipeline in settings.pipeline:
        if pipeline.generalist is None:
            continue
        name = f"generalist of pipeline {pipeline.name}"
        alone = settings.model_copy(update={"pipeline": (pipeline,), "rule": ()})
        try:
            package = load_generalists(alone)[pipeline.name]
        except SettingsError as error:
            folder = settings.model_repository / pipeline.generalist.model
            yield CheckResult(name, False, str(error), f"correct the settings, or complete the model's folder {folder}")
        else:
            yield CheckResult(name, True, f"{package.name} {package.version}, weights {package.weights_digest[:12]}…")


def _load(pipeline: PipelineSettings, folder: Path) -> ModelPackage | GeneralistPackage:
    return ModelPackage.load(folder) if pipeline.prompt is None else GeneralistPackage.load(folder)


def _check_shared_storage(settings: Settings) -> Iterator[CheckResult]:
    name, address = "shared storage", settings.shared_storage.url
    try:
        store = bootstrap.make_store(settings.shared_storage)
        if store is None:
            return
        store.check()
    except LimnerError as error:
        advice = "correct [shared_storage], or see to the storage; docs/how-to/scale-out.md says what it needs"
        yield CheckResult(name, False, str(error), advice)
    else:
        yield CheckResult(name, True, f"{address} takes an object, gives it back and removes it")


def _check_rules(settings: Settings) -> CheckResult:
    try:
        RuleSet(settings.rule)
    except LimnerError as error:
        return CheckResult("rules", False, str(error), "correct the rule; docs/reference/rules.md says how they match")
    if not settings.rule:
        return CheckResult("rules", False, "there is no [[rule]]", "add one: without rules nothing is ever run")
    return CheckResult(
        "rules", True, f"{len(settings.rule)} in order: {', '.join(rule.name for rule in settings.rule)}"
    )


def _check_web(settings: Settings) -> Iterator[CheckResult]:
    if not settings.web.enabled:
        return
    try:
        generalists = load_web(settings)
    except SettingsError as error:
        yield CheckResult("web", False, str(error), "correct [web]; docs/how-to/interactive.md says how")
        return
    address = f"{settings.web.host}:{settings.web.port}"
    offered = ", ".join(f"{one.name} {one.version}" for one in generalists.values())
    yield CheckResult("web", True, f"the API has its token and offers {offered} at {address}")


def _check_triton(settings: Settings) -> CheckResult:
    running = bootstrap.running_server(settings)
    embedded_one = running is not None and running.triton_target and not settings.triton.addresses
    addresses = (running.triton_target,) if running is not None and embedded_one else settings.triton.addresses
    try:
        for address in addresses:
            probe(address, deadline_seconds=_PROBE_SECONDS)
            served = ", ".join(_check_served(settings, address))
        if addresses:
            said = f"answers an inference at {', '.join(addresses)} and serves {served or 'no pipeline'}"
            return CheckResult("triton", True, said)
        with (
            tempfile.TemporaryDirectory(prefix="limner-check-") as scratch,
            bootstrap.embedded_triton(settings, Path(scratch)) as embedded,
        ):
            served = ", ".join(_check_served(settings, embedded.target))
    except (OperatorError, LimnerError) as error:
        advice = "`make environment` sets up the embedded Triton; or name another in triton.address"
        return CheckResult("triton", False, str(error), advice)
    return CheckResult("triton", True, f"the embedded server starts, answers an inference and serves {served}")


def _check_served(settings: Settings, address: str) -> Iterator[str]:
    generalists = [one.model for one in settings.pipeline if one.prompt is not None]
    generalists += [one.generalist.model for one in settings.pipeline if one.generalist is not None]
    generalists += settings.web.models if settings.web.enabled else ()
    for name in dict.fromkeys([*(pipeline.model for pipeline in settings.pipeline), *generalists]):
        folder = settings.model_repository / name
        if not folder.is_dir():
            continue  # the pipeline's own check says so
        if name in generalists:
            sam_network.check_served(GeneralistPackage.load(folder), address, deadline_seconds=_PROBE_SECONDS)
        else:
            check_served(ModelPackage.load(folder), address, deadline_seconds=_PROBE_SECONDS)
        yield name


def _check_destination(destination: DestinationSettings, settings: Settings) -> CheckResult:
    name = f"destination {destination.name}"
    calling = destination.calling_ae_title or settings.listener.ae_title
    try:
        bootstrap.make_destination(destination, settings).check()
    except LimnerError as error:
        advice = f"check address, port and AE titles, and that {destination.ae_title} knows {calling}"
        if destination.url is not None:
            advice = "check url, credentials and certificates, and that this user may store and query"
        return CheckResult(name, False, str(error), advice)
    if destination.url is not None:
        return CheckResult(name, True, f"{destination.url} answers queries; storing is not tried")
    return CheckResult(name, True, f"{destination.ae_title} answers C-ECHO at {destination.host}:{destination.port}")


def _check_archive(archive: ArchiveSettings, settings: Settings) -> CheckResult:
    name, own = f"archive {archive.name}", settings.listener.ae_title
    try:
        DimseArchive(archive, own).check()
    except LimnerError as error:
        return CheckResult(name, False, str(error), f"check address, port and AE titles, and that it knows {own}")
    return CheckResult(name, True, f"{archive.ae_title} answers C-ECHO at {archive.host}:{archive.port}")
