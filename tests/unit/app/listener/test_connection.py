import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from pynetdicom import AE

from app.listener.connection import BoundedServer, BoundedSocket, BoundedTlsSocket
from app.listener.presentation import supported_contexts
from app.settings_listener import ListenerSettings
from tests.listening import reset


@pytest.fixture
def pair() -> Iterator[tuple[BoundedSocket, socket.socket]]:
    ours, theirs = socket.socketpair()
    bounded = BoundedSocket(ours, longest_pdu=1000, first_pdu_seconds=1.0, pdu_seconds=0.3)
    yield bounded, theirs
    bounded.close()
    theirs.close()


def read_pdu(bounded: BoundedSocket) -> bytes:
    """As the toolkit reads: the header, then the rest in small pieces."""
    header = b""
    while len(header) < 6:
        header += bounded.recv(6 - len(header))
    (length,) = struct.unpack(">xxI", header)
    body = b""
    while len(body) < length:
        body += bounded.recv(min(4096, length - len(body)))
    return body


def pdu(body: bytes, kind: int = 4) -> bytes:
    return struct.pack(">BxI", kind, len(body)) + body


def test_pdus_pass_one_after_the_other(pair: tuple[BoundedSocket, socket.socket]) -> None:
    bounded, theirs = pair
    theirs.sendall(pdu(b"one") + pdu(b"") + pdu(bytes(5000)))
    assert [read_pdu(bounded), read_pdu(bounded), read_pdu(bounded)] == [b"one", b"", bytes(5000)]


def test_a_pause_between_pdus_is_no_stall(pair: tuple[BoundedSocket, socket.socket]) -> None:
    bounded, theirs = pair
    theirs.sendall(pdu(b"one"))
    read_pdu(bounded)
    time.sleep(0.5)
    theirs.sendall(pdu(b"two"))
    assert read_pdu(bounded) == b"two"


def test_a_stall_within_a_pdu_ends(pair: tuple[BoundedSocket, socket.socket]) -> None:
    bounded, theirs = pair
    theirs.sendall(pdu(b"one"))
    read_pdu(bounded)
    theirs.sendall(pdu(b"stalls")[:8])
    with pytest.raises(TimeoutError):
        read_pdu(bounded)


def test_a_drip_ends_too(pair: tuple[BoundedSocket, socket.socket]) -> None:
    bounded, theirs = pair
    theirs.sendall(pdu(b"one"))
    read_pdu(bounded)
    stop = threading.Event()

    def drip() -> None:
        for byte in pdu(bytes(200)):
            theirs.send(bytes([byte]))
            if stop.wait(0.02):
                return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        with pytest.raises(TimeoutError):
            read_pdu(bounded)
    finally:
        stop.set()
        thread.join()


def test_the_first_pdus_time_runs_from_the_connection_on(pair: tuple[BoundedSocket, socket.socket]) -> None:
    bounded, _ = pair
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        read_pdu(bounded)
    assert 0.8 < time.monotonic() - began < 10


def test_a_pdu_of_4_gib_is_refused_by_its_header(pair: tuple[BoundedSocket, socket.socket]) -> None:
    bounded, theirs = pair
    theirs.sendall(struct.pack(">BxI", 4, 0xFFFFFFFF) + bytes(100))
    with pytest.raises(OSError, match="4294967295 bytes"):
        read_pdu(bounded)


def test_it_takes_the_connection_over() -> None:
    ours, theirs = socket.socketpair()
    bounded = BoundedSocket(ours, longest_pdu=1000, first_pdu_seconds=1.0, pdu_seconds=0.3)
    assert ours.fileno() == -1
    bounded.sendall(b"x")
    assert theirs.recv(1) == b"x"
    bounded.close()
    assert theirs.recv(1) == b""
    theirs.close()


@pytest.fixture
def server() -> Iterator[BoundedServer]:
    """A server behind TLS that listens and does not accept by itself."""
    made = AE("LIMNER").make_server(("127.0.0.1", 0), contexts=supported_contexts(), server_class=BoundedServer)
    made.bounds = ListenerSettings(port=0)
    made.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.tls.sslsocket_class = BoundedTlsSocket
    yield made
    made.server_close()


def connected(server: BoundedServer) -> socket.socket:
    return socket.create_connection(server.server_address[:2], timeout=20)


def test_a_connection_that_was_reset_before_it_is_accepted_harms_no_other(server: BoundedServer) -> None:
    reset(connected(server))
    with pytest.raises(ConnectionResetError):
        server.get_request()
    with connected(server):
        accepted, address = server.get_request()
        assert isinstance(accepted, BoundedTlsSocket)
        assert address[0] == "127.0.0.1"
        accepted.close()


def test_a_connection_with_which_anything_goes_wrong_is_closed(
    server: BoundedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def wrap_socket(self, *_: object, **__: object) -> None:
            raise ZeroDivisionError

    monkeypatch.setattr(server, "tls", Broken())
    with connected(server) as theirs:
        with pytest.raises(OSError, match="could not be taken"):
            server.get_request()
        assert theirs.recv(1) == b""
