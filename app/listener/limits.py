"""What the listener turns away for now, before it costs anything: too many associations, no room, too long a backlog.

Each is an A-ASSOCIATE-RJ of the transient kind (PS3.8 section 9.3.4): the sender should try again later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakSet

import structlog

from app.errors import LimnerError, OutOfResources
from app.listener.presentation import VERIFICATION_SOP_CLASS
from app.listener.spool import Spool
from app.settings_listener import ListenerSettings

if TYPE_CHECKING:
    from pynetdicom.association import Association

TOO_MANY = "too-many-associations"
TOO_MANY_FROM_ADDRESS = "too-many-from-address"
STORAGE_BELOW_WATERMARK = "storage-below-watermark"
BACKLOG_TOO_LONG = "backlog-too-long"
TLS_HANDSHAKE_FAILED = "tls-handshake-failed"
REQUEST_UNREADABLE = "request-unreadable"

# result, source and reason of A-ASSOCIATE-RJ (PS3.8 table 9-21)
_REJECTED_TRANSIENT = 0x02
_SERVICE_PROVIDER_PRESENTATION = 0x03
_TEMPORARY_CONGESTION = 0x01
_LOCAL_LIMIT_EXCEEDED = 0x02
TRANSIENT_REJECTIONS = {
    TOO_MANY: (_REJECTED_TRANSIENT, _SERVICE_PROVIDER_PRESENTATION, _LOCAL_LIMIT_EXCEEDED),
    TOO_MANY_FROM_ADDRESS: (_REJECTED_TRANSIENT, _SERVICE_PROVIDER_PRESENTATION, _LOCAL_LIMIT_EXCEEDED),
    STORAGE_BELOW_WATERMARK: (_REJECTED_TRANSIENT, _SERVICE_PROVIDER_PRESENTATION, _TEMPORARY_CONGESTION),
    BACKLOG_TOO_LONG: (_REJECTED_TRANSIENT, _SERVICE_PROVIDER_PRESENTATION, _LOCAL_LIMIT_EXCEEDED),
}
"""Result, source and reason of each rejection."""

_BACKLOG_SECONDS = 1.0
_REPORT_SECONDS = 60.0
_REPORTED_NOW_AND_THEN = (STORAGE_BELOW_WATERMARK, BACKLOG_TOO_LONG, TLS_HANDSHAKE_FAILED, REQUEST_UNREADABLE)

_log = structlog.get_logger(__name__)


class AssociationLimits:
    """Judges whether there is room for one more association. Thread-safe.

    Parameters
    ----------
    settings
        The limits.
    spool
        Whose disk must have room.
    backlog
        How many series and jobs wait; asked once a second at most. May raise OutOfResources.
    """

    def __init__(self, settings: ListenerSettings, spool: Spool, backlog: Callable[[], int]) -> None:
        self._settings = settings
        self._spool = spool
        self._ask_backlog = backlog
        self._backlog = 0
        self._backlog_answered_at = float("-inf")
        self._reported_at: dict[str, float] = {}
        self._admitted: WeakSet[Association] = WeakSet()
        self._lock = threading.Lock()
        self._asking = threading.Lock()

    def refusal(self, association: Association, others: list[Association], *, needs_room: bool = True) -> str:
        """Return why an association is turned away for now, as a code; empty if it is not.

        An association that asks for Verification only is not turned away for want of room: monitors ask that way. Nor
        is one that `needs_room` for nothing: reports of commitment, without which what waits would become more.
        """
        if too_many := self._admit(association, others):
            return too_many
        proposed = {str(one.abstract_syntax) for one in association.requestor.requested_contexts}
        if not needs_room or proposed <= {VERIFICATION_SOP_CLASS}:
            return ""
        try:
            self._spool.check_room(0)
        except OutOfResources:
            return STORAGE_BELOW_WATERMARK
        except OSError as error:  # what can't be asked is told when an instance comes
            _log.error("the spool's disk can't be asked for room", reason=type(error).__name__)
        limit = self._settings.backlog_limit
        return BACKLOG_TOO_LONG if limit and self._known_backlog() >= limit else ""

    def is_new_report(self, code: str) -> bool:
        """Whether a refusal was not reported in the last minute: whoever tries again must not fill the audit log."""
        if code not in _REPORTED_NOW_AND_THEN:
            return True
        now = time.monotonic()
        with self._lock:
            is_new = now - self._reported_at.get(code, float("-inf")) > _REPORT_SECONDS
            if is_new:
                self._reported_at[code] = now
        return is_new

    def _admit(self, association: Association, others: list[Association]) -> str:
        """Count an association, unless they are too many. Connections that asked for nothing yet don't count."""
        with self._lock:
            admitted = [
                one.requestor.address
                for one in others
                if one in self._admitted and not (one.is_released or one.is_aborted or one.is_rejected)
            ]
            if len(admitted) >= self._settings.maximum_associations:
                return TOO_MANY
            if admitted.count(association.requestor.address) >= self._settings.maximum_associations_per_address:
                return TOO_MANY_FROM_ADDRESS
            self._admitted.add(association)
        return ""

    def _known_backlog(self) -> int:
        """Return how much waits, as was last known; one association at a time asks, and no other waits for it.

        A database that is away has the question take seconds.
        """
        if self._asking.acquire(blocking=False):
            try:
                if time.monotonic() - self._backlog_answered_at > _BACKLOG_SECONDS:
                    self._learn_backlog()
            finally:
                self._asking.release()
        return self._backlog

    def _learn_backlog(self) -> None:
        try:
            self._backlog = self._ask_backlog()
        except LimnerError as error:  # each instance will be told; the last known number holds until then
            _log.error("the backlog is not known", code=error.code)
        finally:
            self._backlog_answered_at = time.monotonic()
