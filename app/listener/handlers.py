"""C-STORE and C-ECHO: keep the bytes, write the ledger, answer. Nothing slow or clever happens here.

The order is what makes an acknowledgement worth something: the file is on disk and synced, the audit log says that the
study's transfer began, the ledger has committed the instance, and only then the peer reads 0x0000.

======  ==============================================================  ========================================
Status  When                                                            What the sender should do
======  ==============================================================  ========================================
0000    kept, synced, in the ledger; or known already                   nothing
A700    the disk is below its watermark, or ledger or audit log fail    send it again later
A900    SOP Class or Instance UID differ from the command's             mend the object
C000    unreadable, truncated, or without study and series              mend the object; it is in quarantine
0117    the command's SOP Instance UID is malformed                     mend the object
0122    the SOP class is not the presentation context's                 propose it
0124    the association was not admitted                                ask for access
0110    an error of ours; the comment names the log entry               report it
======  ==============================================================  ========================================
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from pydicom.dataset import Dataset

from app.audit.events import AuditEvent, Outcome
from app.errors import AuditError, DataSetMismatch, OutOfResources, ReceiveError
from app.identifiers import UID, parse_uid
from app.jobs.records import Instance
from app.listener.inspection import inspect_data_set
from app.listener.sessions import Session, Sessions
from app.listener.spool import Spool, encode_file_meta

if TYPE_CHECKING:
    from pynetdicom.events import Event

    from app.audit.log import AuditLog

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
INVALID_OBJECT_INSTANCE = 0x0117
SOP_CLASS_NOT_SUPPORTED = 0x0122
NOT_AUTHORISED = 0x0124
_LONGEST_COMMENT = 64

_log = structlog.get_logger(__name__)


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
    """

    def __init__(self, spool: Spool, record: Callable[[Instance], None], audit: AuditLog, sessions: Sessions) -> None:
        self._spool = spool
        self._record = record
        self._audit = audit
        self._sessions = sessions
        self._running = 0
        self._idle = threading.Condition()

    def echo(self, event: Event) -> int:
        """Answer C-ECHO (PS3.4 section A.4)."""
        return SUCCESS

    def store(self, event: Event) -> int | Dataset:
        """Answer C-STORE (PS3.4 section B.2.3). Never raises: the toolkit would call it 'cannot understand'."""
        with self._idle:
            self._running += 1
        try:
            session = self._sessions.of(event.assoc)
            if session is None or not session.admitted:
                return _status(NOT_AUTHORISED, "not admitted")
            with session.lock:
                return self._store(event, session)
        except Exception:  # noqa: BLE001  # the border of the process: nothing may pass
            return self._bug()
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def wait_idle(self, timeout_seconds: float) -> bool:
        """Wait until no instance is being kept; False if that took longer than allowed."""
        with self._idle:
            return self._idle.wait_for(lambda: self._running == 0, timeout_seconds)

    def _store(self, event: Event, session: Session) -> int | Dataset:
        try:
            sop_class_uid = parse_uid(str(event.request.AffectedSOPClassUID))
            sop_instance_uid = parse_uid(str(event.request.AffectedSOPInstanceUID))
        except ValueError:
            self._audit_refusal(session, INVALID_OBJECT_INSTANCE, "uid-invalid")
            return _status(INVALID_OBJECT_INSTANCE, "uid-invalid")
        if sop_class_uid != event.context.abstract_syntax:
            self._audit_refusal(session, SOP_CLASS_NOT_SUPPORTED, "sop-class-not-negotiated", sop_instance_uid)
            return _status(SOP_CLASS_NOT_SUPPORTED, "sop-class-not-negotiated")
        transfer_syntax_uid = UID(str(event.context.transfer_syntax))
        with event.request.DataSet.getbuffer() as data_set:
            try:
                self._keep(session, sop_class_uid, sop_instance_uid, transfer_syntax_uid, data_set)
            except OutOfResources as error:
                self._audit_shortage(session, error.code)
                return _status(error.dimse_status, error.code)
            except AuditError as error:
                _log.error("instance not acknowledged: the audit log can't be written", code=error.code)
                return _status(OutOfResources.dimse_status, error.code)
            except ReceiveError as error:
                meta = encode_file_meta(sop_class_uid, sop_instance_uid, transfer_syntax_uid)
                digest = self._spool.quarantine(meta, data_set, code=error.code)
                _log.warning("instance refused", code=error.code, reason=str(error), digest=digest)
                self._audit_refusal(session, error.dimse_status, error.code, sop_instance_uid)
                return _status(error.dimse_status, error.code)
        return SUCCESS

    def _keep(
        self,
        session: Session,
        sop_class_uid: UID,
        sop_instance_uid: UID,
        transfer_syntax_uid: UID,
        data_set: memoryview,
    ) -> None:
        header = inspect_data_set(data_set, transfer_syntax_uid)
        if (header.sop_class_uid, header.sop_instance_uid) != (sop_class_uid, sop_instance_uid):
            raise DataSetMismatch("the data set's SOP Class or Instance UID is not the command's; they must agree")
        kept = self._spool.keep(encode_file_meta(sop_class_uid, sop_instance_uid, transfer_syntax_uid), data_set)
        if session.is_new_study(header.study_instance_uid):
            self._audit.append(
                AuditEvent.RECEIVING_BEGAN,
                Outcome.SUCCESS,
                **session.participants(),
                study_instance_uid=header.study_instance_uid,
            )
            session.begin_study(header.study_instance_uid)
        self._record(
            Instance(
                sop_instance_uid=sop_instance_uid,
                sop_class_uid=sop_class_uid,
                transfer_syntax_uid=transfer_syntax_uid,
                series_instance_uid=header.series_instance_uid,
                study_instance_uid=header.study_instance_uid,
                digest=kept.digest,
                size_bytes=kept.size_bytes,
                calling_ae_title=session.calling_ae_title,
                source_host=session.source_host,
            )
        )
        if not kept.path.exists():
            raise OutOfResources(
                "the instance was here already, and retention removed it before its record came back; send it again",
                code="removed-meanwhile",
            )
        session.count(header)

    def _audit_refusal(self, session: Session, status: int, code: str, sop_instance_uid: str = "") -> None:
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

    def _audit_shortage(self, session: Session, code: str) -> None:
        """Write a shortage once an association: one line an instance would take the room that is short."""
        if not session.is_new_shortage(code):
            return
        _log.error("instances are refused for want of resources", code=code)
        event = AuditEvent.STORAGE_BELOW_WATERMARK if code == "storage-below-watermark" else AuditEvent.INSTANCE_REFUSED
        try:
            self._audit.append(event, Outcome.SERIOUS_FAILURE, **session.participants(), code=code)
        except AuditError as error:
            _log.error("a shortage could not be written to the audit log", code=error.code)

    def _bug(self) -> Dataset:
        log_id = uuid.uuid4().hex[:12]
        _log.exception("an instance was not kept because of an error in the listener", log_id=log_id)
        return _status(PROCESSING_FAILURE, f"see log entry {log_id}")


def _status(status: int, comment: str) -> Dataset:
    """Return a response's status with an Error Comment (PS3.7 section C.4)."""
    response = Dataset()
    response.Status = status
    response.ErrorComment = comment[:_LONGEST_COMMENT]
    return response
