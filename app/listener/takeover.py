"""Where our own loop takes an association over from the toolkit, once it is negotiated. docs/adr/0007 says why.

The toolkit's DUL thread is kept from reading until it is known who will serve. Associations on which only storage
classes and Verification were accepted are ours from then on; the others stay with the toolkit, with the same handlers
and bounds of their own.
The association keeps its thread, its place among the active ones and its events: who listens to them sees no
difference.

What is private of pynetdicom here, and in the other modules of this package, is pinned by a contract test
(tests/contract/test_pynetdicom_listener.py).
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

import structlog
from pynetdicom import evt
from pynetdicom.pdu import A_ASSOCIATE_RQ

from app.listener.conversation import AcceptedContext, Conversation, ConversationBounds, Ending
from app.listener.handlers import StorageHandlers
from app.listener.pdus import PduConnection
from app.listener.presentation import STORAGE_SOP_CLASSES, VERIFICATION_SOP_CLASS
from app.listener.sessions import Sessions
from app.listener.toolkit_bounds import ToolkitBounds
from app.settings_listener import ListenerSettings

if TYPE_CHECKING:
    from pynetdicom.association import Association

OUR_SOP_CLASSES = frozenset({VERIFICATION_SOP_CLASS, *STORAGE_SOP_CLASSES})
"""What our own loop serves. An association with anything else is the toolkit's."""

_ESTABLISHED = "Sta6"  # the state in which data may come (PS3.8 table 9-5)
_POLL_SECONDS = 0.0005
_PDU_OVERHEAD = 1024

_log = structlog.get_logger(__name__)


class Takeover:
    """The associations of one listener that our own loop serves. Thread-safe.

    Parameters
    ----------
    settings
        The bounds of an association.
    handlers, sessions
        Who keeps the instances, and what is remembered of each association.
    """

    def __init__(self, settings: ListenerSettings, handlers: StorageHandlers, sessions: Sessions) -> None:
        self._settings = settings
        self._handlers = handlers
        self._sessions = sessions
        self._conversations: WeakKeyDictionary[Association, Conversation] = WeakKeyDictionary()
        self._unwanted: WeakSet[Association] = WeakSet()
        self._lock = threading.Lock()

    def prepare(self, association: Association) -> None:
        """Make an association that does not run yet ask us who serves it."""
        dul = association.dul
        is_transport_event: Callable[[], bool] = dul._is_transport_event
        decode: Callable[[bytearray], tuple[object, str]] = dul._decode_pdu
        run: Callable[[], None] = association._run_reactor
        decided = threading.Event()
        bounds = ToolkitBounds(association)

        def is_event_if_decided() -> bool:
            is_established = dul.state_machine.current_state == _ESTABLISHED
            if bounds.is_broken or (is_established and not (decided.is_set() and bounds.may_read())):
                return False
            return is_transport_event()

        def decode_what_can_be_taken(received: bytearray) -> tuple[object, str]:
            pdu, event = decode(received)
            if isinstance(pdu, A_ASSOCIATE_RQ):
                pdu.to_primitive()  # an error is the peer's here, who gets an abort; later it would end the DUL thread
            return pdu, event

        def run_whom_it_concerns() -> None:
            if self._is_ours(association) and _is_accepted(association):
                self._serve(association)
            else:
                decided.set()
                run()

        dul._is_transport_event = is_event_if_decided
        dul._decode_pdu = decode_what_can_be_taken
        association._run_reactor = run_whom_it_concerns

    def abort(self, association: Association) -> None:
        """Abort an association, whoever serves it; what is being kept is finished first."""
        with self._lock:
            conversation = self._conversations.get(association)
            self._unwanted.add(association)
        if conversation is not None:
            conversation.abort()
        else:
            association.abort(block=False)

    def _is_ours(self, association: Association) -> bool:
        return all(str(context.abstract_syntax) in OUR_SOP_CLASSES for context in association.accepted_contexts)

    def _serve(self, association: Association) -> None:
        """Take the connection and converse until the association ends; the toolkit closes the connection after."""
        association.dul.kill_dul()
        association.dul.join()
        connection = association.dul.socket.socket
        if connection is None:
            return
        conversation = self._converse_on(association, connection)
        try:
            ending = conversation.run()
        except Exception:  # noqa: BLE001  # the border of the process: one association may end by our error, not more
            _log.exception("an association ended because of an error in the listener")
            conversation.break_off()
            ending = Ending.ABORTED
        association.is_established = False
        if ending is Ending.RELEASED:
            association.is_released = True
            evt.trigger(association, evt.EVT_RELEASED, {})
        else:
            association.is_aborted = True
            evt.trigger(association, evt.EVT_ABORTED, {})
        evt.trigger(association, evt.EVT_CONN_CLOSE, {"address": association.requestor.address_info.as_tuple})
        association.kill()

    def _converse_on(self, association: Association, connection: socket.socket) -> Conversation:
        settings = self._settings
        conversation = Conversation(
            PduConnection(
                connection,
                longest_pdu=settings.maximum_pdu_size + _PDU_OVERHEAD,
                silence_seconds=settings.network_timeout_seconds,
                pdu_seconds=settings.dimse_timeout_seconds,
            ),
            {
                int(context.context_id): AcceptedContext(str(context.abstract_syntax), str(context.transfer_syntax[0]))
                for context in association.accepted_contexts
            },
            self._handlers,
            self._sessions.of(association),
            ConversationBounds(settings.dimse_timeout_seconds, int(association.requestor.maximum_length or 0)),
        )
        with self._lock:
            self._conversations[association] = conversation
            is_unwanted = association in self._unwanted
        if is_unwanted:
            conversation.abort()
        return conversation


def _is_accepted(association: Association) -> bool:
    """Wait until the peer was sent that it is accepted; False if the association ended before."""
    while association.dul.is_alive():
        if association.dul.state_machine.current_state == _ESTABLISHED:
            return True
        time.sleep(_POLL_SECONDS)
    return False
