"""The server: its parts joined, started in order and stopped in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from importlib.metadata import version
from typing import Any

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
from app.bootstrap.parts import RunningServer, announced, database, make_destinations, triton
from app.delivery.archive import DimseArchive
from app.jobs.graph_process import PRELOAD, PROMPTED_PRELOAD, GraphProcess
from app.jobs.probing import DestinationProbing
from app.jobs.records import Records
from app.jobs.verification import verify_results
from app.jobs.worker import Worker
from app.jobs.workflow import Workflow
from app.listener.adoption import adopt_unrecorded
from app.listener.association import Listener
from app.listener.spool import Spool
from app.routing.completion import CompletionScanner
from app.routing.rules import RuleSet
from app.settings import Settings
from app.telemetry import configure_logging, get_logger
from app.web import PRELOAD as WEB_PRELOAD
from operators.model_package import ModelPackage
from operators.sam.package import GeneralistPackage
from operators.shared_memory import process_mark

_log = get_logger(__name__)


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
        database_url = stack.enter_context(database(settings))
        triton_target = stack.enter_context(triton(settings))
        check_all_served(served, triton_target)
        check_generalists_served(generalists, triton_target)
        records = stack.enter_context(Records(database_url))
        spool = Spool(settings.spool_folder, settings.listener.low_water_bytes)
        spool.prepare()
        adopt_unrecorded(spool, records)
        records.restart_quiet_times()
        destinations = {one.name: one for one in make_destinations(settings)}
        workflow = Workflow(
            settings=settings,
            records=records,
            audit=audit,
            spool_path_of=spool.path_of,
            runner=runner,
            verify=verify_results,
            destinations=destinations,
            triton_target=lambda: triton_target,
            models={one.name: facts_of(served[one.name], one, generalists.get(one.name)) for one in settings.pipeline},
            program_version=version("limner"),
            archives={one.name: DimseArchive(one, settings.listener.ae_title) for one in settings.archive},
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
        services = (worker.run, scanner.run, probing.run)
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
        with announced(settings, RunningServer(process_mark(), database_url, triton_target, listener.port)):
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


def _facts(settings: Settings) -> dict[str, str | int]:
    digest = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()
    return {"version": version("limner"), "settings_digest": digest, "process_id": os.getpid()}
