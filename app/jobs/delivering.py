"""What waits for a destination is sent to it, in turns: one sender at a time, one attempt a window where it is down.

A task only says that something waits. Whoever gets the turn sends everything that is due, urgent jobs first, several
objects over one association. A destination that can't be reached, lets nobody in, breaks off or has no room closes its
window: nobody connects to it before the window's end, when one task takes the turn and tries. What waits is not tried
meanwhile, and does not count attempts. What a destination says about one object is that object's matter alone.

Whether a failure is the object's or the destination's the answer often does not tell: HTTP 500, no room and a broken
connection are both. What the destination did before tells. A failure right after it took another object is the
object's, which gets a back-off of its own; so is that of an object that failed often, at the begin of a turn at a
destination that answered last. Any other closes the window, also a second one in a row: an outage costs two attempts.
And where nothing was taken just before, as at the begin of a turn, the object that was tried least goes first, then
what is urgent. So no object starves others: each attempt that closes the window counts for its object and moves it
behind those that were tried less, until one of these is taken and opens the window for all. An urgent object waits for
one other at most when an outage ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.delivery.destination import SLOWEST_BYTES_PER_SECOND, Destination, Send, opened
from app.errors import DeliveryError, JobError
from app.jobs.asking import Asking
from app.jobs.committing import Committing
from app.jobs.forms import Forms
from app.jobs.host_faults import check_mounted, host_faults_waited_for
from app.jobs.outcomes import INTERNAL_ERROR, Outcomes, SentObject, is_of_peer, was_reached
from app.jobs.queue import GROUND, TaskQueue, back_off_seconds
from app.jobs.records import DueDelivery, Records, Sending, Turn
from app.jobs.result_files import ResultFiles
from app.jobs.turn_keeping import Overtaken, TurnKeeper, kept
from app.settings import Settings
from app.telemetry import get_logger
from operators.object_kinds import Kind

NOTE: Kind = "rejection-note"
"""Of what is superseded, it says that it is."""
_OVER_ONE_ASSOCIATION = 25
"""Objects; what is urgent and comes meanwhile waits for so many at most."""
_OFTEN = 3
"""Tries: an object that failed so often while the destination answers is told from one that met an outage."""
_TURN_SECONDS = 10.0
"""A turn that takes longer is handed to a task of its own, so that a server that stops need not wait for all."""
_LEASE_TIMEOUTS = 4
"""A holder that said nothing for so many of the destination's timeouts is gone (`app.jobs.turn_keeping`)."""
_LEASE_LEAST_SECONDS = 60.0

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
        result_files: ResultFiles,
    ) -> None:
        self._settings = settings
        self._records = records
        self._audit = audit
        self._queue = queue
        self._destinations = destinations
        self._result_files = result_files
        self._outcomes = Outcomes(settings=settings, records=records, audit=audit, queue=queue,
                                  destinations=destinations, forms=forms)  # fmt: skip
        self._asking = Asking(records=records, audit=audit, destinations=destinations, outcomes=self._outcomes)
        self._committing = Committing(settings=settings, records=records, audit=audit, queue=queue,
                                      destinations=destinations)  # fmt: skip

    def run(self, destination: str, holder: str) -> None:
        """Take the turn to send to a destination, if it can be had, and send what is due.

        Parameters
        ----------
        holder
            The task; when it is repeated after its worker's death it takes its own turn over.
        """
        known = self._settings.knows_destination(destination)
        rules = self._settings.destination_named(destination) if known else None
        lease = max(_LEASE_LEAST_SECONDS, _LEASE_TIMEOUTS * rules.timeout_seconds if rules is not None else 0)
        turn = self._records.take_turn(destination, rules.address if rules is not None else "", holder, lease)
        if turn is None:
            return  # whoever has it sends everything; or a task waits for the window's end
        try:
            with kept(self._records, turn) as keep:
                self._serve(turn, keep)
        except Overtaken:
            _log.warning("destination.overtaken", destination=destination)
        except GROUND:
            raise
        except DeliveryError as error:
            self._close_window(turn, error)
        except Exception as error:  # noqa: BLE001 - a peer's border: a defect is a failed attempt
            _log.error("destination.defect", destination=destination, exc_info=True)
            reason = f"an unexpected {type(error).__name__}; the diagnostic log tells where"
            self._close_window(turn, DeliveryError(reason, code=INTERNAL_ERROR))

    def report(self, transaction_uid: str) -> None:
        """Act on what a destination reported (`Committing.report`)."""
        self._committing.report(transaction_uid)

    def attend(self) -> None:
        """Give a task to each destination that something waits for and nobody attends to."""
        for destination in self._records.destinations_in_want():
            _log.warning("destination.unattended", destination=destination)
            with self._records.transaction() as connection:
                self._queue.defer_turn(connection, destination)

    def _serve(self, turn: Turn, keep: TurnKeeper) -> None:
        """Send and ask until nothing is due; DeliveryError if the destination is found down."""
        ends, has_told, last = time.monotonic() + _TURN_SECONDS, False, None
        while time.monotonic() < ends and not self._records.is_destination_paused(turn.destination):
            keep(turn.lease_seconds)
            due = self._records.due_deliveries(turn.destination, _OVER_ONE_ASSOCIATION, has_taken=last is True)
            asked = [one.sending for one in due if one.is_asked]
            if asked:  # an answer does not open the window: one that tells and takes nothing is down
                has_told = self._asking.settle(asked, partial(keep, turn.lease_seconds)) or has_told
            elif due:
                turn, last = self._send(turn, keep, due, ends, last)
            else:
                turn = self._answers(turn) if has_told else turn
                turn, has_asked = self._committing.ask(turn, partial(self._answers, keep=keep))
                if not has_asked and self._gave_up(turn):
                    return
        with self._records.transaction() as connection:
            if self._records.lock_turn(connection, turn):
                self._records.give_up_turn(connection, turn)
                self._queue.defer_turn(connection, turn.destination)

    def _send(
        self, turn: Turn, keep: TurnKeeper, due: Sequence[DueDelivery], ends: float, last: bool | None
    ) -> tuple[Turn, bool | None]:
        """Send objects over one association, until the turn's time is over or the destination fails at one of them.

        Returns the turn, and `last`: whether the destination took what it was sent last; None if it was sent nothing in
        this turn, or only what it refused for good.
        """
        files = [self._file_of(one.sending, one.path) for one in due]
        with self._opened(turn.destination, files) as send:
            for one, file in zip(due, files, strict=True):
                keep(turn.lease_seconds + _longest_seconds(file))
                before, last = last, self._send_one(turn, one.sending, send, last)
                turn = self._answers(turn)
                if last is False and before is not False or time.monotonic() > ends:
                    break
        return turn, last

    def _send_one(self, turn: Turn, sending: Sending, send: Send, last: bool | None) -> bool | None:
        """Send one object and record its outcome; DeliveryError if the destination was found down by it.

        Returns `last` of `_send` as it is after this one.
        """
        one = self._outcomes.begin(sending)
        if one is None:
            return last  # it has ended meanwhile
        if one.begun.is_withdrawn:
            self._outcomes.withdrawn(one)
            return last
        if one.job.superseded_by is not None and one.kind != NOTE:  # it was being sent then, and that failed
            self._outcomes.withheld(one, one.job.superseded_by)
            return last
        if self._outcomes.gave_up(one):
            return last
        try:
            self._check_known(sending.destination)
            path = _unchanged(self._file_of(sending, one.begun.path), sending.digest)
            self._audit.append(AuditEvent.DELIVERY_BEGAN, Outcome.SUCCESS, attempt=one.begun.attempts, **one.detail)
            send(path)
        except GROUND:  # of the storage or the audit log, before anything was sent
            self._outcomes.not_tried(one)
            raise
        except (DeliveryError, JobError) as error:
            is_down = is_of_peer(error) and not (was_reached(error) and _is_of_the_object(turn, one, last))
            if not self._outcomes.replaced(one, error):
                self._outcomes.failed(one, error, is_down=is_down)
            if is_down:
                raise
            return False if is_of_peer(error) else last
        except Exception as error:  # noqa: BLE001 - the workflow's border: a defect is a failed attempt
            _log.error("delivery.defect", job_id=str(one.job.id), exc_info=True)
            reason = f"an unexpected {type(error).__name__}; the diagnostic log tells where"
            self._outcomes.failed(one, DeliveryError(reason, code=INTERNAL_ERROR))
            return last
        self._outcomes.delivered(one)
        return True

    def _file_of(self, sending: Sending, path: str) -> Path:
        with host_faults_waited_for():
            file = self._result_files.file_of(sending.job_id, sending.digest, Path(path))
            if not file.is_file():
                check_mounted(self._result_files.folder)
        return file

    def _check_known(self, destination: str) -> None:
        if destination not in self._destinations:
            raise JobError(f"the settings name no destination '{destination}' any more", code="destination-unknown")

    def _opened(self, destination: str, paths: Sequence[Path]) -> AbstractContextManager[Send]:
        target = self._destinations.get(destination)
        if target is None:  # never sent to: that is said of each object
            return nullcontext(lambda path: None)
        return opened(target, paths)

    def _answers(self, turn: Turn, keep: TurnKeeper | None = None) -> Turn:
        """Open the window of a destination that was down, now that it answers; the turn goes on by it."""
        if keep is not None:
            keep(turn.lease_seconds)
        if not turn.failures:
            return turn
        self._audit.append(AuditEvent.DESTINATION_BACK, Outcome.SUCCESS, destination=turn.destination)
        self._records.open_window(turn)
        _log.info("destination.back", destination=turn.destination, failures=turn.failures)
        return turn._replace(failures=0)

    def _close_window(self, turn: Turn, error: DeliveryError) -> None:
        """Record that the destination is down, with the one task that tries again at the window's end."""
        rules = self._settings.destination_named(turn.destination)
        wait = back_off_seconds(turn.failures + 1, rules.retry_first_seconds, rules.retry_longest_seconds)
        wait = max(wait, error.retry_after_seconds or 0.0)
        if not turn.failures:
            self._audit.append(
                AuditEvent.DESTINATION_DOWN,
                Outcome.MINOR_FAILURE,
                destination=turn.destination,
                code=error.code,
                reason=str(error),
            )
        _log.warning("destination.down", destination=turn.destination, code=error.code, failures=turn.failures + 1)
        with self._records.transaction() as connection:
            at = self._records.close_window(connection, turn, error.code, str(error), wait)
            if at is not None:
                self._queue.defer_turn(connection, turn.destination, at)

    def _gave_up(self, turn: Turn) -> bool:
        """End the turn, unless something came to wait since."""
        with self._records.transaction() as connection:
            if not self._records.lock_turn(connection, turn):
                return True
            if self._records.something_due(connection, turn.destination):
                return False
            self._records.give_up_turn(connection, turn)
            return True


def _is_of_the_object(turn: Turn, one: SentObject, last: bool | None) -> bool:
    """Whether a failure of which nobody knows whose it is is the object's, by what the destination did before."""
    return last is True or last is None and not turn.failures and one.delivery.tries > _OFTEN


def _longest_seconds(file: Path) -> float:
    """How much longer than a small object a file may take to send: who is slower is broken off."""
    try:
        return file.stat().st_size / SLOWEST_BYTES_PER_SECOND
    except OSError:  # said when it is sent
        return 0.0


def _unchanged(path: Path, digest: str) -> Path:
    """Return the result's file if it is still what was verified."""
    found = hashlib.sha256()
    with host_faults_waited_for(), contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    if found.hexdigest() != digest:
        raise JobError("the result's file is gone or not what was verified", code="result-changed")
    return path
