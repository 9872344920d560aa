"""TCP connections with the bounds that the DICOM upper layer needs against slow and hostile peers.

A peer that stalls within a PDU would hold its thread for good, and one that announces a PDU of 4 GiB would fill the
memory with it: neither the idle timer nor the maximum PDU size of the toolkit acts on what is being read.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Callable
from socketserver import BaseServer
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

import structlog
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from app.listener.takeover import Takeover
from app.settings_listener import ListenerSettings

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.presentation import PresentationContext

_HEADER = struct.Struct(">BxI")
_LEAST_BYTES_PER_SECOND = 64 * 1024
_LONGEST_ASSOCIATE_REQUEST = 1 << 20
_PDU_OVERHEAD = 1024
_READ_AHEAD_BYTES = 1 << 16
_WAITING_CONNECTIONS = 40
_WAITING_FROM_ADDRESS = 4

_log = structlog.get_logger(__name__)


class _Bounds(socket.socket):
    """Reading of PDUs within bounds, for a plain and for a TLS socket."""

    _is_bound = False

    def bound(self, *, longest_pdu: int, first_pdu_seconds: float, pdu_seconds: float) -> None:
        """Set the bounds; the time of the first PDU begins to run."""
        self._longest_pdu = max(longest_pdu, _LONGEST_ASSOCIATE_REQUEST)
        self._pdu_seconds = pdu_seconds
        self._header = bytearray()
        self._left = 0
        self._ahead = memoryview(b"")
        self._begun = True  # the first PDU's time runs from the connection on
        self._deadline = time.monotonic() + first_pdu_seconds
        self.settimeout(first_pdu_seconds)
        self._is_bound = True

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Read at most `bufsize` bytes, as `socket.recv` does, within the bounds of the current PDU.

        The toolkit asks for 4096 bytes at a time; more is read ahead, but never beyond the end of the PDU, since
        that is where the toolkit asks the operating system whether there is more.
        """
        if not self._is_bound:
            return self._receive_unbound(bufsize, flags)
        if not self._ahead:
            self._check_time()
            if not self._left:
                return self._read_header(bufsize, flags)
            self._ahead = memoryview(super().recv(min(self._left, _READ_AHEAD_BYTES), flags))
        data = bytes(self._ahead[:bufsize])
        self._ahead = self._ahead[bufsize:]
        self._left -= len(data)
        if not self._left:
            self._begun = False
        return data

    def shutdown(self, how: int, /) -> None:
        """Shut down, also a connection that the peer has ended: the toolkit would not close it after an error."""
        with contextlib.suppress(OSError):
            super().shutdown(how)

    def _receive_unbound(self, bufsize: int, flags: int) -> bytes:
        """Read as any socket does: the TLS library looks so at a connection that its peer ended before it is wrapped.

        If that fails, nobody else has this socket, to close it.
        """
        try:
            return super().recv(bufsize, flags)
        except OSError:
            self.close()
            raise

    def _check_time(self) -> None:
        """A read waits for `pdu_seconds` at most, so that a PDU ends within twice its time whatever the peer does."""
        now = time.monotonic()
        if not self._begun:
            self._begun = True
            self._deadline = now + self._pdu_seconds
            self.settimeout(self._pdu_seconds)
        if now > self._deadline:
            raise TimeoutError("the peer took too long to send a PDU")

    def _read_header(self, bufsize: int, flags: int) -> bytes:
        data = super().recv(min(bufsize, _HEADER.size - len(self._header)), flags)
        self._header += data
        if len(self._header) == _HEADER.size:
            _, self._left = _HEADER.unpack(self._header)
            self._header.clear()
            if self._left > self._longest_pdu:
                raise OSError(f"the peer announces a PDU of {self._left} bytes where {self._longest_pdu} are allowed")
            self._deadline += self._left / _LEAST_BYTES_PER_SECOND
            self._begun = self._left > 0
        return data


class BoundedSocket(_Bounds):
    """A socket that reads PDUs (PS3.8 section 9.3.1) of a limited length within a limited time.

    What breaks the bounds ends as an OSError or a TimeoutError of `recv`, which closes this connection and no other.

    Parameters
    ----------
    accepted
        The connection; this object takes it over.
    longest_pdu
        Largest PDU to read, in bytes; association requests, which can be long, are read up to 1 MiB all the same.
    first_pdu_seconds, pdu_seconds
        Longest time for the first and for any later PDU; large ones get more, as a slow network needs it.
    """

    def __init__(
        self, accepted: socket.socket, *, longest_pdu: int, first_pdu_seconds: float, pdu_seconds: float
    ) -> None:
        super().__init__(fileno=accepted.detach())
        self.bound(longest_pdu=longest_pdu, first_pdu_seconds=first_pdu_seconds, pdu_seconds=pdu_seconds)


class BoundedTlsSocket(_Bounds, ssl.SSLSocket):  # type: ignore[misc]  # the names of recv's arguments differ
    """The same over TLS: an SSL context makes it, `bound` bounds it. Its handshake has the time of the first PDU."""


class SharedContexts(list["PresentationContext"]):
    """The contexts that every association supports. None changes them, and the toolkit's copy for each takes 40 ms."""

    def __deepcopy__(self, memo: object) -> SharedContexts:
        return self


class TakenRequestHandler(RequestHandler):
    """Makes the toolkit's association of a connection, prepared for the one that may take it over."""

    server: BoundedServer

    def handle(self) -> None:
        """Serve a connection. Its TLS begins here, in its own thread: a peer that does not shake hands stops nobody."""
        connection = self.request
        if isinstance(connection, ssl.SSLSocket):
            try:
                connection.do_handshake()
            except OSError as error:  # ssl.SSLError and TimeoutError are some
                self.server.refuse_tls(self.client_address[0], error)
                self.server.shutdown_request(connection)
                return
        super().handle()

    def _create_association(self) -> Association:
        association = super()._create_association()
        self.server.takeover.prepare(association)
        return association


class BoundedServer(ThreadedAssociationServer):
    """An association server whose connections are bounded. `bounds` and `takeover` must be set before it serves."""

    request_queue_size = 64
    bounds: ListenerSettings
    takeover: Takeover
    tls: ssl.SSLContext | None = None
    """What makes TLS of connections, if they are to be; its sockets are `BoundedTlsSocket`."""
    refuse_tls: Callable[[str, OSError], None]
    """Called with the address of a peer whose handshake failed."""
    _addresses: WeakKeyDictionary[socket.socket, str]

    def server_activate(self) -> None:
        """Begin to listen."""
        self._addresses = WeakKeyDictionary()
        super().server_activate()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection. What goes wrong with it is an OSError: any other would end the accepting for good."""
        accepted, address = self.socket.accept()
        try:
            return self._bounded(accepted), cast("tuple[str, int]", address)
        except OSError:  # its peer ended it already
            accepted.close()
            raise
        except Exception as error:
            _log.exception("a connection could not be taken because of an error in the listener")
            accepted.close()
            raise OSError("a connection could not be taken") from error

    def _bounded(self, accepted: socket.socket) -> BoundedSocket | BoundedTlsSocket:
        # an acknowledgement that waits for more to send costs 40 ms an instance
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bounds = self.bounds
        longest, first, later = bounds.maximum_pdu_size, bounds.acse_timeout_seconds, bounds.dimse_timeout_seconds
        if self.tls is None:
            return BoundedSocket(
                accepted, longest_pdu=longest + _PDU_OVERHEAD, first_pdu_seconds=first, pdu_seconds=later
            )
        wrapped = self.tls.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        connection = cast("BoundedTlsSocket", wrapped)
        connection.bound(longest_pdu=longest + _PDU_OVERHEAD, first_pdu_seconds=first, pdu_seconds=later)
        return connection

    def verify_request(self, request: socket.socket, client_address: tuple[str, int]) -> bool:
        """Whether to serve a connection: a flood of them must not become a flood of threads.

        More than the maximum are served, so that a peer above it gets a rejection it understands, and those that have
        asked for nothing yet keep out nobody.
        """
        address = client_address[0]
        open_ones = [other for one, other in list(self._addresses.items()) if one.fileno() >= 0]
        is_served = (
            len(open_ones) < self.bounds.maximum_associations + _WAITING_CONNECTIONS
            and open_ones.count(address) < self.bounds.maximum_associations_per_address + _WAITING_FROM_ADDRESS
        )
        if is_served:
            self._addresses[request] = address
        return is_served

    def close(self) -> None:
        """Stop accepting and free the port; running associations go on."""
        BaseServer.shutdown(self)
        self.server_close()
