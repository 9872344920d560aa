"""The durable tasks of a job: segment, deliver (one an object and destination), close; release or discard if held.

Each is small and can be repeated: it asks the records what is left to do, writes the audit line, does it, and records
the outcome together with the next task in one transaction. Only the latest attempt may record (a fence).

What is repeated, and what not:

- an attempt that was lost (the server was killed, the database went away) is repeated, up to the pipeline's
  ``maximum_attempts``; one that a shutdown ended is repeated and does not count;
- `InferenceFailed` is repeated with back-off, up to the same maximum: Triton may be back by then;
- a crash, a hang, too much memory, a missing record or a result that does not verify fails the job at once: the same
  inputs would most likely do it again, and the next study is waiting;
- `SeriesRefused` and `PromptRefused` end the job as refused;
- a delivery is repeated with back-off as the destination's settings say, unless the destination refused for good.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import procrastinate

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.delivery.destination import Destination
from app.jobs import queue as queues
from app.jobs.auditing import audit_job
from app.jobs.binding import StudyBinding
from app.jobs.creation import JobCreation
from app.jobs.delivering import Delivering
from app.jobs.fetching import Archive, ImageFetching
from app.jobs.forms import Forms
from app.jobs.holding import Holding
from app.jobs.identity import ModelFacts
from app.jobs.notices import Notices
from app.jobs.records import Records, SeenSeries
from app.jobs.retention import Retention
from app.jobs.segmenting import GraphRunner, Segmenting, Verify
from app.settings import Settings
from app.settings_pipeline import RuleSettings
from app.telemetry import get_logger

_QUEUE_DAYS = 30  # ended tasks stay visible so long

_log = get_logger(__name__)


class Workflow:
    """The tasks, with what they need.

    Parameters
    ----------
    spool_path_of
        The file of a digest.
    verify
        Reads results back: `app.jobs.verification.verify_results`.
    triton_target
        Where Triton answers now; asked before each run.
    models
        The model of each pipeline.
    program_version
        Limner's version; part of a job's identity.
    archives
        What images are fetched from that prompts lack.
    retention
        Removes what is too old; nothing is removed without it.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        records: Records,
        audit: AuditLog,
        spool_path_of: Callable[[str], Path],
        runner: GraphRunner,
        verify: Verify,
        destinations: Mapping[str, Destination],
        triton_target: Callable[[], str],
        models: Mapping[str, ModelFacts],
        program_version: str,
        archives: Mapping[str, Archive] = MappingProxyType({}),
        retention: Retention | None = None,
    ) -> None:
        self._records = records
        self._retention = retention
        self._audit = audit
        self._threads: dict[str, ThreadPoolExecutor] = {}
        queue = queues.TaskQueue()
        forms = Forms(settings, records)
        notices = Notices(settings=settings, records=records, queue=queue, spool_path_of=spool_path_of)
        self._creation = JobCreation(
            settings=settings,
            records=records,
            audit=audit,
            queue=queue,
            models=models,
            program_version=program_version,
            spool_path_of=spool_path_of,
            fetching=ImageFetching(archives, audit),
            notices=notices,
        )
        self._segmenting = Segmenting(
            settings=settings,
            records=records,
            audit=audit,
            queue=queue,
            spool_path_of=spool_path_of,
            runner=runner,
            verify=verify,
            triton_target=triton_target,
            models=models,
            forms=forms,
            notices=notices,
        )
        self._delivering = Delivering(
            settings=settings, records=records, audit=audit, queue=queue, destinations=destinations, forms=forms
        )
        self._holding = Holding(records=records, audit=audit, queue=queue)

    def create_job(self, series: SeenSeries, rule: RuleSettings) -> bool:
        """Make the job that a rule asks for (`JobCreation.create`): the completion scanner's callback."""
        return self._creation.create(series, rule)

    def create_study_job(self, binding: StudyBinding) -> int:
        """Make the job of a study whose series feed a model's channels (`JobCreation.create_for_study`)."""
        return self._creation.create_for_study(binding)

    def register(self, app: procrastinate.App) -> None:
        """Give the tasks to the queue's workers."""

        async def segment(job_id: str) -> None:
            await self._in_thread(queues.GRAPH_QUEUE, lambda: self._segmenting.run(uuid.UUID(job_id)))

        async def deliver(job_id: str, digest: str, destination: str) -> None:
            queue = queues.delivery_queue(destination)
            await self._in_thread(queue, lambda: self._delivering.run(uuid.UUID(job_id), digest, destination))

        async def close(job_id: str) -> None:
            await self._in_thread(queues.SYSTEM_QUEUE, lambda: self.close(uuid.UUID(job_id)))

        async def release(job_id: str, person: str) -> None:
            await self._in_thread(queues.SYSTEM_QUEUE, lambda: self._holding.release(uuid.UUID(job_id), person))

        async def discard(job_id: str, person: str) -> None:
            await self._in_thread(queues.SYSTEM_QUEUE, lambda: self._holding.discard(uuid.UUID(job_id), person))

        async def tidy(timestamp: int) -> None:
            await app.job_manager.delete_old_jobs(nb_hours=24 * _QUEUE_DAYS, include_failed=True)

        async def retain(timestamp: int = 0) -> None:
            if self._retention is not None:
                await self._in_thread(queues.SYSTEM_QUEUE, self._retention.run_and_go_on)

        again = queues.WhenPossible()
        app.task(name=queues.SEGMENT, queue=queues.GRAPH_QUEUE, retry=again)(segment)
        app.task(name=queues.DELIVER, queue=queues.SYSTEM_QUEUE, retry=again)(deliver)
        app.task(name=queues.CLOSE, queue=queues.SYSTEM_QUEUE, retry=again)(close)
        app.task(name=queues.RELEASE, queue=queues.SYSTEM_QUEUE, retry=again)(release)
        app.task(name=queues.DISCARD, queue=queues.SYSTEM_QUEUE, retry=again)(discard)
        daily = app.task(name=queues.TIDY, queue=queues.SYSTEM_QUEUE, queueing_lock=queues.TIDY)(tidy)
        # procrastinate watches its workers' heartbeats only while some periodic task keeps its deferrer running
        app.periodic(cron="17 3 * * *")(daily)
        hourly = app.task(
            name=queues.RETAIN,
            queue=queues.SYSTEM_QUEUE,
            priority=queues.RETAIN_PRIORITY,
            queueing_lock=queues.RETAIN,
            retry=again,
        )(retain)
        app.periodic(cron="7 * * * *")(hourly)

    def interrupt(self) -> None:
        """End the running graph for a shutdown; its attempt is given back."""
        self._segmenting.interrupt()

    async def _in_thread(self, queue: str, work: Callable[[], None]) -> None:
        # a thread a queue: blocked deliveries must not use up the threads of a shared pool
        pool = self._threads.get(queue)
        if pool is None:
            pool = self._threads[queue] = ThreadPoolExecutor(max_workers=1, thread_name_prefix=queue)
        await asyncio.get_running_loop().run_in_executor(pool, work)

    def close(self, job_id: uuid.UUID) -> None:
        """End a job whose deliveries have ended: closed, or failed if a destination did not get its objects."""
        job = self._records.job(job_id)
        if job is None or job.ended:
            return
        failed = self._records.failed_destinations(job_id)
        if failed:
            reason = f"not delivered to {', '.join(failed)}"
            audit_job(
                self._audit, AuditEvent.JOB_FAILED, job, Outcome.SERIOUS_FAILURE, code="not-delivered", reason=reason
            )
            self._records.close_job(job_id, "failed", "not-delivered", reason)
        else:
            audit_job(self._audit, AuditEvent.JOB_CLOSED, job, state="closed")
            self._records.close_job(job_id, "closed")
        _log.info("job.closed", job_id=str(job_id), delivered=not failed)
