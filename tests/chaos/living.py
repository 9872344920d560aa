"""Listener, records, spool, rules, workflow and retention, real and in one process, around a graph that is planted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.audit.events import AuditEvent
from app.delivery.destination import Destination
from app.jobs.retention import RetentionWatch
from app.jobs.segmenting import Verify
from app.jobs.worker import Worker
from app.listener.association import Listener
from app.routing.completion import CompletionScanner
from app.routing.rules import RuleSet
from app.settings import Settings
from tests.job_harness import PlantedGraph, verify
from tests.stepped_bench import SteppedBench


@dataclass
class Living:
    """A server that listens; `working` has it work too."""

    bench: SteppedBench
    port: int
    scanner: CompletionScanner

    @contextmanager
    def working(self) -> Iterator[None]:
        """Run workers, scanner and the watch on the free space, as the server does."""
        loop = asyncio.new_event_loop()
        stop = asyncio.Event()
        thread = threading.Thread(target=lambda: loop.run_until_complete(self._work(stop)))
        thread.start()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()

    async def _work(self, stop: asyncio.Event) -> None:
        bench = self.bench
        worker = Worker(records=bench.records, tasks=bench.workflow, destinations=list(bench.sent_to))
        watch = RetentionWatch(settings=bench.settings, records=bench.records, retention=bench.retention)
        await asyncio.gather(worker.run(stop), self.scanner.run(stop), watch.run(stop))


@contextmanager
def living(
    folder: Path,
    url: str,
    settings: Settings,
    *,
    destinations: Mapping[str, Destination],
    graph: PlantedGraph,
    verify: Verify = verify,
) -> Iterator[Living]:
    """Give a server that listens on a port of its own."""
    bench = SteppedBench(folder, url, settings=settings, destinations=destinations, graph=graph, verify=verify)
    with bench.records, bench.audit:
        bench.audit.append(AuditEvent.APPLICATION_STARTED)
        scanner = CompletionScanner(
            settings=settings,
            records=bench.records,
            audit=bench.audit,
            rules=RuleSet(settings.rule),
            spool_path_of=bench.kept.path_of,
            create_job=bench.workflow.create_job,
            create_study_job=bench.workflow.create_study_job,
        )
        listener = Listener(settings.listener, bench.kept, bench.records.record_instance, bench.audit)
        listener.start()
        try:
            yield Living(bench, listener.port, scanner)
        finally:
            listener.stop()
