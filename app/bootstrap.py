"""The one place where the server's parts are made and joined, started in order and stopped in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.delivery.archive import DimseArchive
from app.delivery.dimse import DimseDestination
from app.errors import SettingsError
from app.graph import PROMPTED_CHANNELS
from app.jobs.graph_process import PRELOAD, PROMPTED_PRELOAD, GraphProcess
from app.jobs.identity import GeneralistFacts, ModelFacts
from app.jobs.probing import DestinationProbing
from app.jobs.records import Records
from app.jobs.retention import Retention, RetentionWatch
from app.jobs.verification import verify_results
from app.jobs.worker import Worker
from app.jobs.workflow import Workflow
from app.listener.adoption import adopt_unrecorded
from app.listener.association import Listener
from app.listener.spool import Spool
from app.routing.channels import check_channels
from app.routing.completion import CompletionScanner
from app.routing.rules import RuleSet
from app.serving.postgres import EmbeddedPostgres
from app.serving.triton import EmbeddedTriton
from app.settings import Settings
from app.settings_pipeline import PipelineSettings
from app.telemetry import configure_logging, get_logger
from app.web import PRELOAD as WEB_PRELOAD
from operators.errors import InferenceFailed, ModelPackageError, PromptRefused
from operators.model_package import ModelPackage
from operators.nnunet.network import check_served
from operators.nnunet.plans import check_supported
from operators.sam import network as sam_network
from operators.sam.guided import check_prompts, check_window
from operators.sam.package import GeneralistPackage
from operators.shared_memory import is_running, process_mark

_SERVER_FILE = "server.json"
_CHECK_SECONDS = 10.0

_log = get_logger(__name__)


@dataclass(frozen=True)
class RunningServer:
    """What a running server tells the command line: where its parts are. Kept in the run folder."""

    process_mark: str
    """Number and start of its process: a number alone comes back, in a container with each restart."""
    database_url: str
    triton_target: str
    listener_port: int


async def serve(settings: Settings) -> None:
    """Run the server until SIGTERM or SIGINT.

    Parts start in the order of what they need: audit log, PostgreSQL, Triton, workers, and the listener last, so that
    nothing is acknowledged that could not be worked on. They stop in reverse: what is in flight is finished first.
    """
    configure_logging(settings.logging)
    packages, generalists, rules = load_packages(settings), load_generalists(settings), RuleSet(settings.rule)
    prompted, offered = load_prompted(settings), load_web(settings)
    served: dict[str, ModelPackage | GeneralistPackage] = {**packages, **prompted}
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # also as process 1, for which the kernel's default is to ignore them
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    settings.run_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    preload = (*PRELOAD, *(PROMPTED_PRELOAD if prompted else ()), *(WEB_PRELOAD if settings.web.enabled else ()))
    runner = GraphProcess(preload)
    runner.warm()  # the fork server comes first: it must inherit neither threads nor sockets
    with contextlib.ExitStack() as stack:
        audit = stack.enter_context(AuditLog(settings.audit_folder))
        database_url = stack.enter_context(_database(settings))
        triton_target = stack.enter_context(_triton(settings))
        _check_served(served, triton_target)
        _check_generalists_served(generalists, triton_target)
        records = stack.enter_context(Records(database_url))
        spool = make_spool(settings)
        spool.prepare()
        adopt_unrecorded(spool, records)
        records.restart_quiet_times()
        destinations = {one.name: one for one in make_destinations(settings)}
        retention = Retention(settings=settings, records=records, audit=audit, spool=spool)
        workflow = Workflow(
            settings=settings,
            records=records,
            audit=audit,
            spool_path_of=spool.path_of,
            runner=runner,
            verify=verify_results,
            destinations=destinations,
            triton_target=lambda: triton_target,
            models={one.name: _facts_of(served[one.name], one, generalists.get(one.name)) for one in settings.pipeline},
            program_version=version("limner"),
            archives={one.name: DimseArchive(one, settings.listener.ae_title) for one in settings.archive},
            retention=retention,
        )
        scanner = CompletionScanner(
            settings=settings,
            records=records,
            audit=audit,
            rules=rules,
            spool_path_of=spool.path_of,
            create_job=workflow.create_job,
            create_study_job=workflow.create_study_job,
        )
        worker = Worker(records=records, tasks=workflow, destinations=[one.name for one in settings.destination])
        listener = Listener(settings.listener, spool, records.record_instance, audit)
        if settings.web.enabled:
            from app.web.service import WebService  # here, since it takes half a second and few need it

            service = WebService(
                settings=settings,
                records=records,
                audit=audit,
                spool_path_of=spool.path_of,
                packages=offered,
                triton_target=lambda: triton_target,
                program_version=version("limner"),
            )
            stack.enter_context(service)
        probing = DestinationProbing(settings=settings, records=records, destinations=destinations)
        watch = RetentionWatch(settings=settings, records=records, retention=retention)
        services = (worker.run, scanner.run, probing.run, watch.run)
        await _run(settings, stop, audit, listener, services, database_url, triton_target)


async def _run(
    settings: Settings,
    stop: asyncio.Event,
    audit: AuditLog,
    listener: Listener,
    services: Sequence[Callable[[asyncio.Event], Coroutine[Any, Any, None]]],
    database_url: str,
    triton_target: str,
) -> None:
    """Start what works and what listens, wait for the stop, and end them in reverse."""
    stop_work = asyncio.Event()
    work = [asyncio.create_task(service(stop_work)) for service in services]
    stopped = asyncio.create_task(stop.wait())
    try:
        audit.append(AuditEvent.APPLICATION_STARTED, Outcome.SUCCESS, **_facts(settings))
        listener.start()
        with _announced(settings, RunningServer(process_mark(), database_url, triton_target, listener.port)):
            _log.info("server.started", port=listener.port)
            # a worker that ends by itself has met a defect: the server must not go on taking studies
            await asyncio.wait([stopped, *work], return_when=asyncio.FIRST_COMPLETED)
            _log.info("server.stopping")
            await asyncio.to_thread(listener.stop)
    finally:
        stopped.cancel()
        stop_work.set()
        await asyncio.gather(*work)
        audit.append(AuditEvent.APPLICATION_STOPPED, Outcome.SUCCESS, **_facts(settings))
    _log.info("server.stopped")


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
        If it can't be used, or its window is none. What breaks later does not stop the specialist.
    """
    packages = {}
    for pipeline in settings.pipeline:
        if pipeline.generalist is None:
            continue
        try:
            package = GeneralistPackage.load(settings.model_repository / pipeline.generalist.model)
            check_prompts(package)
            check_window(pipeline.generalist.window)
        except (ModelPackageError, PromptRefused) as error:
            raise SettingsError(f"the generalist of pipeline '{pipeline.name}': {error}", code=error.code) from error
        packages[pipeline.name] = package
    return packages


def _facts_of(
    package: ModelPackage | GeneralistPackage, pipeline: PipelineSettings, generalist: GeneralistPackage | None
) -> ModelFacts:
    second = None
    if generalist is not None and pipeline.generalist is not None:
        second = GeneralistFacts(
            name=generalist.name,
            version=generalist.version,
            weights_digest=generalist.weights_digest,
            folder=generalist.folder,
            window=pipeline.generalist.window,
            box_margin_pixels=pipeline.generalist.box_margin_pixels,
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


def _check_served(packages: Mapping[str, ModelPackage | GeneralistPackage], triton_target: str) -> None:
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


def _check_generalists_served(generalists: Mapping[str, GeneralistPackage], triton_target: str) -> None:
    """Say where Triton does not serve a generalist: the specialists work without it, and their results are flagged."""
    for pipeline, package in generalists.items():
        try:
            sam_network.check_served(package, triton_target, deadline_seconds=_CHECK_SECONDS)
        except InferenceFailed as error:
            _log.warning("generalist.not_ready", code=error.code, pipeline=pipeline)


def make_spool(settings: Settings) -> Spool:
    """Make the spool that the settings describe; its folders are made by `Spool.prepare`."""
    return Spool(settings.spool_folder, settings.listener.low_water_bytes)


@contextlib.contextmanager
def open_records(settings: Settings) -> Iterator[Records]:
    """Give the records to a command: of the running server, or of the database started for the moment."""
    running = running_server(settings)
    with contextlib.ExitStack() as stack:
        url = running.database_url if running is not None else stack.enter_context(_database(settings))
        yield stack.enter_context(Records(url, maximum_connections=2))


def running_server(settings: Settings) -> RunningServer | None:
    """Return where the running server's parts are; None if no server runs on this data folder."""
    try:
        found = RunningServer(**json.loads((settings.run_folder / _SERVER_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if is_running(found.process_mark) else None


@contextlib.contextmanager
def _announced(settings: Settings, running: RunningServer) -> Iterator[None]:
    path = settings.run_folder / _SERVER_FILE
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(asdict(running)))
    aside.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _database(settings: Settings) -> Iterator[str]:
    if settings.database.url is not None:
        yield settings.database.url
        return
    settings.data_folder.mkdir(parents=True, exist_ok=True)
    server = EmbeddedPostgres(settings.database_folder, settings.run_folder)
    try:
        yield server.start()
    finally:
        server.stop()


@contextlib.contextmanager
def _triton(settings: Settings) -> Iterator[str]:
    if settings.triton.address is not None:
        yield settings.triton.address
        return
    with embedded_triton(settings, settings.run_folder) as server:
        yield server.target


def embedded_triton(settings: Settings, run_folder: Path) -> EmbeddedTriton:
    """Make the embedded Triton that the settings describe; its context starts and stops it."""
    return EmbeddedTriton(
        settings.triton.python,
        settings.model_repository,
        run_folder,
        start_seconds=settings.triton.start_seconds,
        probe_seconds=settings.triton.probe_seconds,
        model_configuration=settings.triton.model_configuration,
    )


def make_destinations(settings: Settings) -> Iterator[DimseDestination]:
    """Make the destinations that the settings describe."""
    for one in settings.destination:
        yield DimseDestination(one, one.calling_ae_title or settings.listener.ae_title)


def _facts(settings: Settings) -> dict[str, str | int]:
    digest = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()
    return {"version": version("limner"), "settings_digest": digest, "process_id": os.getpid()}
