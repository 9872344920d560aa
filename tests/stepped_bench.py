"""The real workflow on real records and a real spool, one task at a time, in any order, to be stopped at any state."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg

from app.audit.events import AuditEvent
from app.audit.log import AuditLog
from app.delivery.destination import Destination
from app.jobs.accounting import Account, account
from app.jobs.records import Instance
from app.jobs.result_files import ResultFiles
from app.jobs.retention import Retention
from app.jobs.segmenting import Verify
from app.jobs.workflow import Workflow
from app.listener.spool import Spool
from app.settings import Settings
from tests.job_harness import Bench, PlantedGraph, instance
from tests.job_harness import verify as planted_verify

EVER = datetime(2000, 1, 1, tzinfo=UTC)


class _Tasks:
    """Stands in for the queue's app: it keeps the tasks that the workflow registers."""

    def __init__(self) -> None:
        self.functions: dict[str, Callable[..., Any]] = {}
        self.job = SimpleNamespace(id=0)
        """The task that is being done, as the queue tells of it."""

    def task(self, *, name: str, pass_context: bool = False, **_: Any) -> Callable[..., Any]:
        def keep(function: Callable[..., Any]) -> Callable[..., Any]:
            context = SimpleNamespace(job=self.job, additional_context={}, worker_name=None)
            self.functions[name] = partial(function, context) if pass_context else function
            return function

        return keep

    def periodic(self, **_: Any) -> Callable[..., Any]:
        return lambda function: function


class SteppedBench(Bench):
    """A bench without a worker: `step` does what a worker does with the first, or some other, task of the queue."""

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        settings: Settings | None = None,
        destinations: Mapping[str, Destination] | None = None,
        verify: Verify = planted_verify,
        spool: Spool | None = None,
        files: ResultFiles | None = None,
        **options: Any,
    ) -> None:
        super().__init__(folder, url, **options)
        self.settings = settings or self.settings
        self.audit = AuditLog(self.settings.audit_folder)
        self.sent_to: Mapping[str, Destination] = destinations or self.destinations
        low_water_bytes = 0 if settings is None else settings.listener.low_water_bytes
        self.kept = spool or Spool(self.settings.spool_folder, low_water_bytes)
        self.files = files or ResultFiles(self.settings.results_folder)
        self.kept.prepare()
        self.retention = Retention(
            settings=self.settings, records=self.records, audit=self.audit, spool=self.kept, results=self.files
        )
        self.workflow = Workflow(
            settings=self.settings,
            records=self.records,
            audit=self.audit,
            spool_path_of=self.kept.file_of,
            runner=self.graph,
            verify=verify,
            destinations=self.sent_to,
            triton_target=lambda: "unix:/nowhere",
            models=self.models,
            program_version="0",
            retention=self.retention,
            result_files=self.files,
        )
        self._tasks = _Tasks()
        self.workflow.register(self._tasks)  # type: ignore[arg-type]

    def receive(self, *instances: Instance) -> None:
        """Keep and record instances, as the listener does; their bytes follow from what they are."""
        for one in instances:
            kept = self.kept.keep(one.digest.encode())
            self.records.record_instance(replace(one, digest=kept.digest, size_bytes=kept.size_bytes), is_told=True)

    def receive_study(self, study: int, *, series: int = 1, instances: int = 2, content: str = "") -> None:
        """Receive a small study."""
        for one in range(1, series + 1):
            self.receive(*(instance(n, series=one, study=study, content=content) for n in range(1, instances + 1)))

    def without_job(self, state: Any) -> None:
        """Decide every undecided series in a way that makes no job."""
        for series in self.records.undecided_series():
            self.audit.append(AuditEvent.NO_RULE_APPLIES, series_instance_uid=series.series_instance_uid)
            assert self.records.conclude_series(series, state)

    def step(self, choose: Callable[[int], int] = lambda count: 0) -> bool:
        """Do one task of the queue as a worker does, scheduled or not; False if there is none."""
        with psycopg.connect(self.records.url, autocommit=True) as connection:
            todo = connection.execute(
                "SELECT id, task_name, args FROM procrastinate_jobs WHERE status = 'todo' ORDER BY id"
            ).fetchall()
            if not todo:
                return False
            number, name, arguments = todo[choose(len(todo))]
            connection.execute("UPDATE procrastinate_jobs SET status = 'doing' WHERE id = %s", (number,))
            self._tasks.job.id = number
            asyncio.run(self._tasks.functions[name](**arguments))
            connection.execute("DELETE FROM procrastinate_jobs WHERE id = %s", (number,))
        return True

    def finish(self) -> None:
        """Do all that is in the queue."""
        while self.step():
            pass

    def change(self, statement: str, *parameters: Any, forced: bool = False) -> None:
        """Change the records by hand; `forced` is a hand that foreign keys don't hold up."""
        with psycopg.connect(self.records.url) as connection:
            if forced:
                connection.execute("SET session_replication_role = replica")
            assert connection.execute(statement, parameters).rowcount > 0, statement

    def account(self, **options: Any) -> Account:
        """Take the account of all."""
        options = {"settle_seconds": 0.0, "since": EVER, "reads_files": True, **options}
        return account(self.records, self.kept, self.files, [self.settings.audit_folder], **options)

    def spooled(self, study: int) -> list[Path]:
        """The files of a study, in the order they came."""
        uid = instance(1, study=study).study_instance_uid
        with self.records.transaction() as connection:
            rows = connection.execute(
                "SELECT digest FROM instances WHERE study_instance_uid = %s ORDER BY number", (uid,)
            ).fetchall()
        return [self.kept.path_of(row["digest"]) for row in rows]

    def rewrite_audit_log_without(self, event: AuditEvent) -> None:
        """Take lines out of the log and chain the rest anew, as who can write all files could."""
        from app.audit.chain import GENESIS, HEAD_NAME, LOG_NAME, chain

        self.audit.close()
        path = self.settings.audit_folder / LOG_NAME
        lines, link = b"", GENESIS
        for text in path.read_text().splitlines():
            record = {
                key: value for key, value in json.loads(text).items() if key not in ("hash", "sequence", "previous")
            }
            if record["event"] != event.name:
                line, link = chain(record, link)
                lines += line
        path.write_bytes(lines)
        (self.settings.audit_folder / HEAD_NAME).write_bytes(link.as_head())
        self.audit.open()


@contextmanager
def stepped_bench(
    folder: Path, url: str, *, graph: PlantedGraph | None = None, **options: Any
) -> Iterator[SteppedBench]:
    """Give an open bench; `options` are those of `SteppedBench` and `Bench`."""
    made = SteppedBench(folder, url, graph=graph, **options)
    with made.records, made.audit:
        made.audit.append(AuditEvent.APPLICATION_STARTED)
        yield made
