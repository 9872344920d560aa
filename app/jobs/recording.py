"""What an attempt made, and that it passed verification, into the records together with the deliveries to come."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence

from app.jobs.connections import LOST_OR_FULL
from app.jobs.forms import Forms
from app.jobs.queue import TaskQueue
from app.jobs.records import Connection, Consequence, Job, NewJob, Records, Result, Sending
from app.jobs.verification import VerifiedObject
from app.telemetry import get_logger

_PATIENCE_SECONDS = 600.0

_log = get_logger(__name__)


def record_patiently(
    records: Records,
    job_id: uuid.UUID,
    record: Callable[[Connection], bool],
    hurry: threading.Event,
    seconds: float = _PATIENCE_SECONDS,
) -> bool:
    """Record what took long to make: a database that is away or full is waited for, if nothing hurries.

    Returns
    -------
    bool
        Whether it is recorded, or may be: where no answer came to a commit, the next try finds the attempt ended. False
        if the attempt was overtaken before.

    Raises
    ------
    psycopg.Error
        If the database stays away for so many seconds, or `hurry` is set.
    """
    ends = time.monotonic() + seconds
    may_be_recorded = False
    while True:
        try:
            with records.transaction() as connection:
                return record(connection) or may_be_recorded
        except LOST_OR_FULL as error:
            may_be_recorded = True
            _log.warning("results.not_recorded", job_id=str(job_id), code=type(error).__name__)
            if time.monotonic() > ends or hurry.wait(1.0):
                raise


def record_verified(
    records: Records,
    queue: TaskQueue,
    connection: Connection,
    forms: Forms,
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
            kind=one.kind,
        )
        for one in verified
    ]
    sendings = forms.sendings(job, results, consequence.sent)
    if not records.record_results(connection, job, attempt, results, steps, sendings, consequence):
        return False
    if not consequence.is_held:
        begin_deliveries(queue, connection, job, sendings)
    return True


def begin_deliveries(queue: TaskQueue, connection: Connection, job: Job | NewJob, sendings: Sequence[Sending]) -> None:
    """Have objects sent to the job's destinations; a job without objects or destinations is closed next."""
    for one in sendings:
        queue.defer_deliver(connection, job, one.digest, one.destination)
    if not sendings:
        queue.defer_close(connection, job.id)
