"""The durable tasks of a job: segment, deliver (one an object and destination), close; and what a person decides.

Those of a destination: turn (send what waits for it), report (act on its commitment), attend (see to what is left).

Each is small and can be repeated: it asks the records what is left to do, writes the audit line, does it, and records
the outcome together with the next task in one transaction. Only the latest attempt may record (a fence).

What is repeated, and what not:

- an attempt that was lost (its worker was killed) is repeated, up to the pipeline's
  ``maximum_attempts``; one that a shutdown ended, or whose outcome could not be recorded since the database or the
  audit log had no room, is repeated and does not count;
- `InferenceFailed` is repeated with back-off, up to the same maximum: Triton may be back by then;
- a job whose attempts are used up so is a dead letter, that a person may have replayed;
- a crash, a hang, too much memory, a missing record or a result that does not verify fails the job at once: the same
  inputs would most likely do it again, and the next study is waiting;
- `SeriesRefused` and `PromptRefused` end the job as refused;
- a delivery is repeated with back-off as the destination's settings say, unless the destination refused for good;
- a destination that is down is tried once a window, whatever waits for it.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

import procrastinate
from procrastinate.job_context import JobContext

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
from app.jobs.pausing import Pausing
from app.jobs.records import Records, SeenSeries
from app.jobs.records.pausing import PauseKind
from app.jobs.result_files import ResultFiles
from app.jobs.retention import Retention
from app.jobs.segmenting import GraphRunner, Segmenting, Verify
from app.jobs.slots import SLOT_LOST, graph_queues
from app.jobs.steering import Steering
from app.jobs.superseding import SENT, SUPERSEDED, Superseding
from app.jobs.withdrawing import Order, Withdrawing
from app.settings import Settings
from app.settings_pipeline import RuleSettings
from app.telemetry import get_logger
from operators.rejection_reasons import RejectionReason

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
    result_files
        Where results lie.
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
        result_files: ResultFiles,
        archives: Mapping[str, Archive] = MappingProxyType({}),
        retention: Retention | None = None,
    ) -> None:
        self._records = records
        self._retention = retention
        self._audit = audit
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._graph_queues = graph_queues(settings)
        queue = queues.TaskQueue(self._graph_queues)
        forms = Forms(settings, records)
        notices = Notices(
            settings=settings, records=records, queue=queue, spool_path_of=spool_path_of, result_files=result_files
        )
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
            superseding=Superseding(settings=settings, records=records, audit=audit, queue=queue),
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
            result_files=result_files,
        )
        self._delivering = Delivering(
            settings=settings,
            records=records,
            audit=audit,
            queue=queue,
            destinations=destinations,
            forms=forms,
            result_files=result_files,
        )
        holding = Holding(records=records, audit=audit, queue=queue)
        self._pausing = Pausing(records=records, audit=audit)
        steering = Steering(settings=settings, records=records, audit=audit, queue=queue)
        self._decisions: Mapping[str, Callable[[uuid.UUID, str], None]] = {
            queues.RELEASE: holding.release,
            queues.DISCARD: holding.discard,
            queues.CANCEL: steering.cancel,
            queues.REPLAY: steering.replay,
            queues.PUT_FIRST: steering.put_first,
        }
        self._withdrawing = Withdrawing(
            settings=settings,
            records=records,
            audit=audit,
            queue=queue,
            destinations=destinations,
            result_files=result_files,
        )

    def create_job(self, series: SeenSeries, rule: RuleSettings) -> bool:
        """Make the job that a rule asks for (`JobCreation.create`): the completion scanner's callback."""
        return self._creation.create(series, rule)

    def create_study_job(self, binding: StudyBinding) -> int:
        """Make the job of a study whose series feed a model's channels (`JobCreation.create_for_study`)."""
        return self._creation.create_for_study(binding)

    def register(self, app: procrastinate.App) -> None:
        """Give the tasks to the queue's workers."""

        async def segment(context: JobContext, job_id: str) -> None:
            lost = context.additional_context.get(SLOT_LOST) or threading.Event()
            lane = context.worker_name or queues.GRAPH_QUEUE
            await self._in_thread(lane, lambda: self._segment(uuid.UUID(job_id), context.job.id, lost))

        async def turn(context: JobContext, destination: str) -> None:
            queue, holder = queues.delivery_queue(destination), f"task {context.job.id}"
            await self._in_thread(queue, lambda: self._turn(destination, holder))

        async def deliver(context: JobContext, job_id: str, digest: str, destination: str) -> None:
            await turn(context, destination)  # it says that something waits: whoever has the turn sends all that does

        async def report(transaction_uid: str) -> None:
            await self._in_thread(queues.SYSTEM_QUEUE, lambda: self._delivering.report(transaction_uid))

        async def attend(timestamp: int) -> None:
            await self._in_thread(queues.SYSTEM_QUEUE, self._delivering.attend)

        async def close(job_id: str) -> None:
            await self._in_thread(queues.SYSTEM_QUEUE, lambda: self.close(uuid.UUID(job_id)))

        async def pause(kind: PauseKind, name: str, person: str) -> None:
            await self._in_thread(queues.SYSTEM_QUEUE, lambda: self._pausing.pause(kind, name, person))

        async def resume(kind: PauseKind, name: str, person: str) -> None:
            await self._in_thread(queues.SYSTEM_QUEUE, lambda: self._pausing.resume(kind, name, person))

        async def withdraw(
            job_id: str, reason: RejectionReason, person: str, destination: str, decided_at: str
        ) -> None:
            order = Order(reason, person, datetime.fromisoformat(decided_at), destination)
            await self._in_thread(queues.SYSTEM_QUEUE, lambda: self._withdrawing.run(uuid.UUID(job_id), order))

        async def tidy(timestamp: int) -> None:
            await app.job_manager.delete_old_jobs(nb_hours=24 * _QUEUE_DAYS, include_failed=True)

        async def retain(timestamp: int = 0) -> None:
            if self._retention is not None:
                await self._in_thread(queues.SYSTEM_QUEUE, self._retention.run_and_go_on)

        again, unless_defect = queues.WhenPossible(), queues.UnlessDefect()
        app.task(name=queues.SEGMENT, queue=queues.GRAPH_QUEUE, retry=again, pass_context=True)(segment)
        app.task(name=queues.DELIVER, queue=queues.SYSTEM_QUEUE, retry=again, pass_context=True)(deliver)
        app.task(name=queues.TURN, queue=queues.SYSTEM_QUEUE, retry=again, pass_context=True)(turn)
        app.task(name=queues.REPORT, queue=queues.SYSTEM_QUEUE, retry=unless_defect)(report)
        app.task(name=queues.CLOSE, queue=queues.SYSTEM_QUEUE, retry=unless_defect)(close)
        app.task(name=queues.PAUSE, queue=queues.SYSTEM_QUEUE, retry=unless_defect)(pause)
        app.task(name=queues.RESUME, queue=queues.SYSTEM_QUEUE, retry=unless_defect)(resume)
        for name, carry_out in self._decisions.items():
            app.task(name=name, queue=queues.SYSTEM_QUEUE, retry=unless_defect)(self._decision(carry_out))
        app.task(name=queues.WITHDRAW, queue=queues.SYSTEM_QUEUE, retry=unless_defect)(withdraw)
        daily = app.task(name=queues.TIDY, queue=queues.SYSTEM_QUEUE, queueing_lock=queues.TIDY)(tidy)
        # procrastinate watches its workers' heartbeats only while some periodic task keeps its deferrer running
        app.periodic(cron="17 3 * * *")(daily)
        each_minute = app.task(name=queues.ATTEND, queue=queues.SYSTEM_QUEUE, queueing_lock=queues.ATTEND)(attend)
        app.periodic(cron="* * * * *")(each_minute)
        hourly = app.task(
            name=queues.RETAIN,
            queue=queues.SYSTEM_QUEUE,
            priority=queues.RETAIN_PRIORITY,
            queueing_lock=queues.RETAIN,
            retry=again,
        )(retain)
        app.periodic(cron="7 * * * *")(hourly)

    def _decision(self, carry_out: Callable[[uuid.UUID, str], None]) -> Callable[[str, str], Awaitable[None]]:
        async def decide(job_id: str, person: str) -> None:
            await self._in_thread(queues.SYSTEM_QUEUE, lambda: carry_out(uuid.UUID(job_id), person))

        return decide

    def _segment(self, job_id: uuid.UUID, task: int | None, slot_lost: threading.Event) -> None:
        self._pausing.check(job_id)
        self._segmenting.run(job_id, task, slot_lost)

    def _turn(self, destination: str, holder: str) -> None:
        self._pausing.check_destination(destination)
        self._delivering.run(destination, holder)

    def prepare(self) -> None:
        """Put the tasks of graphs into the queues that the settings say now, and take up what was given up."""
        self._records.requeue_graphs(self._graph_queues, queues.GRAPH_QUEUE)
        if taken_up := self._records.take_up_tasks(queues.GIVEN_UP_QUEUE, queues.SYSTEM_QUEUE):
            _log.warning("tasks.taken_up", tasks=taken_up)

    def wanted_queues(self) -> set[str]:
        """Return the queues that what waits belongs into: graphs where they are, deliveries to their destination's."""
        turns = {queues.delivery_queue(one.destination) for one in self._records.waiting_turns()}
        return turns | self._records.waiting_graph_queues()

    def move(self, served: Collection[str], unserved: Collection[str]) -> None:
        """Put what belongs into queues that nobody serves where it is run, or ended; bring back what is served.

        Graphs go where the settings say now. Who takes a turn for a destination that the settings do not name ends what
        waits for it.
        """
        if forsaken := self._records.waiting_graph_queues() & set(unserved):
            _log.warning("graphs.moved", queues=sorted(forsaken))
            self._records.requeue_graphs(self._graph_queues, queues.GRAPH_QUEUE, forsaken)
        for turn in self._records.waiting_turns():
            own = queues.delivery_queue(turn.destination)
            queue = queues.SYSTEM_QUEUE if own in unserved else own if own in served else turn.queue
            if queue != turn.queue:
                _log.warning("destination.moved", destination=turn.destination, queue=queue)
                self._records.move_turns(turn, queue)

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
        if (
            job is None
            or job.state != "delivering"
            or any(one.state in ("waiting", "sending", "committing") for one in job.deliveries)
        ):
            return  # it has ended, or was started again
        failed = self._records.failed_destinations(job_id)
        if job.superseded_by is not None and not any(one.state in SENT for one in job.deliveries):
            reason = f"nothing was sent before job {job.superseded_by} took its place"
            audit_job(self._audit, AuditEvent.JOB_CLOSED, job, state=SUPERSEDED)
            self._records.close_job(job_id, "superseded", SUPERSEDED, reason)
        elif failed:
            codes = [one.code for one in job.deliveries if one.state == "failed" and one.destination in failed]
            is_there = all(one.startswith("commitment-") for one in codes)
            code, said = ("not-committed", "no commitment of") if is_there else ("not-delivered", "not delivered to")
            reason = f"{said} {', '.join(failed)}"
            audit_job(self._audit, AuditEvent.JOB_FAILED, job, Outcome.SERIOUS_FAILURE, code=code, reason=reason)
            self._records.close_job(job_id, "failed", code, reason)
        else:
            audit_job(self._audit, AuditEvent.JOB_CLOSED, job, state="closed")
            self._withdrawing.withdraw_earlier(job_id)  # first: repeated, this finds the job closed, and that withdrawn
            self._records.close_job(job_id, "closed")
        _log.info("job.closed", job_id=str(job_id), delivered=not failed)
