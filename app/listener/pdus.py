"""The PDUs of an established association, read and written by one blocking thread (PS3.8 section 9.3)."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

P_DATA = 0x04
RELEASE_REQUEST = 0x05
RELEASE_RESPONSE = 0x06
ABORT = 0x07

UNEXPECTED_PDU = 2
UNRECOGNISED_PDU = 1
INVALID_PARAMETER = 6
"""Reasons of an A-ABORT by the service provider (PS3.8 table 9-26)."""

_HEADER = struct.Struct(">BxI")
_VALUE_HEADER = struct.Struct(">IBB")
_TIME = struct.Struct("ll")
_LEAST_BYTES_PER_SECOND = 64 * 1024
_SERVICE_USER, _SERVICE_PROVIDER = 0, 2
_FAREWELL_SECONDS = 1.0


class PeerGone(Exception):
    """The peer has ended the connection."""


class ProtocolBroken(Exception):
    """The peer breaks the protocol. ``reason`` is what an A-ABORT says about it."""

    def __init__(self, message: str, reason: int = 0) -> None:
        super().__init__(message)
        self.reason = reason


class DataValue(NamedTuple):
    """A presentation data value (PS3.8 section 9.3.5.1). Its bytes are valid until the next PDU is read."""

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


class PduConnection:
    """A connection on which an association is established. Reading is for one thread; `wake` is for any.

    Parameters
    ----------
    connection
        The socket; nothing of it may have been read ahead.
    longest_pdu
        Largest PDU to read, in bytes.
    silence_seconds
        Longest time in which nothing comes, or in which the peer takes nothing.
    pdu_seconds
        Longest time for a PDU, once it began; large ones get more, as a slow network needs it.
    """

    def __init__(
        self, connection: socket.socket, *, longest_pdu: int, silence_seconds: float, pdu_seconds: float
    ) -> None:
        self._connection = connection
        self._longest_pdu = longest_pdu
        self._pdu_seconds = pdu_seconds
        self._header = memoryview(bytearray(_HEADER.size))
        self._body = memoryview(bytearray(min(longest_pdu, 1 << 17)))
        self._flags: int = socket.MSG_WAITALL
        if isinstance(connection, ssl.SSLSocket):
            self._flags = 0
            connection.settimeout(silence_seconds)
        else:
            # the operating system's own time limits: half the calls, and half the waits for the interpreter's lock
            connection.settimeout(None)
            limit = _TIME.pack(int(silence_seconds), int(silence_seconds % 1 * 1_000_000) or 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def read(self) -> tuple[int, memoryview]:
        """Return type and body of the next PDU; the body is valid until the next call.

        Raises
        ------
        PeerGone, TimeoutError, ProtocolBroken, OSError
            If the connection has ended, the peer is silent or slow, or announces a PDU that is longer than allowed.
        """
        began = self._fill(self._header, None)
        kind, length = _HEADER.unpack(self._header)
        if not P_DATA <= kind <= ABORT:
            raise ProtocolBroken(f"PDU type {kind} has no place in an established association", UNRECOGNISED_PDU)
        if length > self._longest_pdu:
            raise ProtocolBroken(f"the peer announces a PDU of {length} bytes where {self._longest_pdu} are allowed")
        if length > len(self._body):
            self._body = memoryview(bytearray(length))
        body = self._body[:length]
        self._fill(body, began + self._pdu_seconds + length / _LEAST_BYTES_PER_SECOND)
        return kind, body

    def write(self, kind: int, body: bytes) -> None:
        """Send a PDU; OSError if the peer does not take it."""
        self._connection.sendall(_HEADER.pack(kind, len(body)) + body)

    def write_command(self, context_id: int, command: bytes, longest_pdu: int) -> None:
        """Send a command set in fragments that the peer takes; 0 means that any length is taken."""
        room = longest_pdu - _VALUE_HEADER.size if longest_pdu else len(command)
        parts = [command[start : start + room] for start in range(0, len(command), room)]
        for number, part in enumerate(parts, start=1):
            flags = 1 | (number == len(parts)) << 1
            self.write(P_DATA, _VALUE_HEADER.pack(len(part) + 2, context_id, flags) + part)

    def abort(self, reason: int | None) -> None:
        """Send an A-ABORT and end the connection; `reason` None says that the service user wants it."""
        source, reason = (_SERVICE_USER, 0) if reason is None else (_SERVICE_PROVIDER, reason)
        with contextlib.suppress(OSError):
            self.write(ABORT, bytes((0, 0, source, reason)))
            self._say_farewell()

    def wake(self) -> None:
        """Make a read that waits end as if the peer had gone; writing goes on. Thread-safe."""
        with contextlib.suppress(OSError):
            # not the TLS socket's own, which would forget its keys
            socket.socket.shutdown(self._connection, socket.SHUT_RD)

    def _say_farewell(self) -> None:
        """Take what is on its way, for a moment: a connection closed with unread bytes loses what was just sent."""
        socket.socket.shutdown(self._connection, socket.SHUT_WR)
        self._connection.settimeout(_FAREWELL_SECONDS / 4)
        until = time.monotonic() + _FAREWELL_SECONDS
        while socket.socket.recv_into(self._connection, self._body) and time.monotonic() < until:
            pass

    def _fill(self, view: memoryview, deadline: float | None) -> float:
        """Read until the view is full, and return when its first bytes came.

        A read waits for the time of silence at most: a PDU ends within its time and that, whatever the peer does.
        """
        began = 0.0
        while view:
            try:
                count = self._connection.recv_into(view, len(view), self._flags)
            except (BlockingIOError, ssl.SSLWantReadError):
                raise TimeoutError("the peer is silent") from None
            if not count:
                raise PeerGone("the peer has ended the connection")
            view = view[count:]
            if not began:
                began = time.monotonic()
                deadline = began + self._pdu_seconds if deadline is None else deadline
            if view and deadline is not None and time.monotonic() > deadline:
                raise TimeoutError("the peer took too long to send a PDU")
        return began


def data_values(body: memoryview) -> Iterator[DataValue]:
    """Yield the presentation data values of a P-DATA-TF PDU (PS3.8 section 9.3.5); ProtocolBroken if it has no form."""
    offset = 0
    while offset < len(body):
        if offset + _VALUE_HEADER.size > len(body):
            raise ProtocolBroken("a presentation data value ends within its header", INVALID_PARAMETER)
        length, context_id, flags = _VALUE_HEADER.unpack_from(body, offset)
        end = offset + 4 + length
        if length < 2 or end > len(body):
            raise ProtocolBroken("a presentation data value is longer than its PDU, or too short", INVALID_PARAMETER)
        yield DataValue(context_id, bool(flags & 1), bool(flags & 2), body[offset + _VALUE_HEADER.size : end])
        offset = end
