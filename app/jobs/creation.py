"""A complete series or study becomes a job: one transaction holds decision, job, inputs and first task or refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.graph import IMAGES_CHANNEL, PROMPT_CHANNEL
from app.jobs.auditing import audit_job
from app.jobs.binding import StudyBinding, TakenSeries
from app.jobs.fetching import ImageFetching
from app.jobs.identity import ModelFacts, job_id, job_key
from app.jobs.notices import Notice, Notices
from app.jobs.prompting import IMAGES_NOT_HELD, PromptBinding, bind_prompts, own_result
from app.jobs.queue import TaskQueue, back_off_seconds
from app.jobs.records import Connection, JobInput, NewJob, Records, SeenSeries
from app.jobs.superseding import Superseding
from app.settings import Settings
from app.settings_pipeline import RuleSettings
from app.settings_prompt import PromptSettings
from app.telemetry import get_logger
from operators.errors import OperatorError

_ALREADY_DONE = "already-done"
_OTHER_MODEL_WAIT_SECONDS = (5.0, 60.0)  # first, longest

_log = get_logger(__name__)


class JobCreation:
    """Makes the jobs that rules ask for."""

    def __init__(
        self,
        *,
        settings: Settings,
        records: Records,
        audit: AuditLog,
        queue: TaskQueue,
        models: Mapping[str, ModelFacts],
        program_version: str,
        spool_path_of: Callable[[str], Path],
        fetching: ImageFetching,
        notices: Notices,
        superseding: Superseding,
    ) -> None:
        self._settings = settings
        self._records = records
        self._audit = audit
        self._queue = queue
        self._models = models
        self._program_version = program_version
        self._spool_path_of = spool_path_of
        self._fetching = fetching
        self._notices = notices
        self._superseding = superseding

    def create(self, series: SeenSeries, rule: RuleSettings) -> bool:
        """Make the job that a rule asks for; False, and nothing is made, if content came since the series was seen.

        A job with the same identity is never made twice: the series is then recorded as already done, or the job begins
        again if a worker ended it for its model. Of a prompted pipeline the series holds the prompts; nothing is made
        either while instances of its images come.
        """
        prompt = self._settings.pipeline_named(rule.pipeline).prompt
        if prompt is not None:
            return self._create_prompted(series, rule, prompt)
        with self._records.transaction() as connection:
            if not self._records.lock_series(connection, series):
                return False
            inputs = self._records.series_inputs(connection, series)
            job = self._answered(connection, series, rule, inputs) or self._new_job(series, rule, inputs)
            reason = series.remark or None
            if self._records.insert_job(connection, job, inputs):
                audit_job(self._audit, AuditEvent.JOB_CREATED, job, rule=rule.name, instances=len(inputs))
                of_study = rule.after == "study" and self._settings.routing.ask_whole_study
                self._records.note_shortfalls(connection, job.id, [series], of_study=of_study)
                self._superseding.supersede(connection, job, of_series=True)
                self._queue.defer_segment(connection, job)
            elif not self._begins_again(connection, job, of_series=True):
                reason = f"{_ALREADY_DONE}: job {job.id}"
                _log.info("job.already_done", job_id=str(job.id))
            self._records.conclude_series(series, "routed", rule=rule.name, reason=reason, connection=connection)
        return True

    def _answered(
        self, connection: Connection, series: SeenSeries, rule: RuleSettings, inputs: Sequence[JobInput]
    ) -> NewJob | None:
        """The job that answered the whole series before retention removed it, where now only a part came again."""
        whole = self._records.series_inputs(connection, series, with_removed=True)
        if len(whole) == len(inputs):
            return None
        job = self._new_job(series, rule, whole)
        return job if self._records.knows_job(connection, job.key) else None

    def create_for_study(self, binding: StudyBinding) -> int:
        """Make the one job of a study whose series feed the channels of a model; return how many series were decided.

        It is refused as it is made if a channel has no series, or several. Nothing is made, and 0 returned, if
        anything of the study changed since it was seen.
        """
        channels, rule = self._models[binding.rule.pipeline].channels, binding.rule
        carrier, bound = binding.carrier(channels), binding.inputs(channels)
        problem = binding.problem(channels)
        with self._records.transaction() as connection:
            if not self._records.lock_study(connection, binding.study):
                return 0
            inputs = [
                one
                for channel, series in bound or [("", carrier)]
                for one in self._records.series_inputs(connection, series, channel)
            ]
            job = self._new_job(carrier, rule, inputs, refusal="" if problem is None else problem.code)
            made = self._records.insert_job(connection, job, inputs)
            if made:
                audit_job(
                    self._audit,
                    AuditEvent.JOB_CREATED,
                    job,
                    rule=rule.name,
                    instances=len(inputs),
                    channels=[channel for channel, _ in bound],
                    channel_series_instance_uids=[str(series.series_instance_uid) for _, series in bound],
                )
                of_study = self._settings.routing.ask_whole_study
                self._records.note_shortfalls(connection, job.id, [one for _, one in bound], of_study=of_study)
                if problem is None:
                    self._superseding.supersede(connection, job, of_study=True)
                self._begin_or_refuse(connection, job, inputs, problem)
            elif self._begins_again(connection, job, of_study=True):
                made = True
            else:
                _log.info("job.already_done", job_id=str(job.id))
            told = "" if problem is None else f", refused: {problem.code}"
            return sum(self._conclude(connection, one, rule, job, made, told) for one in binding.taken)

    def _create_prompted(self, seen: SeenSeries, rule: RuleSettings, prompt: PromptSettings) -> bool:
        """Make the job of prompt objects and the images that they refer to; it is refused as it is made if none are."""
        study = self._records.series_of_study(seen.study_instance_uid)
        series = next((one for one in study if one.series_instance_uid == seen.series_instance_uid), None)
        if series is None or not series.undecided or series.last_received_at != seen.last_received_at:
            return False
        binding = self._fetched(self._bind_prompts(series, study, prompt), series, prompt)
        if binding is None or binding.must_wait:
            what = "being fetched from their archive" if binding is None else "still coming"
            self._records.explain_waiting(series, f"the images that it refers to are {what}")
            return False
        with self._records.transaction() as connection:
            if not self._records.lock_study(connection, study):
                return False
            inputs = self._records.series_inputs(connection, series, PROMPT_CHANNEL)
            if binding.images is not None:
                inputs += self._records.series_inputs(connection, binding.images, IMAGES_CHANNEL)
            problem = binding.problem
            job = self._new_job(series, rule, inputs, refusal="" if problem is None else problem.code)
            made = self._records.insert_job(connection, job, inputs)
            if made:
                audit_job(self._audit, AuditEvent.JOB_CREATED, job, rule=rule.name, instances=len(inputs))
                if problem is None:
                    self._superseding.supersede(connection, job)
                self._begin_or_refuse(connection, job, inputs, problem)
            elif self._begins_again(connection, job):
                made = True
            else:
                _log.info("job.already_done", job_id=str(job.id))
            reason = f"prompt of job {job.id}" + ("" if problem is None else f", refused: {problem.code}")
            reason = reason if made else f"{_ALREADY_DONE}: {reason}"
            self._records.conclude_locked_series(connection, series, "routed", rule=rule.name, reason=reason)
        return True

    def _bind_prompts(self, series: SeenSeries, study: Sequence[SeenSeries], prompt: PromptSettings) -> PromptBinding:
        inputs = self._records.latest_inputs(series)
        prompted = {one.name for one in self._settings.pipeline if one.prompt is not None}
        made_by = self._records.pipelines_of_results([one.sop_instance_uid for one in inputs]) & prompted
        if made_by:
            return PromptBinding(None, own_result(made_by))
        files = [self._spool_path_of(one.digest) for one in inputs]
        return bind_prompts(files, study, most_structures=prompt.most_structures)

    def _fetched(self, binding: PromptBinding, series: SeenSeries, prompt: PromptSettings) -> PromptBinding | None:
        """Have the images fetched that are not held; None while they are on their way."""
        study, source = series.study_instance_uid, prompt.source
        if binding.images is not None:
            return binding if self._fetching.is_settled(study, binding.wanted) else None
        if source is None or binding.problem is None or binding.problem.code != IMAGES_NOT_HELD:
            return binding
        problem = self._fetching.fetch(source, study, binding.wanted)
        return None if problem is None else PromptBinding(None, problem, binding.wanted)

    def _begin_or_refuse(
        self, connection: Connection, job: NewJob, inputs: Sequence[JobInput], problem: OperatorError | None
    ) -> None:
        if problem is None:
            self._queue.defer_segment(connection, job)
            return
        code, reason = problem.code, str(problem)
        audit_job(self._audit, AuditEvent.JOB_REFUSED, job, Outcome.SERIOUS_FAILURE, code=code, reason=reason)
        self._records.refuse_job(connection, job.id, code, reason)
        self._notices.send(connection, job, self._notices.write(job, inputs, 0, Notice("refused", code, reason)))
        _log.warning("job.ended", job_id=str(job.id), state="refused", code=code)

    def _begins_again(
        self, connection: Connection, job: NewJob, *, of_study: bool = False, of_series: bool = False
    ) -> bool:
        """Have a job run after all that ended since a worker had another model; whether it is such a one.

        It waits longer each time: a worker whose copy of the model is out of date would take it and end it at once.
        """
        attempts = self._records.begin_again(connection, job)
        if attempts is None:
            return False
        reason = "it was ended for a model that its pipeline does not have now"
        audit_job(self._audit, AuditEvent.JOB_REPLAYED, job, state="queued", reason=reason)
        self._superseding.supersede(connection, job, of_study=of_study, of_series=of_series)
        wait = back_off_seconds(attempts, *_OTHER_MODEL_WAIT_SECONDS)
        self._queue.defer_segment(connection, job, self._records.moment(connection, wait))
        _log.warning("job.begins_again", job_id=str(job.id), attempt=attempts, seconds=wait)
        return True

    def _conclude(
        self, connection: Connection, taken: TakenSeries, rule: RuleSettings, job: NewJob, made: bool, told: str
    ) -> bool:
        """Record what became of one series of a study; whether it had waited for that."""
        series = taken.series
        if not (made or series.undecided):
            return False  # decided with this very job before
        if taken.channels:
            reason = f"channel {', '.join(taken.channels)} of job {job.id}{told}"
            reason = reason if made else f"{_ALREADY_DONE}: {reason}"
            self._records.conclude_locked_series(connection, series, "routed", rule=rule.name, reason=reason)
        else:
            reason = f"it fits none of the channels {', '.join(self._models[rule.pipeline].channels)}"
            if series.undecided:
                self._audit.append(
                    AuditEvent.NO_CHANNEL_FITS,
                    study_instance_uid=series.study_instance_uid,
                    series_instance_uid=series.series_instance_uid,
                    rule=rule.name,
                    state="no-channel",
                    reason=reason,
                )
            self._records.conclude_locked_series(connection, series, "no-channel", rule=rule.name, reason=reason)
        return series.undecided

    def _new_job(self, series: SeenSeries, rule: RuleSettings, inputs: Sequence[JobInput], refusal: str = "") -> NewJob:
        pipeline, model = self._settings.pipeline_named(rule.pipeline), self._models[rule.pipeline]
        generalist = model.generalist
        key = job_key(
            inputs,
            pipeline=pipeline.name,
            application=pipeline.application,
            model=model,
            program_version=self._program_version,
            refusal=refusal,
            prompt=None if pipeline.prompt is None else pipeline.prompt.asked,
            gate=pipeline.gate.asked,
        )
        return NewJob(
            id=job_id(key),
            key=key,
            study_instance_uid=series.study_instance_uid,
            series_instance_uid=series.series_instance_uid,
            series_revision=series.revision,
            rule=rule.name,
            pipeline=rule.pipeline,
            model_name=model.name,
            model_version=model.version,
            weights_digest=model.weights_digest,
            destinations=rule.destinations,
            priority=rule.priority,
            generalist_name="" if generalist is None else generalist.name,
            generalist_version="" if generalist is None else generalist.version,
            generalist_digest="" if generalist is None else generalist.weights_digest,
            on_disagreement=rule.on_disagreement,
        )
