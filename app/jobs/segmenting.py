"""One attempt of a job: run its graph, verify what it made, record it together with the deliveries to come."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psycopg

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.errors import GraphFailed, InputMissing, JobError, LimnerError
from app.graph import (
    ChannelInput,
    CompletionRecord,
    GateRequest,
    GraphRequest,
    specialist_alone,
)
from app.jobs.attending import Overtaken, Progress, attended, audit_attempt
from app.jobs.connections import Connection
from app.jobs.disagreement import consequence_of
from app.jobs.forms import Forms
from app.jobs.host_faults import check_mounted, host_faults_waited_for
from app.jobs.identity import ModelFacts, is_made_for
from app.jobs.notices import Notice, Notices
from app.jobs.outcomes import ATTEMPTS_EXHAUSTED
from app.jobs.prompting import generalist_request, kept_embeddings, prompt_request
from app.jobs.queue import GROUND, Interrupted, TaskQueue, back_off_seconds
from app.jobs.recording import record_patiently, record_verified
from app.jobs.records import Consequence, Job, JobState, Records
from app.jobs.result_files import ResultFiles, share_patiently
from app.jobs.superseding import replaced_by
from app.settings import Settings
from app.settings_pipeline import PipelineSettings
from app.telemetry import get_logger
from operators.errors import InferenceFailed, OperatorError, PromptRefused, SeriesRefused

if TYPE_CHECKING:
    from app.jobs.verification import VerifiedObject

_INFERENCE_WAIT_SECONDS = (5.0, 60.0)  # first, longest
_ENDS: Mapping[AuditEvent, JobState] = {
    AuditEvent.JOB_REFUSED: "refused",
    AuditEvent.JOB_FAILED: "failed",
    AuditEvent.JOB_GIVEN_UP: "dead-letter",
}
"""How a job ends of which an attempt ended so."""

_FETCHES = 8
_UNCOUNTED_SECONDS = 600.0
"""So long is waited for a database that can be asked and not written; the queue repeats the task after that too."""

_log = get_logger(__name__)


class GraphRunner(Protocol):
    """What runs a graph: `app.jobs.graph_process.GraphProcess`."""

    def run(
        self,
        request: GraphRequest,
        application: str,
        *,
        time_limit_seconds: float,
        memory_limit_bytes: int,
        progress: Callable[[str, int, int], None],
        unwanted: threading.Event,
    ) -> CompletionRecord:
        """Run one graph to its end; it is ended, and this raises, once nobody wants it."""
        ...

    def cancel(self) -> None:
        """End the running graph; `run` raises."""
        ...


Verify = Callable[[CompletionRecord, Path, Sequence[Path]], "tuple[VerifiedObject, ...]"]
"""Reads results back: `app.jobs.verification.verify_results`."""


class Segmenting:
    """Runs attempts. Its parameters are those of `app.jobs.workflow.Workflow`."""

    def __init__(
        self,
        *,
        settings: Settings,
        records: Records,
        audit: AuditLog,
        queue: TaskQueue,
        spool_path_of: Callable[[str], Path],
        runner: GraphRunner,
        verify: Verify,
        triton_target: Callable[[], str],
        models: Mapping[str, ModelFacts],
        forms: Forms,
        notices: Notices,
        result_files: ResultFiles,
    ) -> None:
        self._settings = settings
        self._records = records
        self._queue = queue
        self._spool_path_of = spool_path_of
        self._runner = runner
        self._verify = verify
        self._triton_target = triton_target
        self._models = models
        self._forms = forms
        self._notices = notices
        self._result_files = result_files
        self._tell = partial(audit_attempt, records, audit)
        self._interrupted = threading.Event()

    def interrupt(self) -> None:
        """End the running graph for a shutdown; its attempt is given back."""
        self._interrupted.set()
        self._runner.cancel()

    def run(self, job_id: uuid.UUID, task: int | None, slot_lost: threading.Event) -> None:
        """Run the job's graph once, verify what it made, and record it with the deliveries to come.

        Nothing is run where the `task` was taken over. Once `slot_lost` is set the graph is ended, and its attempt
        given back.
        """
        begun = self._records.begin_attempt(job_id, task)
        job = self._records.job(job_id)
        if begun is None or job is None:
            return  # it ended, or goes on elsewhere: under another task where this one was taken over
        attempt, tries = begun
        try:
            self._attempt(job, attempt, tries, slot_lost)
        except GROUND as error:
            self._uncount(job, attempt, error)
            raise

    def _attempt(self, job: Job, attempt: int, tries: int, slot_lost: threading.Event) -> None:
        """Run an attempt and record its outcome, whatever it is; of one that was overtaken nothing is left."""
        try:
            self._run_to_outcome(job, attempt, tries, slot_lost)
        except Overtaken:
            shutil.rmtree(self._folder(job, attempt), ignore_errors=True)
            _log.warning("job.overtaken", job_id=str(job.id), attempt=attempt)

    def _run_to_outcome(self, job: Job, attempt: int, tries: int, slot_lost: threading.Event) -> None:
        try:
            with host_faults_waited_for():
                self._run_attempt(job, attempt, tries, slot_lost)
        except Overtaken:
            raise
        except (SeriesRefused, PromptRefused) as error:
            self._end_attempt(job, attempt, AuditEvent.JOB_REFUSED, error.code, str(error))
        except InferenceFailed as error:
            if self._interrupted.is_set() or slot_lost.is_set():
                self._give_back(job, attempt)
            self._postpone_or_fail(job, attempt, tries, error)
        except (JobError, OperatorError) as error:
            if isinstance(error, GraphFailed) and (self._interrupted.is_set() or slot_lost.is_set()):
                self._give_back(job, attempt)
            given_up = error.code == ATTEMPTS_EXHAUSTED
            event = AuditEvent.JOB_GIVEN_UP if given_up else AuditEvent.JOB_FAILED
            self._end_attempt(job, attempt, event, error.code, str(error))
        except GROUND:
            raise
        except Exception as error:  # noqa: BLE001 - the workflow's border: a defect ends the job, not the worker
            _log.error("job.defect", job_id=str(job.id), exc_info=True)
            reason = f"an unexpected {type(error).__name__}; the diagnostic log tells where"
            self._end_attempt(job, attempt, AuditEvent.JOB_FAILED, "internal-error", reason)

    def _run_attempt(self, job: Job, attempt: int, tries: int, slot_lost: threading.Event) -> None:
        pipeline, model = self._pipeline_of(job)
        if tries > pipeline.maximum_attempts:
            raise JobError(
                f"all {pipeline.maximum_attempts} attempts were lost or failed; the last: {job.reason or '-'}",
                code=ATTEMPTS_EXHAUSTED,
            )
        if not is_made_for(job, model):
            self._replace(job, attempt)
            return
        if self._interrupted.is_set():
            raise GraphFailed("the server stops", code="graph-cancelled")
        inputs = self._inputs(job, model)
        folder = self._fresh_folder(job, attempt)
        instances = sum(len(one.files) for one in inputs)
        self._tell(job, attempt, AuditEvent.GRAPH_STARTED, instances=instances)
        started = time.monotonic()
        request = self._request(job, inputs, folder, pipeline, model)
        record = self._run_graph(job, attempt, request, pipeline, slot_lost)
        ran = time.monotonic()
        verified = self._verify(record, folder, request.primary_files)
        steps = {"start": max(0.0, ran - started - sum(record.steps.values())), **record.steps}
        steps["verify"] = time.monotonic() - ran
        made = [(one.digest, one.path) for one in verified]
        share_patiently(self._result_files, job.id, made, (self._interrupted, slot_lost))
        detail: dict[str, Any] = {"left_out": list(record.left_out)} if record.left_out else {}
        detail |= {"input_notes": [note.code for note in record.notes]} if record.notes else {}
        self._tell(job, attempt, AuditEvent.RESULTS_VERIFIED, instances=len(verified), **detail)
        deliver = pipeline.generalist is not None and pipeline.generalist.deliver
        consequence = consequence_of(record, on_disagreement=job.on_disagreement, deliver_generalist=deliver)
        self._tell_flag(job, attempt, consequence)
        self._record_results(job, attempt, verified, steps, consequence)

    def _run_graph(
        self, job: Job, attempt: int, request: GraphRequest, pipeline: PipelineSettings, slot_lost: threading.Event
    ) -> CompletionRecord:
        """Run the graph; where it fails after the specialist has a result, that result is what it made."""
        with attended(self._records, job.id, attempt, slot_lost) as unwanted:
            try:
                return self._runner.run(
                    request,
                    pipeline.application,
                    time_limit_seconds=pipeline.time_limit_seconds,
                    memory_limit_bytes=pipeline.memory_limit_bytes,
                    progress=Progress(self._records, job.id, attempt),
                    unwanted=unwanted,
                )
            except (GraphFailed, OperatorError) as error:
                if unwanted.is_set() and not slot_lost.is_set():
                    raise Overtaken from error
                record = specialist_alone(request.output_folder, error.code, str(error))
                if record is None or self._interrupted.is_set() or slot_lost.is_set():
                    raise
                return record

    def _tell_flag(self, job: Job, attempt: int, consequence: Consequence) -> None:
        if not consequence.flag:
            return
        self._tell(
            job,
            attempt,
            AuditEvent.RESULTS_FLAGGED,
            Outcome.MINOR_FAILURE if consequence.flag == "generalist-failed" else Outcome.SUCCESS,
            flag=consequence.flag,
            reason=consequence.flag_reason,
        )
        if consequence.is_held:
            self._tell(job, attempt, AuditEvent.JOB_HELD, flag=consequence.flag, state="held")
        _log.warning(
            "job.flagged", job_id=str(job.id), flag=consequence.flag, state="held" if consequence.is_held else ""
        )

    def _pipeline_of(self, job: Job) -> tuple[PipelineSettings, ModelFacts]:
        try:
            return self._settings.pipeline_named(job.pipeline), self._models[job.pipeline]
        except KeyError:
            raise JobError(
                f"the settings name no pipeline '{job.pipeline}' any more; put it back, then replay the job",
                code="pipeline-unknown",
            ) from None

    def _inputs(self, job: Job, model: ModelFacts) -> tuple[ChannelInput, ...]:
        """The job's files by channel, in the model's order; one without a name where the rule binds none."""
        files: dict[str, list[Path]] = {}
        inputs = self._records.job_inputs(job.id)
        with ThreadPoolExecutor(_FETCHES) as pool:  # from shared storage each has its way to go
            paths = list(pool.map(self._spool_path_of, [one.digest for one in inputs]))
        for one, path in zip(inputs, paths, strict=True):
            files.setdefault(one.channel, []).append(path)
        missing = sum(not path.is_file() for path in paths)
        if missing:
            check_mounted(self._settings.spool_folder)
            raise InputMissing(f"{missing} of the job's {len(paths)} instances are no longer in the spool")
        return tuple(
            ChannelInput(channel, tuple(files[channel])) for channel in ("", *model.channels) if channel in files
        )

    def _folder(self, job: Job, attempt: int) -> Path:
        return self._settings.results_folder / str(job.id) / str(attempt)

    def _fresh_folder(self, job: Job, attempt: int) -> Path:
        folder = self._folder(job, attempt)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def _request(
        self,
        job: Job,
        inputs: tuple[ChannelInput, ...],
        folder: Path,
        pipeline: PipelineSettings,
        model: ModelFacts,
    ) -> GraphRequest:
        return GraphRequest(
            inputs=inputs,
            output_folder=folder,
            model_folder=model.folder,
            triton_target=self._triton_target(),
            identity=job.key,
            series_description=pipeline.series_description,
            request_seconds=self._settings.triton.request_seconds,
            shared_memory=self._settings.triton.shared_memory,
            generalist=generalist_request(pipeline.generalist, model.generalist, kept_embeddings(self._settings)),
            kinds=self._forms.kinds(job),
            prompt=prompt_request(self._settings, pipeline.prompt),
            gate=GateRequest(pipeline.gate.policies, pipeline.gate.take),
            replaces=replaced_by(self._records, job),
        )

    def _record_results(
        self,
        job: Job,
        attempt: int,
        verified: Sequence[VerifiedObject],
        steps: Mapping[str, float],
        consequence: Consequence,
    ) -> None:
        nothing = consequence.found_nothing and not consequence.is_held
        said = Notice.nothing_found()
        notices = self._notices.write(job, self._records.job_inputs(job.id), attempt, said) if nothing else []

        def record(connection: Connection) -> bool:
            if not record_verified(
                self._records, self._queue, connection, self._forms, job, attempt, verified, steps, consequence
            ):
                return False
            self._notices.send(connection, job, notices)
            return True

        if not record_patiently(self._records, job.id, record, self._interrupted):
            raise Overtaken
        for earlier in range(1, attempt):  # what lost attempts left
            shutil.rmtree(self._folder(job, earlier), ignore_errors=True)

    def _postpone_or_fail(self, job: Job, attempt: int, tries: int, error: InferenceFailed) -> None:
        pipeline, _ = self._pipeline_of(job)
        if tries >= pipeline.maximum_attempts:
            self._end_attempt(job, attempt, AuditEvent.JOB_GIVEN_UP, error.code, str(error))
            return
        why = {"code": error.code, "reason": str(error)}
        self._tell(job, attempt, AuditEvent.JOB_FAILED, Outcome.MINOR_FAILURE, **why)
        with self._records.transaction() as connection:
            if self._records.postpone_job(connection, job.id, attempt, error.code, str(error)):
                wait = back_off_seconds(tries, *_INFERENCE_WAIT_SECONDS)
                at = self._records.moment(connection, wait)
                self._queue.defer_segment(connection, job, at)

    def _end_attempt(self, job: Job, attempt: int, event: AuditEvent, code: str, reason: str) -> None:
        self._tell(job, attempt, event, Outcome.SERIOUS_FAILURE, code=code, reason=reason)
        state = _ENDS[event]
        notice = Notice("refused" if state == "refused" else "failed", code, reason)
        notices = self._notices.write(job, self._records.job_inputs(job.id), attempt, notice)
        with self._records.transaction() as connection:
            if self._records.end_attempt(connection, job.id, attempt, state, code, reason):
                self._notices.send(connection, job, notices)
        _log.warning("job.ended", job_id=str(job.id), state=state, code=code)

    def _replace(self, job: Job, attempt: int) -> None:
        """End a job whose model was replaced while it waited; the series is decided again, with the listener's model.

        If that is the one that the job was made for, this worker's is out of date, and the job begins again
        (`app.jobs.creation`).
        """
        reason = "the worker has another model than the job was made for; its series is decided anew"
        why = {"code": "model-replaced", "reason": reason}
        self._tell(job, attempt, AuditEvent.JOB_FAILED, Outcome.MINOR_FAILURE, **why)
        with self._records.transaction() as connection:
            if self._records.end_attempt(connection, job.id, attempt, "failed", **why):
                self._records.reopen_series(connection, job.id)
        _log.warning("job.ended", job_id=str(job.id), state="failed", code=why["code"])

    def _uncount(self, job: Job, attempt: int, error: Exception) -> None:
        """Give back an attempt whose outcome could not be recorded: no fault of the job's. Waits until that can be."""
        ends = time.monotonic() + _UNCOUNTED_SECONDS
        code, reason = (error.code, str(error)) if isinstance(error, LimnerError) else ("", "")
        while time.monotonic() < ends:
            try:
                self._records.release_attempt(job.id, attempt, code, reason)
            except psycopg.Error:
                if self._interrupted.wait(1.0):
                    return
            else:
                said = code or type(error).__name__
                _log.warning("job.not_recorded", job_id=str(job.id), attempt=attempt, code=said)
                return

    def _give_back(self, job: Job, attempt: int) -> None:
        self._records.release_attempt(job.id, attempt)
        raise Interrupted
