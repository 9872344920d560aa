"""What a storage peer says on an established association, heard and answered by one blocking thread.

C-ECHO and C-STORE (PS3.7 sections 9.3.1 and 9.3.5) with the data set going from the socket into the spool as it comes.
One message at a time: while an instance is kept nothing is read, so a peer that sends faster waits in its own TCP.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import structlog

from app.listener.commands import (
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_STORE_RQ,
    RESPONSE,
    Command,
    decode_command,
    encode_response,
    text_of,
)
from app.listener.handlers import StorageHandlers
from app.listener.pdus import (
    ABORT,
    INVALID_PARAMETER,
    P_DATA,
    RELEASE_REQUEST,
    RELEASE_RESPONSE,
    UNEXPECTED_PDU,
    DataValue,
    PduConnection,
    PeerGone,
    ProtocolBroken,
    data_values,
)
from app.listener.presentation import VERIFICATION_SOP_CLASS
from app.listener.reception import SOP_CLASS_NOT_SUPPORTED, SUCCESS, Answer, Reception, StoreCommand
from app.listener.sessions import Session

UNRECOGNISED_OPERATION = 0x0211
_LONGEST_COMMAND = 1 << 16
_LEAST_MESSAGE_BYTES_PER_SECOND = 4096

_log = structlog.get_logger(__name__)


class Ending(Enum):
    """How an association ended."""

    RELEASED = "released"
    ABORTED = "aborted"


@dataclass(frozen=True)
class AcceptedContext:
    """An accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True)
class ConversationBounds:
    """What a peer may take: seconds for a message once it began, and the longest PDU that it reads itself."""

    message_seconds: float
    longest_pdu_of_peer: int


class Conversation:
    """One association, from its acceptance to its end.

    Parameters
    ----------
    connection
        Where the peer is.
    contexts
        The accepted presentation contexts by their numbers; each is of a storage class or Verification.
    handlers, session
        Who keeps the instances, and what is remembered of the association.
    bounds
        What the peer may take.
    """

    def __init__(
        self,
        connection: PduConnection,
        contexts: Mapping[int, AcceptedContext],
        handlers: StorageHandlers,
        session: Session | None,
        bounds: ConversationBounds,
    ) -> None:
        self._connection = connection
        self._contexts = contexts
        self._handlers = handlers
        self._session = session
        self._bounds = bounds
        self._command_bytes = bytearray()
        self._command: Command | None = None
        self._context_id = 0
        self._reception: Reception | None = None
        self._data_bytes = 0
        self._began = 0.0
        self._abort_wanted = threading.Event()

    def run(self) -> Ending:
        """Hear the peer until it releases or aborts, or must be aborted. Does not close the connection."""
        try:
            return self._hear()
        except PeerGone:
            if self._abort_wanted.is_set():
                self._connection.abort(None)
        except ProtocolBroken as error:
            _log.warning("association aborted", code="protocol-broken", reason=str(error))
            self._connection.abort(error.reason)
        except TimeoutError as error:
            _log.warning("association aborted", code="peer-too-slow", reason=str(error))
            self._connection.abort(None)
        except OSError as error:
            _log.warning("association lost", code="connection-lost", reason=type(error).__name__)
        finally:
            if self._reception is not None:
                self._reception.abandon()
        return Ending.ABORTED

    def abort(self) -> None:
        """Ask for the association's abort as soon as nothing is being kept. For other threads."""
        self._abort_wanted.set()
        self._connection.wake()

    def break_off(self) -> None:
        """Abort at once, in the association's own thread: an error of ours has ended `run`."""
        self._connection.abort(0)

    def _hear(self) -> Ending:
        while not self._abort_wanted.is_set():
            kind, body = self._connection.read()
            if kind == P_DATA:
                for value in data_values(body):
                    self._take(value)
                self._check_time()
            elif kind == RELEASE_REQUEST:
                self._connection.write(RELEASE_RESPONSE, bytes(4))
                return Ending.RELEASED
            elif kind == ABORT:
                return Ending.ABORTED
            else:
                raise ProtocolBroken("a PDU that only a requestor may get", UNEXPECTED_PDU)
        self._connection.abort(None)
        return Ending.ABORTED

    def _take(self, value: DataValue) -> None:
        if self._command is None:
            if not value.is_command:
                raise ProtocolBroken("a data set without a command", UNEXPECTED_PDU)
            self._take_command(value)
            return
        if value.is_command or value.context_id != self._context_id:
            raise ProtocolBroken("another message begins within a message", UNEXPECTED_PDU)
        self._data_bytes += len(value.data)
        if self._data_bytes > 2 * self._handlers.maximum_object_bytes:
            # what is too long is read to its end to be answered, but that has its limit too
            raise ProtocolBroken("a data set goes on and on")
        if self._reception is not None:
            self._reception.write(value.data)
        if value.is_last:
            self._answer(self._command)

    def _take_command(self, value: DataValue) -> None:
        if not self._command_bytes:
            self._began = time.monotonic()
            self._context_id = value.context_id
            if value.context_id not in self._contexts:
                raise ProtocolBroken("a presentation context that was not accepted", INVALID_PARAMETER)
        elif value.context_id != self._context_id:
            raise ProtocolBroken("another message begins within a command", UNEXPECTED_PDU)
        self._command_bytes += value.data
        if len(self._command_bytes) > _LONGEST_COMMAND:
            raise ProtocolBroken("a command set longer than any is", INVALID_PARAMETER)
        if not value.is_last:
            return
        try:
            self._command = decode_command(self._command_bytes)
        except ValueError as error:
            raise ProtocolBroken(str(error), INVALID_PARAMETER) from error
        self._command_bytes = bytearray()
        self._data_bytes = 0
        self._begin(self._command)

    def _begin(self, command: Command) -> None:
        if command.field & RESPONSE:
            raise ProtocolBroken("a response to no request", UNEXPECTED_PDU)
        if command.field == C_STORE_RQ:
            context = self._contexts[self._context_id]
            said = StoreCommand(
                text_of(command.sop_class_uid),
                text_of(command.sop_instance_uid),
                context.abstract_syntax,
                context.transfer_syntax,
            )
            self._reception = self._handlers.receive(self._session, said)
        if not command.has_data_set:
            self._answer(command)

    def _answer(self, command: Command) -> None:
        """End the message; a response leaves for every request but C-CANCEL, which has none (PS3.7 section 9.3.2.3)."""
        self._command = None
        reception, self._reception = self._reception, None
        if command.field == C_CANCEL_RQ:
            return
        if reception is not None:
            answer = reception.finish()
        elif command.field == C_ECHO_RQ:
            is_verification = self._contexts[self._context_id].abstract_syntax == VERIFICATION_SOP_CLASS
            answer = Answer(SUCCESS if is_verification else SOP_CLASS_NOT_SUPPORTED)
        else:
            answer = Answer(UNRECOGNISED_OPERATION)
        response = encode_response(command, answer.status, answer.comment)
        self._connection.write_command(self._context_id, response, self._bounds.longest_pdu_of_peer)

    def _check_time(self) -> None:
        """A message that drips for ever would hold its thread; one over a slow network only takes its time."""
        if self._command is None and not self._command_bytes:
            return
        allowed = self._bounds.message_seconds + self._data_bytes / _LEAST_MESSAGE_BYTES_PER_SECOND
        if time.monotonic() > self._began + allowed:
            raise TimeoutError("the peer took too long to send a message")
