"""C-STORE and C-ECHO: keep the bytes, write the ledger, answer. Nothing slow or clever happens here.

The order is what makes an acknowledgement worth something: the file is on disk and synced, the audit log says that the
study's transfer began, the ledger has committed the instance, and only then the peer reads 0x0000.

======  ==============================================================  ========================================
Status  When                                                            What the sender should do
======  ==============================================================  ========================================
0000    kept, synced, in the ledger; or known already                   nothing
A700    the disk is below its watermark, or ledger, audit log or         send it again later
        shared storage fail
A900    SOP Class or Instance UID differ from the command's             mend the object
C000    unreadable, truncated, or without study and series              mend the object; it is in quarantine
C000    longer than an object may be                                    send it in parts; nothing of it is kept
0117    the command's SOP Instance UID is malformed                     mend the object
0122    the SOP class is not the presentation context's                 propose it
0124    the association was not admitted                                ask for access
0110    an error of ours; the comment names the log entry               report it
======  ==============================================================  ========================================
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import structlog
from pydicom.dataset import Dataset

from app.audit.events import AuditEvent, Outcome
from app.errors import AuditError
from app.identifiers import UID
from app.jobs.records import Instance
from app.listener.reception import SUCCESS, Answer, Reception, StoreCommand, bug
from app.listener.sessions import Session, Sessions
from app.listener.spool import Spool
from app.listener.transfers import Transfers

if TYPE_CHECKING:
    from pynetdicom.events import Event

    from app.audit.log import AuditLog

_LONGEST_COMMENT = 64

_log = structlog.get_logger(__name__)


class RecordInstance(Protocol):
    """Commits an instance to the ledger: `app.jobs.records.Records.record_instance`."""

    def __call__(self, instance: Instance, /, *, is_told: bool = False) -> bool:
        """Return whether the audit log is to be told of other content first; then nothing is recorded."""
        ...


class StorageHandlers:
    """The handlers of one listener. Each association calls them in its own thread.

    Parameters
    ----------
    spool
        Where the bytes go.
    record
        Commits an instance to the ledger, also one that it has already. May raise OutOfResources.
    audit
        Where refusals and the begin of transfers are written.
    sessions
        What is known of each association.
    maximum_object_bytes
        Longest data set that is kept.
    transfers
        Told which association brings which series; None where nobody asks.
    """

    def __init__(
        self,
        spool: Spool,
        record: RecordInstance,
        audit: AuditLog,
        sessions: Sessions,
        maximum_object_bytes: int,
        transfers: Transfers | None = None,
    ) -> None:
        self.spool = spool
        self.record = record
        self.maximum_object_bytes = maximum_object_bytes
        self._transfers = transfers
        self._audit = audit
        self._sessions = sessions
        self._running = 0
        self._idle = threading.Condition()

    def echo(self, event: Event) -> int:
        """Answer C-ECHO (PS3.4 section A.4) where the toolkit serves the association."""
        return SUCCESS

    def store(self, event: Event) -> int | Dataset:
        """Answer C-STORE (PS3.4 section B.2.3) where the toolkit serves the association, which has the whole data set.

        Never raises: the toolkit would call it 'cannot understand'.
        """
        try:
            answer = self._store(event)
        except Exception:  # noqa: BLE001  # the border of the process: nothing may pass
            answer = bug()
        return SUCCESS if answer.status == SUCCESS else _status(answer)

    def _store(self, event: Event) -> Answer:
        command = StoreCommand(
            str(event.request.AffectedSOPClassUID),
            str(event.request.AffectedSOPInstanceUID),
            str(event.context.abstract_syntax),
            str(event.context.transfer_syntax),
        )
        reception = self.receive(self._sessions.of(event.assoc), command)
        if event.request.DataSet is not None:
            with event.request.DataSet.getbuffer() as data_set:
                reception.write(data_set)
        return reception.finish()

    def receive(self, session: Session | None, command: StoreCommand) -> Reception:
        """Begin an instance whose bytes come one after the other."""
        return Reception(self, session, command)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count an instance that is being kept, for `wait_idle`."""
        with self._idle:
            self._running += 1
        try:
            yield
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def wait_idle(self, timeout_seconds: float) -> bool:
        """Wait until no instance is being kept; False if that took longer than allowed."""
        with self._idle:
            return self._idle.wait_for(lambda: self._running == 0, timeout_seconds)

    def begin_study(self, session: Session, study_instance_uid: UID) -> None:
        """Write the begin of a study's transfer to the audit log, once an association; AuditError if it can't be."""
        if not session.is_new_study(study_instance_uid):
            return
        self._audit.append(
            AuditEvent.RECEIVING_BEGAN,
            Outcome.SUCCESS,
            **session.participants(),
            study_instance_uid=study_instance_uid,
        )
        session.begin_study(study_instance_uid)

    def begin_series(self, session: Session, study_instance_uid: UID, series_instance_uid: UID) -> None:
        """Record that an association brings a series, before its first instance; OutOfResources if it can't be."""
        if self._transfers is not None:
            self._transfers.begin(session, study_instance_uid, series_instance_uid)

    def audit_change(self, session: Session, instance: Instance) -> None:
        """Write an instance that came with other content than before to the audit log; AuditError if it can't be."""
        self._audit.append(
            AuditEvent.INSTANCE_CHANGED,
            Outcome.SUCCESS,
            **session.participants(),
            study_instance_uid=instance.study_instance_uid,
            sop_instance_uid=instance.sop_instance_uid,
        )

    def audit_refusal(self, session: Session, status: int, code: str, sop_instance_uid: str = "") -> None:
        """Write an instance that is refused to the audit log."""
        try:
            self._audit.append(
                AuditEvent.INSTANCE_REFUSED,
                Outcome.MINOR_FAILURE,
                **session.participants(),
                code=code,
                status=f"0x{status:04X}",
                **({"sop_instance_uid": sop_instance_uid} if sop_instance_uid else {}),
            )
        except AuditError as error:  # it is refused all the same
            _log.error("a refusal could not be written to the audit log", code=error.code)

    def audit_shortage(self, session: Session, code: str) -> None:
        """Write a shortage once an association: one line an instance would take the room that is short."""
        if not session.is_new_shortage(code):
            return
        _log.error("instances are refused for want of resources", code=code)
        event = AuditEvent.STORAGE_BELOW_WATERMARK if code == "storage-below-watermark" else AuditEvent.INSTANCE_REFUSED
        try:
            self._audit.append(event, Outcome.SERIOUS_FAILURE, **session.participants(), code=code)
        except AuditError as error:
            _log.error("a shortage could not be written to the audit log", code=error.code)


def _status(answer: Answer) -> Dataset:
    """Return an answer as the toolkit takes it."""
    response = Dataset()
    response.Status = answer.status
    response.ErrorComment = answer.comment[:_LONGEST_COMMENT]
    return response
