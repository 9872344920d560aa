"""What an attempt made, and that it passed verification, into the records together with the deliveries to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.jobs.queue import TaskQueue
from app.jobs.records import Connection, Job, NewJob, Records, Result
from app.jobs.verification import VerifiedObject


def record_verified(
    records: Records,
    queue: TaskQueue,
    connection: Connection,
    job: Job | NewJob,
    attempt: int,
    verified: Sequence[VerifiedObject],
    steps: Mapping[str, float],
) -> bool:
    """Record the objects of an attempt, and have them delivered; False, and nothing is, if it was overtaken.

    A job without objects or destinations is closed next.
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
        )
        for one in verified
    ]
    if not records.record_results(connection, job, attempt, results, steps):
        return False
    for result in results:
        for destination in job.destinations:
            queue.defer_deliver(connection, job, result.digest, destination)
    if not (results and job.destinations):
        queue.defer_close(connection, job.id)
    return True
