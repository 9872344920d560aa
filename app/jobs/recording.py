"""What an attempt made, and that it passed verification, into the records together with the deliveries to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.jobs.queue import TaskQueue
from app.jobs.records import Connection, Consequence, Job, NewJob, Records, Result
from app.jobs.verification import VerifiedObject


def record_verified(
    records: Records,
    queue: TaskQueue,
    connection: Connection,
    job: Job | NewJob,
    attempt: int,
    verified: Sequence[VerifiedObject],
    steps: Mapping[str, float],
    consequence: Consequence = Consequence(),  # noqa: B008 - it is frozen
) -> bool:
    """Record the objects of an attempt, and have them delivered; False, and nothing is, if it was overtaken.

    Only those are sent that `consequence` says, and none while it holds the job.
    """
    results = [
        Result(
            job_id=job.id,
            digest=one.digest,
            attempt=attempt,
            path=str(one.path),
            sop_class_uid=one.sop_class_uid,
            sop_instance_uid=one.sop_instance_uid,
            series_instance_uid=one.series_instance_uid,
            transfer_syntax_uid=one.transfer_syntax_uid,
            role=one.role,
        )
        for one in verified
    ]
    if not records.record_results(connection, job, attempt, results, steps, consequence):
        return False
    if not consequence.is_held:
        begin_deliveries(queue, connection, job, [one.digest for one in results if one.role in consequence.sent])
    return True


def begin_deliveries(queue: TaskQueue, connection: Connection, job: Job | NewJob, digests: Sequence[str]) -> None:
    """Have objects sent to the job's destinations; a job without objects or destinations is closed next."""
    for digest in digests:
        for destination in job.destinations:
            queue.defer_deliver(connection, job, digest, destination)
    if not (digests and job.destinations):
        queue.defer_close(connection, job.id)
