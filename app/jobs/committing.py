"""A destination's commitment to keep what it was sent, before the job counts as done (PS3.4 annex J).

What a job sent to a destination is asked about together, under a Transaction UID that is written down before it leaves.
The report may come over the same association or, at any time, over a new one to our listener; it is kept there, and
acted on here. What nobody reports on in time is asked about anew. What is not found is asked for once more after a
wait, since an archive may show it a moment later, and then sent again. A destination without storage commitment is
asked what it holds in place of that, where it can be.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.delivery.destination import (
    CommitmentRequest,
    CommitsItself,
    Destination,
    TellsWhatItHolds,
)
from app.errors import DeliveryError, DeliveryRefused
from app.identifiers import derive_uid
from app.jobs.commitment_reports import ReportKeeping
from app.jobs.outcomes import ANOTHER_NOT_REACHED, CONTEXT_REFUSED, WITHDRAWN, is_of_peer, was_reached
from app.jobs.queue import GROUND, TaskQueue, back_off_seconds
from app.jobs.records import Commitment, CommittingObject, Connection, DeliveryState, Job, KeptReport, Records, Turn
from app.settings import DestinationSettings, Settings
from app.telemetry import get_logger

_JOBS = 25
_NO_ANSWER = "no-answer"
_PERMANENT = {0x0119: "class-instance conflict", 0x0122: "SOP class not supported"}
"""Failure Reasons that sending the object again does not mend (PS3.3 section C.14)."""
_TAKES_NO_REQUESTS = frozenset({CONTEXT_REFUSED, "status-0118", "status-0122", "status-0123", "status-0211"})
"""The destination has no storage commitment: it accepts no context for it, or knows no such SOP class or action."""
NOT_COMMITTED = "commitment-missing"
NOT_FOUND = "commitment-not-found"

_log = get_logger(__name__)


class Committing:
    """Asks for commitments and acts on reports. Its parameters are those of `app.jobs.workflow.Workflow`."""

    def __init__(
        self,
        *,
        settings: Settings,
        records: Records,
        audit: AuditLog,
        queue: TaskQueue,
        destinations: Mapping[str, Destination],
    ) -> None:
        self._settings = settings
        self._records = records
        self._audit = audit
        self._queue = queue
        self._destinations = destinations
        self._reports = ReportKeeping(records, queue)
        self._without_commitment: set[str] = set()
        self._not_looked_before: dict[str, float] = {}
        """By destination, when its query service, which was not reached, is asked again before a request."""

    def ask(self, turn: Turn, answers: Callable[[Turn], Turn]) -> tuple[Turn, bool]:
        """Ask a destination for what it is due to commit itself to; the turn, and whether there was anything.

        Parameters
        ----------
        answers
            Records that the destination answers.

        Raises
        ------
        DeliveryError
            If it was found down by it.
        """
        jobs = self._records.due_commitments(turn.destination, _JOBS)
        for job_id in jobs:
            if self._puts_off(turn.destination):
                break
            self._ask_about(job_id, turn.destination)
            turn = answers(turn)
        return turn, bool(jobs)

    def report(self, transaction_uid: str) -> None:
        """Act on the reports that were kept on a request."""
        with self._records.transaction() as connection:
            for report in self._records.lock_reports(connection, transaction_uid):
                self._apply(connection, report)
                self._records.applied_report(connection, report)

    def _puts_off(self, destination: str) -> bool:
        """Put all that is due off where another application entity, which has to be asked about it, is not reached."""
        rules = self._rules(destination)
        if rules is None or rules.commitment != "query" and destination not in self._without_commitment:
            return False
        with self._records.transaction() as connection:
            return self._records.put_off_commitments(connection, destination, ANOTHER_NOT_REACHED)

    def _ask_about(self, job_id: uuid.UUID, destination: str) -> None:
        rules = self._rules(destination)
        job = self._records.job(job_id)
        if job is None:
            return
        request = Commitment(derive_uid("commitment", str(uuid.uuid4())), job_id, destination)
        left = self._begin_round(job, rules, request)
        if rules is not None and left and rules.commitment == "query":
            self._query(job, rules, left)
        elif rules is not None and left:
            self._request(job, rules, left, request)

    def _begin_round(self, job: Job, rules: DestinationSettings | None, request: Commitment) -> list[CommittingObject]:
        """Count one more question about what is due to be asked about; return what is left to ask about."""
        with self._records.transaction() as connection:
            self._records.lock_job(connection, job.id)  # first, as whoever acts on a report does
            objects = self._records.begin_round(connection, job.id, request.destination)
            if rules is None or rules.commitment == "none":  # changed since
                left = []
                for one in objects:
                    self._end(connection, job, request.destination, one.digest, "delivered")
            else:
                left = [one for one in objects if one.commitment_rounds <= rules.commitment_rounds]
                reason = f"no commitment came after {rules.commitment_rounds} questions"
                for one in objects:
                    if one not in left:
                        self._end(connection, job, rules.name, one.digest, "failed", NOT_COMMITTED, reason)
                if left and rules.commitment == "storage-commitment":
                    self._records.keep_commitment(connection, request, left)
            if objects and not left:
                self._close_if_done(connection, job)
        return left

    def _request(
        self, job: Job, rules: DestinationSettings, objects: Sequence[CommittingObject], request: Commitment
    ) -> None:
        """Send the N-ACTION. What was asked about in vain before is looked for first, and sent again if missing."""
        target = self._destinations[rules.name]
        if any(one.commitment_rounds > 1 for one in objects):
            objects = self._still_held(job, rules, target, objects)
        if not objects:
            return
        detail = {"job_id": str(job.id), "destination": rules.name, "transaction_uid": request.transaction_uid}
        self._about_to_ask(AuditEvent.COMMITMENT_REQUESTED, job, rules, objects, instances=len(objects), **detail)
        pairs = tuple((one.sop_class_uid, one.sop_instance_uid) for one in objects)
        try:
            self._send_request(target, CommitmentRequest(request.transaction_uid, pairs), rules.name)
        except DeliveryRefused as error:
            if error.code in _TAKES_NO_REQUESTS and _can_be_asked(target):
                self._query_instead(job, rules, objects)
            else:
                self._end_all(job, rules.name, objects, "failed", f"commitment-{error.code}", str(error))
        except DeliveryError as error:
            self._ask_later(job, rules, objects, error)
        else:
            self._await(job.id, rules, objects)

    def _query_instead(self, job: Job, rules: DestinationSettings, objects: Sequence[CommittingObject]) -> None:
        """Ask a destination without storage commitment what it has; that it lacks it is told once a process."""
        if rules.name not in self._without_commitment:
            self._without_commitment.add(rules.name)
            _log.warning("commitment.by_query", destination=rules.name)
        self._query(
            job, rules, objects, "it takes no requests for storage commitment; it was asked what it has instead"
        )

    def _send_request(self, target: Destination, request: CommitmentRequest, name: str) -> None:
        if not isinstance(target, CommitsItself):
            raise DeliveryRefused("its protocol has no storage commitment", code="unsupported")
        target.request_commitment(request, lambda one: self._reports.keep(one, [name]))

    def _await(self, job_id: uuid.UUID, rules: DestinationSettings, objects: Sequence[CommittingObject]) -> None:
        """Wait for the report, which may be there already, and ask again where none comes in time."""
        with self._records.transaction() as connection:
            until = self._records.ask_again(connection, job_id, rules.name, objects, rules.commitment_seconds)
            if until is not None:
                self._queue.defer_turn(connection, rules.name, until)

    def _query(self, job: Job, rules: DestinationSettings, objects: Sequence[CommittingObject], why: str = "") -> None:
        target, left = self._destinations[rules.name], list(objects)
        try:
            while left:
                if self._holds(job, rules, target, left[0], left):
                    self._end_all(job, rules.name, [left.pop(0)], "committed", reason=why)
                else:
                    self._missing(job, rules, left.pop(0))
        except DeliveryRefused as error:
            self._end_all(job, rules.name, left, "failed", f"commitment-{error.code}", str(error))
        except DeliveryError as error:
            self._ask_later(job, rules, left, error)

    def _still_held(
        self, job: Job, rules: DestinationSettings, target: Destination, objects: Sequence[CommittingObject]
    ) -> list[CommittingObject]:
        left: list[CommittingObject] = []
        if time.monotonic() < self._not_looked_before.get(rules.name, 0.0):
            return list(objects)
        for number, one in enumerate(objects):
            rest = [*left, *objects[number:]]  # what was missing waits already, by itself
            try:
                held = self._holds(job, rules, target, one, rest)
            except DeliveryError as error:
                _log.info("commitment.not_told", job_id=str(job.id), destination=rules.name, code=error.code)
                if is_of_peer(error):
                    self._ask_later(job, rules, rest, error)
                elif not was_reached(error):
                    self._not_looked_before[rules.name] = time.monotonic() + rules.retry_longest_seconds
                return rest
            if not held:
                self._missing(job, rules, one)
            else:
                left.append(one)
        return left

    def _holds(
        self,
        job: Job,
        rules: DestinationSettings,
        target: Destination,
        one: CommittingObject,
        left: Sequence[CommittingObject],
    ) -> bool:
        """Whether an object is found; `left` are it and what else is still to be asked about in this round."""
        if not _can_be_asked(target):
            raise DeliveryRefused("there is no way to ask it what it holds", code="query-unsupported")
        self._about_to_ask(AuditEvent.DESTINATION_ASKED, job, rules, left, **_detail(job, rules.name, one.digest))
        return target.holds(job.study_instance_uid, one.series_instance_uid, one.sop_instance_uid)

    def _about_to_ask(
        self,
        event: AuditEvent,
        job: Job,
        rules: DestinationSettings,
        left: Sequence[CommittingObject],
        **detail: Any,
    ) -> None:
        """Write the audit line of a question; where that can't be, it does not leave, and is no round."""
        try:
            self._audit.append(event, Outcome.SUCCESS, **detail)
        except GROUND:
            with self._records.transaction() as connection:
                self._records.take_back_round(connection, job.id, rules.name, left)
            raise

    def _ask_later(
        self, job: Job, rules: DestinationSettings, objects: Sequence[CommittingObject], error: DeliveryError
    ) -> None:
        """Have the question asked again. One that may have arrived counts, and its report is waited for.

        Another application entity that is asked in the destination's place has no window: where it is not reached the
        longest wait, in which it is not asked about anything else either, keeps its outage from taking the turns of
        what is to be sent.
        """
        is_of, reached = is_of_peer(error), was_reached(error)
        counts = reached if not is_of else error.code == _NO_ANSWER
        rounds = max(one.commitment_rounds for one in objects)
        wait = _back_off(rules, rounds)
        wait = 0.0 if is_of else wait if reached else rules.retry_longest_seconds
        with self._records.transaction() as connection:
            said = {"code": error.code, "reason": str(error)}
            at = self._records.ask_again(connection, job.id, rules.name, objects, wait, counts=counts, **said)
            if at is not None and not is_of:
                self._queue.defer_turn(connection, rules.name, at)
        if is_of:
            raise error

    def _apply(self, connection: Connection, report: KeptReport) -> None:
        """Act on one report. What an older request missed is left to the newest one; what it found is good news."""
        job = self._records.job(report.job_id)
        rules = self._rules(report.destination)
        if job is None or rules is None:
            return
        self._records.lock_job(connection, job.id)
        objects = self._records.reported_objects(connection, report)
        for uid in report.committed:
            if uid in objects:
                self._end(connection, job, report.destination, objects[uid][0], "committed")
        for uid, why in report.refused if report.is_latest else ():
            if uid in objects:
                digest, rounds = objects[uid]
                self._refused(connection, job, rules, digest, rounds, why)
        self._close_if_done(connection, job)

    def _refused(
        self, connection: Connection, job: Job, rules: DestinationSettings, digest: str, rounds: int, why: int
    ) -> None:
        meaning = _PERMANENT.get(why, "")
        code = f"commitment-{why:04x}"
        reason = f"the destination does not commit itself to it (Failure Reason 0x{why:04X}{meaning and ', '}{meaning})"
        if meaning or rounds >= rules.commitment_rounds:
            self._end(connection, job, rules.name, digest, "failed", code, reason)
        else:
            wait = _back_off(rules, rounds)
            self._end(connection, job, rules.name, digest, "waiting", code, f"{reason}; it is sent again", wait)

    def _missing(self, job: Job, rules: DestinationSettings, one: CommittingObject) -> None:
        """Have an object that its destination does not find asked for once more after a wait, and then sent again."""
        if one.code == NOT_FOUND or not self._ask_once_more(job, rules, one):
            state: DeliveryState = "waiting" if one.commitment_rounds < rules.commitment_rounds else "failed"
            self._end_all(job, rules.name, [one], state, NOT_FOUND, "the destination does not find it")

    def _ask_once_more(self, job: Job, rules: DestinationSettings, one: CommittingObject) -> bool:
        """Have an object asked for again in the same round; False, and nothing happens, if it was withdrawn."""
        wait, reason = _back_off(rules, one.commitment_rounds), "the destination does not find it; it is asked again"
        with self._records.transaction() as connection:
            self._records.lock_job(connection, job.id)
            if self._records.is_withdrawn(connection, job.id, one.digest, rules.name):
                return False
            at = self._records.ask_again(
                connection, job.id, rules.name, [one], wait, counts=False, code=NOT_FOUND, reason=reason
            )
            if at is not None:
                self._queue.defer_turn(connection, rules.name, at)
        _log.info("commitment.not_found", job_id=str(job.id), destination=rules.name)
        return True

    def _end_all(
        self,
        job: Job,
        destination: str,
        objects: Sequence[CommittingObject],
        state: DeliveryState,
        code: str = "",
        reason: str = "",
    ) -> None:
        with self._records.transaction() as connection:
            self._records.lock_job(connection, job.id)
            for one in objects:
                self._end(connection, job, destination, one.digest, state, code, reason)
            self._close_if_done(connection, job)

    def _end(
        self,
        connection: Connection,
        job: Job,
        destination: str,
        digest: str,
        state: DeliveryState,
        code: str = "",
        reason: str = "",
        wait: float = 0.0,
    ) -> None:
        """End the wait for an object's commitment; `wait` is the time until it is sent again."""
        detail = _detail(job, destination, digest)
        if state in ("waiting", "failed") and self._records.is_withdrawn(connection, job.id, digest, destination):
            state, code, reason = "delivered", WITHDRAWN, "it was withdrawn, and need not be found any more"
        if state == "committed":
            why = {"reason": reason} if reason else {}
            self._audit.append(AuditEvent.COMMITMENT_RECEIVED, Outcome.SUCCESS, **detail, **why)
        elif state != "delivered":
            outcome = Outcome.MINOR_FAILURE if state == "waiting" else Outcome.SERIOUS_FAILURE
            self._audit.append(AuditEvent.COMMITMENT_FAILED, outcome, **detail, code=code, reason=reason)
        _log.info("commitment.ended", job_id=str(job.id), destination=destination, state=state, code=code)
        if state != "waiting":
            self._records.end_commitment(connection, job.id, digest, destination, state, code, reason)
            return
        at = self._records.send_again(connection, job.id, digest, destination, wait, code, reason)
        if at is not None:
            self._queue.defer_deliver(connection, job, digest, destination, at)

    def _close_if_done(self, connection: Connection, job: Job) -> None:
        if not self._records.has_open_deliveries(connection, job.id):
            self._queue.defer_close(connection, job.id)

    def _rules(self, destination: str) -> DestinationSettings | None:
        known = self._settings.knows_destination(destination)
        return self._settings.destination_named(destination) if known else None


def _can_be_asked(target: Destination) -> TypeGuard[TellsWhatItHolds]:
    return isinstance(target, TellsWhatItHolds) and target.can_be_asked


def _back_off(rules: DestinationSettings, rounds: int) -> float:
    return back_off_seconds(rounds, rules.retry_first_seconds, rules.retry_longest_seconds)


def _detail(job: Job, destination: str, digest: str) -> dict[str, str]:
    uids = {one.digest: one.sop_instance_uid for one in job.results}
    return {
        "job_id": str(job.id),
        "study_instance_uid": job.study_instance_uid,
        "sop_instance_uid": uids[digest],
        "object_digest": digest,
        "destination": destination,
    }
