"""One instance on its way from the command that announces it to the response: begun, written, kept or refused."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from app.errors import AuditError, CannotUnderstand, DataSetMismatch, OutOfResources, ReceiveError
from app.identifiers import UID, parse_uid
from app.jobs.records import Instance
from app.listener.incoming import IncomingFile
from app.listener.inspection import Buffer, inspect_data_set
from app.listener.sessions import Session
from app.listener.spool import encode_file_meta

if TYPE_CHECKING:
    from app.listener.handlers import StorageHandlers

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
INVALID_OBJECT_INSTANCE = 0x0117
SOP_CLASS_NOT_SUPPORTED = 0x0122
NOT_AUTHORISED = 0x0124

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class StoreCommand:
    """What a C-STORE-RQ says (PS3.7 section 9.3.1.1), unchecked, and the presentation context it came in."""

    sop_class_uid: str
    sop_instance_uid: str
    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True)
class Answer:
    """The status of a response, with an Error Comment where it is no success (PS3.7 section C.4)."""

    status: int
    comment: str = ""


class Reception:
    """One instance from its command to its response, for one thread. Nothing of it raises.

    Its bytes are written as they come. What is found wrong on the way is told by `finish`, when the whole data set has
    come: a response before would be none that the sender waits for.
    """

    def __init__(self, handlers: StorageHandlers, session: Session | None, command: StoreCommand) -> None:
        self._handlers = handlers
        self._session = session
        self._answer: Answer | None = None
        self._file: IncomingFile | None = None
        self._is_too_long = False
        self.received_bytes = 0
        """Bytes of the data set so far."""
        try:
            self._begin(command)
        except Exception:  # noqa: BLE001  # the border of the process: nothing may pass
            self._answer = bug()

    def write(self, data: Buffer) -> None:
        """Take the next bytes of the data set."""
        self.received_bytes += len(data)
        if self._file is None:
            return
        if self.received_bytes > self._handlers.maximum_object_bytes:
            self._is_too_long = True
            self._drop()
            return
        try:
            self._file.write(data)
        except Exception:  # noqa: BLE001  # the border of the process: nothing may pass
            self._answer = bug()
            self._drop()

    def finish(self) -> Answer:
        """Keep the instance, or don't, and return what to answer."""
        with self._handlers.counted():
            try:
                if self._session is None or self._answer is not None:
                    return self._answer or bug()
                with self._session.lock:
                    return self._finish(self._session)
            except Exception:  # noqa: BLE001  # the border of the process: nothing may pass
                return bug()
            finally:
                self._drop()

    def abandon(self) -> None:
        """Forget the instance: its association ended before its last byte."""
        self._drop()

    def _begin(self, command: StoreCommand) -> None:
        session = self._session
        if session is None or not session.admitted:
            self._answer = Answer(NOT_AUTHORISED, "not admitted")
            return
        try:
            self._sop_class_uid = parse_uid(command.sop_class_uid)
            self._sop_instance_uid = parse_uid(command.sop_instance_uid)
        except ValueError:
            self._handlers.audit_refusal(session, INVALID_OBJECT_INSTANCE, "uid-invalid")
            self._answer = Answer(INVALID_OBJECT_INSTANCE, "uid-invalid")
            return
        if self._sop_class_uid != command.abstract_syntax:
            code = "sop-class-not-negotiated"
            self._handlers.audit_refusal(session, SOP_CLASS_NOT_SUPPORTED, code, self._sop_instance_uid)
            self._answer = Answer(SOP_CLASS_NOT_SUPPORTED, code)
            return
        self._transfer_syntax_uid = UID(command.transfer_syntax)
        head = encode_file_meta(self._sop_class_uid, self._sop_instance_uid, self._transfer_syntax_uid)
        self._file = self._handlers.spool.receive(head)

    def _finish(self, session: Session) -> Answer:
        handlers = self._handlers
        try:
            self._keep(session)
        except OutOfResources as error:
            handlers.audit_shortage(session, error.code)
            return Answer(error.dimse_status, error.code)
        except AuditError as error:
            _log.error("instance not acknowledged: the audit log can't be written", code=error.code)
            return Answer(OutOfResources.dimse_status, error.code)
        except ReceiveError as error:
            digest = self._file.refuse(error.code) if self._file is not None else ""
            _log.warning("instance refused", code=error.code, reason=str(error), digest=digest)
            handlers.audit_refusal(session, error.dimse_status, error.code, self._sop_instance_uid)
            return Answer(error.dimse_status, error.code)
        return Answer(SUCCESS)

    def _keep(self, session: Session) -> None:
        if self._is_too_long or self._file is None:
            raise CannotUnderstand(
                f"the object is longer than the {self._handlers.maximum_object_bytes} bytes that one may have; "
                "send it in parts, or raise [listener] maximum_object_bytes",
                code="object-too-long",
            )
        header = inspect_data_set(self._file.data_set(), self._transfer_syntax_uid)
        if (header.sop_class_uid, header.sop_instance_uid) != (self._sop_class_uid, self._sop_instance_uid):
            raise DataSetMismatch("the data set's SOP Class or Instance UID is not the command's; they must agree")
        kept = self._file.keep()
        self._handlers.begin_study(session, header.study_instance_uid)
        self._handlers.begin_series(session, header.study_instance_uid, header.series_instance_uid)
        instance = Instance(
            sop_instance_uid=self._sop_instance_uid,
            sop_class_uid=self._sop_class_uid,
            transfer_syntax_uid=self._transfer_syntax_uid,
            series_instance_uid=header.series_instance_uid,
            study_instance_uid=header.study_instance_uid,
            digest=kept.digest,
            size_bytes=kept.size_bytes,
            calling_ae_title=session.calling_ae_title,
            source_host=session.source_host,
        )
        if self._handlers.record(instance):
            self._handlers.audit_change(session, instance)
            self._handlers.record(instance, is_told=True)
        if not self._handlers.spool.holds(kept):
            raise OutOfResources(
                "the instance was here already, and retention removed it before its record came back; send it again",
                code="removed-meanwhile",
            )
        session.count(header)

    def _drop(self) -> None:
        if self._file is not None:
            self._file.discard()
            self._file = None


def bug() -> Answer:
    """Log the error that is being handled, which is ours, and return the answer that names the log entry."""
    log_id = uuid.uuid4().hex[:12]
    _log.exception("an instance was not kept because of an error in the listener", log_id=log_id)
    return Answer(PROCESSING_FAILURE, f"see log entry {log_id}")
