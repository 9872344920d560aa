"""A complete series becomes a job: one transaction holds the decision, the job, its inputs and its first task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.audit.events import AuditEvent
from app.audit.log import AuditLog
from app.jobs.auditing import audit_job
from app.jobs.identity import ModelFacts, job_id, job_key
from app.jobs.queue import TaskQueue
from app.jobs.records import NewJob, Records, UndecidedSeries
from app.settings import PipelineSettings, RuleSettings, Settings
from app.telemetry import get_logger

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
    ) -> None:
        self._settings = settings
        self._records = records
        self._audit = audit
        self._queue = queue
        self._models = models
        self._program_version = program_version

    def create(self, series: UndecidedSeries, rule: RuleSettings) -> bool:
        """Make the job that a rule asks for; False, and nothing is made, if content came since the series was seen.

        A job with the same identity is never made twice: the series is then recorded as already done.
        """
        model = self._models[rule.pipeline]
        pipeline = self._settings.pipeline_named(rule.pipeline)
        with self._records.transaction() as connection:
            inputs = self._records.lock_inputs(connection, series)
            if inputs is None:
                return False
            job = self._new_job(series, rule, pipeline, model, inputs)
            reason = None
            if self._records.insert_job(connection, job, inputs):
                audit_job(self._audit, AuditEvent.JOB_CREATED, job, rule=rule.name, instances=len(inputs))
                self._queue.defer_segment(connection, job.id, job.priority)
            else:
                reason = "already-done"
                _log.info("job.already_done", job_id=str(job.id))
            self._records.conclude_series(series, "routed", rule=rule.name, reason=reason, connection=connection)
        return True

    def _new_job(
        self,
        series: UndecidedSeries,
        rule: RuleSettings,
        pipeline: PipelineSettings,
        model: ModelFacts,
        inputs: Sequence[tuple[str, str]],
    ) -> NewJob:
        key = job_key(
            inputs,
            pipeline=pipeline.name,
            application=pipeline.application,
            model=model,
            program_version=self._program_version,
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
        )
