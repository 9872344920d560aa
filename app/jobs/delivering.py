"""One delivery: one object to one destination, repeated with back-off until it is delivered or given up."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.delivery.destination import Destination
from app.errors import DeliveryError, JobError
from app.jobs.forms import Forms
from app.jobs.probing import keep_accepted
from app.jobs.queue import GROUND, TaskQueue, back_off_seconds
from app.jobs.records import Delivery, DeliveryState, Job, Records, Result, Sending
from app.jobs.superseding import withheld
from app.settings import Settings
from app.telemetry import get_logger
from operators.object_kinds import Kind

NOTE: Kind = "rejection-note"
"""Of what is superseded, it says that it is."""
CONTEXT_REFUSED = "context-refused"
"""The destination takes no objects of that SOP class in that transfer syntax."""

_log = get_logger(__name__)


class Delivering:
    """Sends what jobs made. Its parameters are those of `app.jobs.workflow.Workflow`."""

    def __init__(
        self,
        *,
        settings: Settings,
        records: Records,
        audit: AuditLog,
        queue: TaskQueue,
        destinations: Mapping[str, Destination],
        forms: Forms,
    ) -> None:
        self._settings = settings
        self._records = records
        self._audit = audit
        self._queue = queue
        self._destinations = destinations
        self._forms = forms

    def run(self, job_id: uuid.UUID, digest: str, destination: str) -> None:
        """Send one object to one destination, and record the outcome with the next task.

        After an outcome that nobody learned (killed while sending) the same bytes go again: the receiver knows the
        SOP Instance UID.
        """
        begun = self._records.begin_delivery(job_id, digest, destination)
        job = self._records.job(job_id)
        if begun is None or job is None:
            return  # it has ended
        delivery = next(one for one in job.deliveries if (one.digest, one.destination) == (digest, destination))
        kind = next(one.kind for one in job.results if one.digest == digest)
        if job.superseded_by is not None and kind != NOTE:  # it was being sent then, and that failed
            self._end_delivery(withheld(delivery, job.superseded_by), "replaced")
            return
        detail: dict[str, str] = {
            "job_id": str(job_id),
            "study_instance_uid": job.study_instance_uid,
            "sop_instance_uid": begun.sop_instance_uid,
            "object_digest": digest,
            "destination": destination,
        }
        try:
            path = self._unchanged(Path(begun.path), digest)
            target = self._destination(destination)
            self._audit.append(AuditEvent.DELIVERY_BEGAN, Outcome.SUCCESS, attempt=begun.attempts, **detail)
            target.deliver(path)
        except GROUND:
            raise
        except (DeliveryError, JobError) as error:
            if error.code == CONTEXT_REFUSED and self._replaced(job, delivery, str(error), detail):
                return
            asked = error.retry_after_seconds if isinstance(error, DeliveryError) else None
            self._delivery_failed(
                job, delivery, error.code, str(error), detail, retryable=error.retryable, after_seconds=asked
            )
        except Exception as error:  # noqa: BLE001 - the workflow's border: a defect is a failed attempt
            _log.error("delivery.defect", job_id=str(job_id), exc_info=True)
            reason = f"an unexpected {type(error).__name__}; the diagnostic log tells where"
            self._delivery_failed(job, delivery, "internal-error", reason, detail, retryable=True)
        else:
            self._audit.append(AuditEvent.DELIVERY_SUCCEEDED, Outcome.SUCCESS, attempt=begun.attempts, **detail)
            self._end_delivery(delivery, "delivered")

    def _destination(self, name: str) -> Destination:
        try:
            return self._destinations[name]
        except KeyError:
            raise JobError(f"the settings name no destination '{name}' any more", code="destination-unknown") from None

    def _unchanged(self, path: Path, digest: str) -> Path:
        """Return the result's file if it is still what was verified."""
        found = hashlib.sha256()
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
        if found.hexdigest() != digest:
            raise JobError("the result's file is gone or not what was verified", code="result-changed")
        return path

    def _delivery_failed(
        self,
        job: Job,
        delivery: Delivery,
        code: str,
        reason: str,
        detail: Mapping[str, str],
        *,
        retryable: bool,
        after_seconds: float | None = None,
    ) -> None:
        failed = replace(delivery, code=code, reason=reason)
        known = delivery.destination in self._destinations
        rules = self._settings.destination_named(delivery.destination) if known else None
        again = retryable and rules is not None and delivery.tries < rules.maximum_attempts
        outcome = Outcome.MINOR_FAILURE if again else Outcome.SERIOUS_FAILURE
        self._audit.append(
            AuditEvent.DELIVERY_FAILED, outcome, **detail, attempt=delivery.attempts, code=code, reason=reason
        )
        _log.warning("delivery.failed", job_id=str(job.id), destination=delivery.destination, code=code, again=again)
        if not (again and rules is not None):
            self._end_delivery(failed, "failed")
            return
        wait = back_off_seconds(delivery.tries, rules.retry_first_seconds, rules.retry_longest_seconds)
        wait = max(wait, after_seconds or 0.0)
        with self._records.transaction() as connection:
            at = self._records.postpone_delivery(connection, failed, wait)
            if at is not None:
                self._queue.defer_deliver(connection, job, delivery.digest, delivery.destination, at)

    def _replaced(self, job: Job, delivery: Delivery, reason: str, detail: Mapping[str, str]) -> bool:
        """Send the next form of an object whose form the destination does not take; whether there is one."""
        keep_accepted(self._records, self._settings, self._destinations[delivery.destination])
        others = self._forms.instead(job, delivery)
        if not others:
            return False
        (first, sent), *_ = others.items()
        said = f"{reason}; it gets {_named(sent)} instead"
        self._audit.append(
            AuditEvent.DELIVERY_REPLACED,
            Outcome.MINOR_FAILURE,
            **detail,
            attempt=delivery.attempts,
            code=CONTEXT_REFUSED,
            reason=said,
        )
        _log.warning("delivery.replaced", job_id=str(job.id), destination=delivery.destination, kind=first)
        with self._records.transaction() as connection:
            sendings = [Sending(job.id, one.digest, delivery.destination) for some in others.values() for one in some]
            self._records.add_results(connection, [], sendings)
            for one in sendings:
                self._queue.defer_deliver(connection, job, one.digest, one.destination)
            last = False
            for old in _replaced_by(job, delivery, others):
                ended = replace(old, code=CONTEXT_REFUSED, reason=said)
                last = self._records.end_delivery(connection, ended, "replaced") or last
            if last:  # the other form was delivered before
                self._queue.defer_close(connection, job.id)
        return True

    def _end_delivery(self, delivery: Delivery, state: DeliveryState) -> None:
        with self._records.transaction() as connection:
            last = self._records.end_delivery(connection, delivery, state)
            if last:
                self._queue.defer_close(connection, delivery.job_id)


def _replaced_by(job: Job, refused: Delivery, others: Collection[Kind]) -> list[Delivery]:
    """The deliveries to the same destination that have not ended and whose kinds `others` replace."""
    kinds = {one.digest: one.kind for one in job.results}
    waiting = [one for one in job.deliveries if one.destination == refused.destination and one.finished_at is None]
    return [one for one in waiting if one.digest == refused.digest or kinds[one.digest] in others]


def _named(results: Sequence[Result]) -> str:
    return " and ".join(dict.fromkeys(f"the {one.kind}" for one in results))
