"""Asking a peer to commit itself to what it was sent: Storage Commitment Push Model as SCU (PS3.4 annex J)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from app.delivery.destination import CommitmentRequest, ReportedCommitment
from app.delivery.dimse import IMPLICIT_VR_LITTLE_ENDIAN, FileSyntax, Peer, associated, no_answer
from app.errors import DeliveryError, DeliveryRefused
from app.identifiers import UID, parse_uid

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event

REQUEST_COMMITMENT = 1
"""Action Type ID (PS3.4 section J.3.2.1)."""
NO_SUCH_OBJECT = 0x0112
"""Failure Reason: the peer does not hold the object (PS3.3 section C.14)."""
SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
INVALID_ARGUMENT = 0x0115

_PERMANENT = {0x0118: "no such SOP class", 0x0122: "SOP class not supported", 0x0124: "not authorised",
              0x0123: "no such action", 0x0211: "unrecognized operation", 0x0212: "mistyped argument"}  # fmt: skip
_SAME_ASSOCIATION_SECONDS = 1.0
"""A peer that can report at once does so over the association that is there; others open one of their own."""
_POLL_SECONDS = 0.02

_READING = threading.Lock()
"""Read, a report is some twenty times as long as it comes: those of many peers are read one after the other."""

_log = structlog.get_logger(__name__)


def request_commitment(peer: Peer, request: CommitmentRequest, on_report: Callable[[ReportedCommitment], bool]) -> None:
    """Send an N-ACTION, and give the peer a moment to report over the same association.

    Raises
    ------
    DeliveryError
        Code ``no-answer``: it may have been asked or not; the status as ``status-0213``; or as
        `app.delivery.dimse.associated`.
    DeliveryRefused
        Code ``context-refused`` if the peer knows no storage commitment; the status as ``status-0122``.
    """
    answering: list[threading.Thread] = []

    def on_event(event: Event) -> tuple[int, None]:
        answering.append(threading.current_thread())  # the toolkit answers each report in a thread of its own
        return answer_report(event, on_report), None

    model = FileSyntax(UID(str(StorageCommitmentPushModel)), IMPLICIT_VR_LITTLE_ENDIAN)
    with associated(peer, [model], [(evt.EVT_N_EVENT_REPORT, on_event)]) as association:
        try:
            _ask(association, request, peer)
            ends = time.monotonic() + _SAME_ASSOCIATION_SECONDS
            while association.is_established and not answering and time.monotonic() < ends:
                time.sleep(_POLL_SECONDS)
        finally:  # an answer that comes after the release is asked for breaks the association
            for one in answering:
                one.join(peer.timeout_seconds)


def _ask(association: Association, request: CommitmentRequest, peer: Peer) -> None:
    try:
        answer, _ = association.send_n_action(
            _information(request),
            REQUEST_COMMITMENT,
            StorageCommitmentPushModel,
            StorageCommitmentPushModelInstance,
        )
    except RuntimeError as error:  # the association is gone
        raise no_answer(peer) from error
    _judge(answer.get("Status"), peer)


def answer_report(event: Event, keep: Callable[[ReportedCommitment], bool]) -> int:
    """Keep an N-EVENT-REPORT and return the status to answer (PS3.7 section 10.1.1.1.8). Never raises."""
    try:
        with _READING:
            report = read_report(event.event_information)
        return SUCCESS if keep(report) else INVALID_ARGUMENT
    except (ValueError, AttributeError, TypeError, KeyError):
        _log.warning("a storage commitment report can't be read")
        return INVALID_ARGUMENT
    except Exception:  # noqa: BLE001  # the border of the process: nothing may pass; the peer may send it again
        _log.exception("a storage commitment report was not kept")
        return PROCESSING_FAILURE


def read_report(information: Dataset) -> ReportedCommitment:
    """Read the Event Information of a report (PS3.4 table J.3-2); ValueError if a UID or reason is none."""
    refused = tuple(
        (str(parse_uid(str(one.ReferencedSOPInstanceUID))), int(one.get("FailureReason", PROCESSING_FAILURE)))
        for one in information.get("FailedSOPSequence") or ()
    )
    committed = tuple(
        str(parse_uid(str(one.ReferencedSOPInstanceUID))) for one in information.get("ReferencedSOPSequence") or ()
    )
    return ReportedCommitment(str(parse_uid(str(information.TransactionUID))), committed, refused)


def _information(request: CommitmentRequest) -> Dataset:
    """Action Information (PS3.4 table J.3-1)."""
    information = Dataset()
    information.TransactionUID = request.transaction_uid
    information.ReferencedSOPSequence = [_item(*one) for one in request.objects]
    return information


def _item(sop_class_uid: UID, sop_instance_uid: UID) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item


def _judge(status: Any, peer: Peer) -> None:
    if status is None:
        raise no_answer(peer)
    if status == SUCCESS:
        return
    code = f"status-{status:04x}"
    if status in _PERMANENT:
        raise DeliveryRefused(
            f"{peer} refused the request for storage commitment with status 0x{status:04X} ({_PERMANENT[status]}) "
            'where 0x0000 was expected; allow it there, or set commitment = "query"',
            code=code,
        )
    raise DeliveryError(
        f"{peer} could not take the request for storage commitment now (status 0x{status:04X}); it is asked again",
        code=code,
    )
