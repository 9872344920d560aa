"""Results that are withdrawn after destinations got them: what waits is cancelled, and a rejection note says the rest.

The note is a result of its job like others: a file with its digest, read back, with deliveries of its own that are
repeated. The job keeps its state. The command line only puts the wish into the queue: the audit log has one writer.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pydicom

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.delivery.destination import Destination
from app.errors import JobError, LimnerError, StorageError, VerificationFailed
from app.identifiers import UID
from app.jobs.auditing import audit_job
from app.jobs.host_faults import host_faults_waited_for, is_of_the_host
from app.jobs.probing import keep_accepted
from app.jobs.queue import SYSTEM_QUEUE, WITHDRAW, TaskQueue
from app.jobs.readback.rejection_note import check_rejection_note
from app.jobs.records import Connection, Delivery, Job, Records, Result, Sending, Withdrawal
from app.jobs.result_files import ResultFiles
from app.settings import Settings
from app.telemetry import get_logger
from operators.errors import OperatorError
from operators.headers import read_before_pixels, without_unread
from operators.object_kinds import Kind
from operators.parse_errors import PARSE_ERRORS
from operators.rejection_reasons import SENTENCES, RejectionReason

NOTE: Kind = "rejection-note"
BY_RULE = "on_superseded"
"""In the place of a person: the destination's setting decided."""
_HAS = frozenset({"delivered", "committing", "committed", "sending"})
"""States of deliveries whose object the destination has, or will have."""
_OPEN = frozenset({"waiting", "sending"})
_REPEATED = frozenset({"failed", "cancelled"})
"""States of deliveries that a replay begins anew."""

_log = get_logger(__name__)


@dataclass(frozen=True)
class Order:
    """That results are to be withdrawn."""

    reason: RejectionReason
    person: str
    at: datetime
    destination: str = ""
    """The only one from which; empty for all that got them."""


class Withdrawing:
    """Carries it out. Its parameters are those of `app.jobs.workflow.Workflow`."""

    def __init__(
        self,
        *,
        settings: Settings,
        records: Records,
        audit: AuditLog,
        queue: TaskQueue,
        destinations: Mapping[str, Destination],
        result_files: ResultFiles,
    ) -> None:
        self._settings = settings
        self._records = records
        self._audit = audit
        self._queue = queue
        self._destinations = destinations
        self._result_files = result_files

    def run(self, job_id: uuid.UUID, order: Order) -> None:
        """Withdraw a job's results; nothing happens where that was done before."""
        job = self._records.job(job_id)
        if job is None:
            return
        self._ask_again(job, order)
        with self._records.transaction() as connection:
            if not self._records.lock_job(connection, job_id):
                return
            job = self._records.job(job_id)
            assert job is not None  # noqa: S101 - it was locked just now
            before = {one.destination for one in self._records.withdrawals(job_id)}
            notes = {one.sop_instance_uid: one for one in job.results if one.kind == NOTE}
            for destination in _destinations(job, order):
                if destination not in before:
                    self._withdraw(connection, job, destination, order, notes)
            if job.state == "delivering" and self._records.is_delivered(connection, job_id):
                self._queue.defer_close(connection, job_id)
        _log.info("job.withdrawn", job_id=str(job_id), reason=order.reason)

    def withdraw_earlier(self, job_id: uuid.UUID) -> None:
        """Have what was delivered of the jobs that a job took the place of withdrawn, where the settings want that.

        To be called when all that the job made is delivered.
        """
        for earlier in sorted({one.job_id for one in self._records.replaced_objects([job_id])}):
            job = self._records.job(earlier)
            if job is not None:
                with self._records.transaction() as connection:
                    self.withdraw_superseded(connection, job)

    def withdraw_superseded(self, connection: Connection, job: Job) -> list[str]:
        """Have what a superseded job delivered withdrawn where the settings want that; return from where.

        What was withdrawn before is not withdrawn again.
        """
        wanting = [
            name
            for name in sorted({one.destination for one in job.deliveries if _may_have(one)})
            if self._settings.knows_destination(name)
            and self._settings.destination_named(name).on_superseded == "withdraw"
        ]
        for name in wanting:
            _defer(connection, self._queue, job.id, Order("superseded", BY_RULE, datetime.now(UTC), name))
        return wanting

    def _ask_again(self, job: Job, order: Order) -> None:
        """Ask destinations that are said to take no notes: what they said may be older than notes are.

        One that is down is not asked: only whoever has its turn connects to it.
        """
        for name in _destinations(job, order):
            if name not in self._destinations or self._takes_notes(name):
                continue
            if not self._records.is_closed(name, self._settings.destination_named(name).address):
                keep_accepted(self._records, self._settings, self._destinations[name])

    def _takes_notes(self, name: str) -> bool:
        """Whether a destination takes notes, as far as that is known."""
        profile = self._records.profiles().get(name)
        is_known = profile is not None and profile.address == self._settings.destination_named(name).address
        return profile is None or not is_known or NOTE in profile.accepted

    def _withdraw(
        self, connection: Connection, job: Job, destination: str, order: Order, notes: dict[UID, Result]
    ) -> None:
        theirs = objects_at(job, destination)
        note, code, message = self._note(job, destination, theirs, order, notes)
        decided_by = {"rule": job.rule} if order.person == BY_RULE else {"person": order.person}
        audit_job(
            self._audit,
            AuditEvent.RESULTS_WITHDRAWN,
            job,
            Outcome.MINOR_FAILURE if code else Outcome.SUCCESS,
            destination=destination,
            code=order.reason,
            reason=message or SENTENCES[order.reason],
            instances=len(theirs),
            **decided_by,
            **({"object_digest": note.digest} if note else {}),
        )
        self._records.cancel_deliveries(connection, job.id, destination, SENTENCES[order.reason])
        if note is not None and note.sop_instance_uid not in notes:
            self._records.add_results(connection, [note], [])
            notes[note.sop_instance_uid] = note
        digest = "" if note is None else note.digest
        self._records.add_withdrawal(
            connection,
            Withdrawal(job.id, destination, order.reason, order.person, order.at, len(theirs), digest, code, message),
        )
        if note is not None:
            self._records.add_results(connection, [], [Sending(job.id, note.digest, destination)])
            self._queue.defer_deliver(connection, job, note.digest, destination)

    def _note(
        self, job: Job, destination: str, theirs: Sequence[Result], order: Order, notes: Mapping[UID, Result]
    ) -> tuple[Result | None, str, str]:
        """The note for a destination; else the code and the sentence that say why there is none."""
        if not theirs:
            return None, "", "nothing had been sent there"
        if destination not in self._destinations:
            return None, "destination-unknown", f"the settings name no destination '{destination}' any more; {BY_HAND}"
        if not self._takes_notes(destination):
            return None, "note-not-taken", f"it takes no Key Object Selection Documents; {BY_HAND}"
        try:
            with host_faults_waited_for():
                return self._written(job, theirs, order, notes), "", ""
        except StorageError:
            raise  # the task is repeated, and writes it then
        except (LimnerError, OperatorError) as error:
            return None, "note-not-written", f"{error}; {BY_HAND}"
        except Exception as error:  # noqa: BLE001 - headers may be anything; the rest of the withdrawal must happen
            _log.error("note.defect", job_id=str(job.id), error=type(error).__name__)
            return None, "note-not-written", f"an unexpected {type(error).__name__}; {BY_HAND}"

    def _written(self, job: Job, theirs: Sequence[Result], order: Order, notes: Mapping[UID, Result]) -> Result:
        # imported here: few servers ever need it, and it takes half a second
        from operators.results.rejection_note import TITLES, RejectedObject, note_uid, write_rejection_note

        objects = [
            RejectedObject(one.sop_class_uid, one.sop_instance_uid, one.series_instance_uid, one.kind) for one in theirs
        ]
        uid = UID(str(note_uid(job.key, objects, order.reason)))
        if uid in notes:
            return notes[uid]
        header = self._header(theirs)
        folder = self._settings.results_folder / str(job.id) / "withdrawn" / str(uid)
        folder.mkdir(parents=True, exist_ok=True)
        written = write_rejection_note(
            header,
            objects,
            folder / f"{NOTE}.dcm",
            reason=order.reason,
            identity=job.key,
            moment=order.at.astimezone(),
        )
        dataset = pydicom.dcmread(written.path)
        expected = [(one.series_instance_uid, one.sop_class_uid, one.sop_instance_uid) for one in objects]
        check_rejection_note(dataset, header, TITLES[order.reason], expected)
        self._result_files.share(job.id, [(written.digest, written.path)])
        return Result(
            job_id=job.id,
            digest=written.digest,
            attempt=job.attempt,
            path=str(written.path),
            sop_class_uid=UID(written.sop_class_uid),
            sop_instance_uid=uid,
            series_instance_uid=UID(written.series_instance_uid),
            transfer_syntax_uid=UID(str(dataset.file_meta.TransferSyntaxUID)),
            kind=NOTE,
        )

    def _header(self, theirs: Sequence[Result]) -> pydicom.Dataset:
        """The header of one of the objects: whose they are."""
        fault: Exception | None = None
        for one in theirs:
            try:
                path = self._result_files.file_of(one.job_id, one.digest, Path(one.path))
                return without_unread(read_before_pixels(path))
            except (OSError, *PARSE_ERRORS) as error:
                fault = error if is_of_the_host(error) else fault
        if fault is not None:
            raise fault
        raise VerificationFailed("none of the withdrawn objects' files can be read, so that a note belongs to no study")


BY_HAND = "have the objects removed there by hand"


def ask_to_withdraw(records: Records, job_id: uuid.UUID, order: Order) -> list[str]:
    """Put the wish to withdraw a job's results into the queue for the server; return the destinations meant.

    Raises
    ------
    JobError
        ``job-unknown``; ``nothing-to-withdraw``; ``already-withdrawn``.
    """
    job = records.job(job_id)
    if job is None:
        raise JobError(f"there is no job {job_id}; `limner jobs` lists them", code="job-unknown")
    meant = _destinations(job, order)
    if not meant:
        where = f"to {order.destination} " if order.destination else ""
        advice = "; `limner jobs discard` ends it" if job.state == "held" else ""
        raise JobError(
            f"the job is {job.state}, and nothing of it was sent {where}or is about to be{advice}",
            code="nothing-to-withdraw",
        )
    before = {one.destination: one for one in records.withdrawals(job_id)}
    left = [one for one in meant if one not in before]
    if not left:
        said = ", ".join(f"{one} ({before[one].reason}, by {before[one].person})" for one in meant)
        raise JobError(f"the results were withdrawn before from {said}", code="already-withdrawn")
    with records.transaction() as connection:
        _defer(connection, TaskQueue(), job_id, order)
    return left


def objects_at(job: Job, destination: str) -> list[Result]:
    """Return the job's objects that a destination has, or may have, rejection notes aside."""
    theirs = {one.digest for one in job.deliveries if one.destination == destination and _may_have(one)}
    return [one for one in job.results if one.digest in theirs and one.kind != NOTE]


def _destinations(job: Job, order: Order) -> list[str]:
    """The destinations that have something of the job, are about to get it, or would by a replay."""
    kinds = {one.digest: one.kind for one in job.results}
    found = {
        one.destination
        for one in job.deliveries
        if kinds[one.digest] != NOTE and (_may_have(one) or one.state in _OPEN or one.state in _REPEATED)
    }
    return sorted(one for one in found if order.destination in ("", one))


def _may_have(delivery: Delivery) -> bool:
    """Whether its destination has the object, or may have it: also what it took, and did not commit itself to."""
    return delivery.state in _HAS or delivery.is_unknown or delivery.code.startswith("commitment-")


def _defer(connection: Connection, queue: TaskQueue, job_id: uuid.UUID, order: Order) -> None:
    queue.defer(
        connection,
        WITHDRAW,
        SYSTEM_QUEUE,
        job_id=str(job_id),
        reason=order.reason,
        person=order.person,
        destination=order.destination,
        decided_at=order.at.isoformat(),
    )
