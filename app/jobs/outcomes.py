"""What becomes of a delivery after an attempt: delivered, tried again, replaced by another form, or failed."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.delivery.destination import Destination
from app.errors import DeliveryError, JobError, LimnerError
from app.jobs.commitment_start import begin_commitments
from app.jobs.forms import Forms
from app.jobs.probing import keep_accepted
from app.jobs.queue import TaskQueue, back_off_seconds
from app.jobs.records import BegunDelivery, Delivery, DeliveryState, Job, Records, Result, Sending
from app.jobs.superseding import withheld
from app.settings import DestinationSettings, Settings
from app.telemetry import get_logger
from operators.object_kinds import Kind

CONTEXT_REFUSED = "context-refused"
"""The destination takes no objects of that SOP class in that transfer syntax."""
NOT_TOLD = "not-told"
"""The destination did not tell whether it has the object."""
INTERNAL_ERROR = "internal-error"
ATTEMPTS_EXHAUSTED = "attempts-exhausted"
WITHDRAWN = "withdrawn"
"""A person, or the destination's setting, took the object back (`app.jobs.withdrawing`)."""

_UNHEARD = frozenset({"no-answer", INTERNAL_ERROR})
"""Nobody knows whether the object arrived."""
_NOT_REACHED = frozenset(
    {
        *("unreachable", "association-rejected", "association-aborted"),
        *("certificate-refused", "tls-failed", "tls-files", "credentials-unreadable"),
    }
)
"""Nothing was sent: the object had no part in it."""
_OF_ANOTHER = "query-"
"""Before the codes of an application entity that is asked in the destination's place (`app.delivery.storage`)."""
ANOTHER_NOT_REACHED = frozenset(_OF_ANOTHER + code for code in _NOT_REACHED)
"""That one was not reached."""
_OF_THE_OBJECT = ("status-", _OF_ANOTHER, "not-acknowledged", NOT_TOLD, INTERNAL_ERROR)
_OUT_OF_RESOURCES = "status-a7"

_log = get_logger(__name__)


def is_of_peer(error: LimnerError) -> bool:
    """Whether a failure may say that the destination is down, and not that it does not like the object.

    It can't be reached, lets nobody in, breaks off, or has no room (0xA7xx, PS3.4 section B.2.3).
    """
    if not isinstance(error, DeliveryError) or not error.retryable:
        return False
    return error.code.startswith(_OUT_OF_RESOURCES) or not error.code.startswith(_OF_THE_OBJECT)


def was_reached(error: LimnerError) -> bool:
    """Whether who was sent to, or asked, had a part in a failure; another that is asked in its place counts too."""
    return error.code.removeprefix(_OF_ANOTHER) not in _NOT_REACHED


@dataclass(frozen=True)
class SentObject:
    """An object in an attempt to send it."""

    job: Job
    delivery: Delivery
    begun: BegunDelivery

    @classmethod
    def of(cls, job: Job, sending: Sending, begun: BegunDelivery) -> SentObject:
        """Find it in its job, which was read after the attempt had begun."""
        found = (
            one for one in job.deliveries if (one.digest, one.destination) == (sending.digest, sending.destination)
        )
        return cls(job, replace(next(found), attempts=begun.attempts), begun)

    @property
    def kind(self) -> Kind:
        """What it is."""
        return next(result.kind for result in self.job.results if result.digest == self.delivery.digest)

    @property
    def detail(self) -> dict[str, str]:
        """What the audit log says of it."""
        return {
            "job_id": str(self.job.id),
            "study_instance_uid": self.job.study_instance_uid,
            "sop_instance_uid": self.begun.sop_instance_uid,
            "object_digest": self.delivery.digest,
            "destination": self.delivery.destination,
        }


class Outcomes:
    """Records outcomes, each with the next task. Its parameters are those of `app.jobs.workflow.Workflow`."""

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

    def begin(self, sending: Sending) -> SentObject | None:
        """Start the next attempt of a delivery; None if it has ended, as it does now where its job was cancelled."""
        begun = self._records.begin_delivery(*sending)
        job = self._records.job(sending.job_id)
        if begun is not None and job is not None:
            return SentObject.of(job, sending, begun)
        with self._records.transaction() as connection:
            if self._records.lock_job(connection, sending.job_id):
                self._records.drop_delivery(connection, *sending)
                begin_commitments(self._records, self._queue, self._settings, connection, sending.job_id)
        return None

    def gave_up(self, one: SentObject, *, spare: int = 0) -> bool:
        """End the delivery of an object whose attempts are used up before this one: their workers were lost with them.

        Parameters
        ----------
        spare
            Attempts beyond the maximum that the object has.
        """
        rules = self._rules(one.delivery.destination)
        if rules is None or one.delivery.tries <= rules.maximum_attempts + spare:
            return False
        reason = f"all {rules.maximum_attempts} attempts were lost or failed; the last: {one.delivery.reason or '-'}"
        self.failed(one, JobError(reason, code=ATTEMPTS_EXHAUSTED))
        return True

    def delivered(self, one: SentObject, reason: str = "") -> None:
        """Record that the destination has the object."""
        why = {"reason": reason} if reason else {}
        self._audit.append(
            AuditEvent.DELIVERY_SUCCEEDED, Outcome.SUCCESS, attempt=one.begun.attempts, **one.detail, **why
        )
        self._end(replace(one.delivery, reason=reason), "delivered")

    def withheld(self, one: SentObject, by: uuid.UUID) -> None:
        """End the delivery of an object without sending it: the job `by` took its job's place."""
        self._end(withheld(one.delivery, by, is_unknown=one.begun.was_unknown), "replaced")

    def withdrawn(self, one: SentObject) -> None:
        """End the delivery of an object without sending it: it was withdrawn from its destination."""
        reason = "it was withdrawn before it was sent"
        self._end(replace(one.delivery, code=WITHDRAWN, reason=reason, is_unknown=one.begun.was_unknown), "cancelled")

    def failed(self, one: SentObject, error: LimnerError, *, is_down: bool = False) -> None:
        """Record that the attempt failed, and have the object sent again if it may pass then.

        Where the destination `is_down`, its window says when; else the object has a back-off of its own.
        """
        delivery, rules = one.delivery, self._rules(one.delivery.destination)
        again = error.retryable and rules is not None and delivery.tries < rules.maximum_attempts
        reached = was_reached(error)
        outcome = Outcome.MINOR_FAILURE if again or not reached else Outcome.SERIOUS_FAILURE
        self._audit.append(
            AuditEvent.DELIVERY_FAILED,
            outcome,
            **one.detail,
            attempt=delivery.attempts,
            code=error.code,
            reason=str(error),
        )
        _log.warning(
            "delivery.failed", job_id=str(one.job.id), destination=delivery.destination, code=error.code, again=again
        )
        is_unknown = error.code in _UNHEARD or one.begun.was_unknown  # of an attempt before this, still
        failed = replace(delivery, code=error.code, reason=str(error), is_unknown=is_unknown)
        if rules is None or not again and reached:
            self._end(failed, "failed")
            return
        wait = back_off_seconds(delivery.tries, rules.retry_first_seconds, rules.retry_longest_seconds)
        wait = max(wait, error.retry_after_seconds or 0.0) if isinstance(error, DeliveryError) else wait
        with self._records.transaction() as connection:
            at = self._records.postpone_delivery(connection, failed, 0.0 if is_down else wait, counts=reached)
            if at is None:  # its job was cancelled meanwhile
                begin_commitments(self._records, self._queue, self._settings, connection, one.job.id)
            if at is not None and not is_down:
                self._queue.defer_deliver(connection, one.job, delivery.digest, delivery.destination, at)

    def told(self, one: SentObject, *, is_known: bool, code: str = "", reason: str = "") -> None:
        """Record that the object is to be sent after its destination was asked whether it has it, or could not be."""
        self._waits(replace(one.delivery, code=code, reason=reason, is_unknown=not is_known))

    def not_tried(self, one: SentObject) -> None:
        """Have an object wait as before, since this host failed before it was sent: its destination had no part."""
        self._waits(replace(one.delivery, is_unknown=one.begun.was_unknown))

    def _waits(self, waiting: Delivery) -> None:
        """Have an object's turn come at once, by an attempt that does not count."""
        with self._records.transaction() as connection:
            if self._records.postpone_delivery(connection, waiting, 0.0, counts=False) is None:
                begin_commitments(self._records, self._queue, self._settings, connection, waiting.job_id)

    def replaced(self, one: SentObject, error: LimnerError) -> bool:
        """Send the next form of an object whose form the destination does not take; whether there is one."""
        job, delivery = one.job, one.delivery
        if error.code != CONTEXT_REFUSED:
            return False
        keep_accepted(self._records, self._settings, self._destinations[delivery.destination])
        others = self._forms.instead(job, delivery)
        if not others:
            return False
        (first, sent), *_ = others.items()
        said = f"{error}; it gets {_named(sent)} instead"
        self._audit.append(
            AuditEvent.DELIVERY_REPLACED,
            Outcome.MINOR_FAILURE,
            **one.detail,
            attempt=delivery.attempts,
            code=CONTEXT_REFUSED,
            reason=said,
        )
        _log.warning("delivery.replaced", job_id=str(job.id), destination=delivery.destination, kind=first)
        commits = self._commits(delivery.destination)
        with self._records.transaction() as connection:
            sendings = [Sending(job.id, one.digest, delivery.destination) for some in others.values() for one in some]
            self._records.add_results(connection, [], sendings)
            for sending in sendings:
                self._queue.defer_deliver(connection, job, sending.digest, sending.destination)
            last = False
            for old in _replaced_by(job, delivery, others):
                is_unknown = one.begun.was_unknown if old.digest == delivery.digest else old.is_unknown
                ended = replace(old, code=CONTEXT_REFUSED, reason=said, is_unknown=is_unknown)
                last = self._records.end_delivery(connection, ended, "replaced", commits=commits) or last
            if last:  # the other form was delivered before
                self._queue.defer_close(connection, job.id)
        return True

    def _end(self, delivery: Delivery, state: DeliveryState) -> None:
        commits = self._commits(delivery.destination)
        with self._records.transaction() as connection:
            if self._records.end_delivery(connection, delivery, state, commits=commits):
                self._queue.defer_close(connection, delivery.job_id)

    def _commits(self, destination: str) -> bool:
        rules = self._rules(destination)
        return rules is not None and rules.commitment != "none"

    def _rules(self, destination: str) -> DestinationSettings | None:
        known = self._settings.knows_destination(destination)
        return self._settings.destination_named(destination) if known else None


def _replaced_by(job: Job, refused: Delivery, others: Collection[Kind]) -> list[Delivery]:
    """The deliveries to the same destination that have not ended and whose kinds `others` replace."""
    kinds = {one.digest: one.kind for one in job.results}
    waiting = [one for one in job.deliveries if one.destination == refused.destination and one.finished_at is None]
    return [one for one in waiting if one.digest == refused.digest or kinds[one.digest] in others]


def _named(results: Sequence[Result]) -> str:
    return " and ".join(dict.fromkeys(f"the {one.kind}" for one in results))
