"""The server: its parts joined, started in order and stopped in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

from app.audit.chain import Detail
from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.bootstrap.loading import (
    check_all_served,
    check_generalists_served,
    facts_of,
    load_generalists,
    load_packages,
    load_prompted,
    load_web,
)
from app.bootstrap.parts import (
    RunningServer,
    announced,
    database,
    make_destinations,
    make_queries,
    make_result_files,
    make_spool,
    make_transfers,
    reporting_titles,
    triton,
)
from app.bootstrap.roles import Role, Share
from app.bootstrap.running import RunningServices
from app.delivery.archive import DimseArchive
from app.delivery.destination import Destination
from app.jobs.commitment_reports import ReportKeeping
from app.jobs.graph_process import PRELOAD, PROMPTED_PRELOAD, GraphProcess
from app.jobs.local_copies import LocalCopies
from app.jobs.presence import COMPLETION, LISTENERS, Presence, Service, Turn
from app.jobs.probing import DestinationProbing
from app.jobs.queue import TaskQueue
from app.jobs.records import Records
from app.jobs.result_files import ResultFiles, SharedResultFiles
from app.jobs.retention import Retention, RetentionWatch
from app.jobs.slots import lanes
from app.jobs.verification import verify_results
from app.jobs.worker import Worker
from app.jobs.workflow import Workflow
from app.listener.adoption import adopt_unrecorded
from app.listener.association import Listener
from app.listener.commitment import CommitmentReports
from app.listener.shared_spool import SharedSpool
from app.listener.spool import Spool
from app.routing.asking import ArchiveQuestions
from app.routing.completion import CompletionScanner
from app.routing.rules import RuleSet
from app.settings import Settings
from app.telemetry import configure_logging, get_logger
from app.web import PRELOAD as WEB_PRELOAD
from operators.model_package import ModelPackage
from operators.sam.package import GeneralistPackage
from operators.shared_memory import process_mark

_log = get_logger(__name__)


@dataclass(frozen=True)
class _Loaded:
    """What was read before anything starts."""

    packages: Mapping[str, ModelPackage | GeneralistPackage]
    """By pipeline."""
    second: Mapping[str, GeneralistPackage]
    """By pipeline: the generalists that read beside its model."""
    offered: Mapping[str, GeneralistPackage]
    """What the API offers, by name."""

    @classmethod
    def of(cls, settings: Settings, share: Share) -> _Loaded:
        """Read what the process' share of the work needs: a job's identity has its models in it."""
        offered = load_web(settings) if share.has(Role.WEB) else {}
        if not (share.has(Role.LISTENER) or share.has(Role.WORKER)):
            return cls({}, {}, offered)
        return cls({**load_packages(settings), **load_prompted(settings)}, load_generalists(settings), offered)

    def preload(self, settings: Settings, share: Share) -> list[str]:
        """Return what the fork server imports."""
        graphs = [*PRELOAD, *(PROMPTED_PRELOAD if any(one.prompt for one in settings.pipeline) else ())]
        return [*(graphs if share.has(Role.WORKER) else ()), *(WEB_PRELOAD if self.offered else ())]


@dataclass(frozen=True)
class _Ground:
    """What all parts of a process stand on."""

    settings: Settings
    share: Share
    loaded: _Loaded
    audit: AuditLog
    records: Records
    spool: Spool
    result_files: ResultFiles
    triton_target: Callable[[], str]


async def serve(settings: Settings, roles: Collection[Role] = (), name: str | None = None) -> None:
    """Run the server, or the roles of it that are asked for, until SIGTERM or SIGINT.

    Parts start in the order of what they need: audit log, PostgreSQL, Triton, workers, and the listener last, so that
    nothing is acknowledged that could not be worked on. They stop in reverse: what is in flight is finished first.

    Parameters
    ----------
    roles
        None means all.
    name
        The process' own among several; made of host and roles where it has roles and none is given.
    """
    configure_logging(settings.logging)
    share = Share.of(roles, name, settings)
    loaded, rules = _Loaded.of(settings, share), RuleSet(settings.rule)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # also as process 1, for which the kernel's default is to ignore them
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    share.run_folder(settings).mkdir(parents=True, exist_ok=True, mode=0o700)
    runner = GraphProcess(loaded.preload(settings, share))
    if share.has(Role.WORKER) or loaded.offered:
        runner.warm()  # the fork server comes first: it must inherit neither threads nor sockets
    with contextlib.ExitStack() as stack:
        audit = stack.enter_context(AuditLog(share.audit_folder(settings)))
        database_url = stack.enter_context(database(settings))
        needs_triton = share.has(Role.WORKER) or share.has(Role.WEB)
        target = stack.enter_context(triton(settings, share.run_folder(settings))) if needs_triton else str  # none
        addresses = settings.triton.addresses or (target(),)
        for address in addresses if share.has(Role.WORKER) else ():
            check_all_served(loaded.packages, address)
            check_generalists_served(loaded.second, address)
        records = stack.enter_context(Records(database_url))
        spool, result_files = make_spool(settings), make_result_files(settings)
        ground = _Ground(settings, share, loaded, audit, records, spool, result_files, target)
        services, listener = await _make_services(ground, rules, runner)
        if loaded.offered:
            stack.enter_context(_make_web(ground))
        await _run(ground, stop, services, listener, RunningServer(process_mark(), database_url, addresses[0], 0))


async def _make_services(
    ground: _Ground, rules: RuleSet, runner: GraphProcess
) -> tuple[list[Service], Listener | None]:
    """Make what runs all the time, and the listener where the process is one."""
    settings, share, records = ground.settings, ground.share, ground.records
    destinations = {one.name: one for one in make_destinations(settings)}
    if not (share.has(Role.LISTENER) or share.has(Role.WORKER)):
        return list(await _make_copying(ground, None)), None
    retention = Retention(
        settings=settings, records=records, audit=ground.audit, spool=ground.spool, results=ground.result_files
    )
    workflow = _make_workflow(ground, runner, destinations, retention)
    services: list[Service] = list(await _make_copying(ground, retention))
    if share.has(Role.WORKER):
        services += [
            Worker(
                records=records,
                tasks=workflow,
                destinations=list(destinations),
                lanes=lanes(settings),
                limits=settings.worker,
                shares_database=settings.database.url is not None,
            ).run,
            DestinationProbing(settings=settings, records=records, destinations=destinations).run,
            RetentionWatch(settings=settings, records=records, retention=retention).run,
        ]
    if not share.has(Role.LISTENER):
        return services, None
    scanner = CompletionScanner(
        settings=settings,
        records=records,
        audit=ground.audit,
        rules=rules,
        spool_path_of=ground.spool.file_of,
        create_job=workflow.create_job,
        create_study_job=workflow.create_study_job,
        questions=ArchiveQuestions(make_queries(settings), records, ground.audit),
    )
    presence = Presence(records.url, LISTENERS)
    await _take_stock(ground, presence)
    services += [presence.run, Turn(records.url, COMPLETION, scanner.run).run]
    listener = Listener(
        settings.listener,
        ground.spool,
        records.record_instance,
        ground.audit,
        records.backlog,
        make_transfers(settings, records),
        reports=CommitmentReports(reporting_titles(settings), ReportKeeping(records, TaskQueue()).keep, ground.audit),
    )
    return [*services, listener.run], listener


def _make_workflow(
    ground: _Ground, runner: GraphProcess, destinations: Mapping[str, Destination], retention: Retention
) -> Workflow:
    settings, loaded = ground.settings, ground.loaded
    models = {
        one.name: facts_of(loaded.packages[one.name], one, loaded.second.get(one.name)) for one in settings.pipeline
    }
    return Workflow(
        settings=settings,
        records=ground.records,
        audit=ground.audit,
        spool_path_of=ground.spool.file_of,
        runner=runner,
        verify=verify_results,
        destinations=destinations,
        triton_target=ground.triton_target,
        models=models,
        program_version=version("limner"),
        archives={one.name: DimseArchive(one, settings.listener.ae_title) for one in settings.archive},
        retention=retention,
        result_files=ground.result_files,
    )


def _make_web(ground: _Ground) -> contextlib.AbstractContextManager[object]:
    from app.web.service import WebService  # here, since it takes half a second and few need it

    return WebService(
        settings=ground.settings,
        records=ground.records,
        audit=ground.audit,
        spool_path_of=ground.spool.file_of,
        packages=ground.loaded.offered,
        triton_target=ground.triton_target,
        program_version=version("limner"),
        result_files=ground.result_files,
    )


async def _make_copying(ground: _Ground, retention: Retention | None) -> Sequence[Service]:
    """Make what keeps this host's copies of what hosts share through storage, where they do."""
    spool, files = ground.spool, ground.result_files
    if not (isinstance(spool, SharedSpool) and isinstance(files, SharedResultFiles)):
        return []
    await asyncio.to_thread(spool.prepare)
    copies = LocalCopies(
        settings=ground.settings, records=ground.records, spool=spool, results=files, retention=retention
    )
    return [copies.run]


async def _take_stock(ground: _Ground, presence: Presence) -> None:
    """Put in order what killed listeners left; what others are receiving just now is left alone."""
    spool, records = ground.spool, ground.records

    async def first() -> None:
        await asyncio.to_thread(adopt_unrecorded, spool, records, ground.audit)
        await asyncio.to_thread(records.end_left_open, None)
        await asyncio.to_thread(records.restart_quiet_times)

    await asyncio.to_thread(spool.prepare)
    await presence.enter(first)


async def _run(
    ground: _Ground,
    stop: asyncio.Event,
    services: Sequence[Service],
    listener: Listener | None,
    running: RunningServer,
) -> None:
    """Start what works and what listens, wait for the stop, and end them in reverse."""
    audit, work = ground.audit, RunningServices(services)
    facts = _facts(ground.settings) | {"roles": sorted(ground.share.roles)}
    failure: Exception | None = None
    try:
        audit.append(AuditEvent.APPLICATION_STARTED, Outcome.SUCCESS, **facts)
        if listener is not None:
            listener.start()
            running = replace(running, listener_port=listener.port)
        with announced(ground.share.run_folder(ground.settings), running):
            _log.info("server.started", port=running.listener_port, roles=facts["roles"])
            await work.wait(stop)
            _log.info("server.stopping")
            if listener is not None:
                await asyncio.to_thread(listener.stop)
    finally:
        failure = await work.end()
        outcome = Outcome.SUCCESS if failure is None else Outcome.MAJOR_FAILURE
        audit.append(AuditEvent.APPLICATION_STOPPED, outcome, **facts)
    _log.info("server.stopped")
    if failure is not None:
        raise failure


def _facts(settings: Settings) -> dict[str, Detail]:
    digest = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()
    return {"version": version("limner"), "settings_digest": digest, "process_id": os.getpid()}
