"""The audit lines of a job: each names the job, its study and series, and its models."""

from __future__ import annotations

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.jobs.records import Job, NewJob


def audit_job(
    audit: AuditLog,
    event: AuditEvent,
    job: Job | NewJob,
    outcome: Outcome = Outcome.SUCCESS,
    **detail: str | int | list[str],
) -> None:
    """Append an event of a job; it is on disk when this returns.

    Raises
    ------
    AuditError
        If the log can't be written; then the effect must not happen either.
    """
    second = {
        "generalist": job.generalist_name,
        "generalist_version": job.generalist_version,
        "generalist_digest": job.generalist_digest,
    }
    audit.append(
        event,
        outcome,
        job_id=str(job.id),
        job_key=job.key,
        study_instance_uid=job.study_instance_uid,
        series_instance_uid=job.series_instance_uid,
        pipeline=job.pipeline,
        model=job.model_name,
        model_version=job.model_version,
        weights_digest=job.weights_digest,
        **(second if job.generalist_name else {}),
        **detail,
    )
