import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.listener.pdus import PduConnection, PeerGone, ProtocolBroken, data_values


def connection(ours: socket.socket, silence_seconds: float = 0.5) -> PduConnection:
    return PduConnection(ours, longest_pdu=1000, silence_seconds=silence_seconds, pdu_seconds=0.3)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def pdu(body: bytes, kind: int = 4) -> bytes:
    return struct.pack(">BxI", kind, len(body)) + body


def value(data: bytes, flags: int = 0, context_id: int = 1) -> bytes:
    return struct.pack(">IBB", len(data) + 2, context_id, flags) + data


def test_pdus_pass_one_after_the_other_however_they_are_cut(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    at = connection(ours, silence_seconds=5)
    sent = pdu(b"one") + pdu(b"") + pdu(bytes(1000)) + pdu(b"four", kind=7)

    def drip() -> None:
        for byte in range(0, len(sent), 7):
            theirs.sendall(sent[byte : byte + 7])

    thread = threading.Thread(target=drip)
    thread.start()
    read = [(kind, bytes(body)) for kind, body in (at.read() for _ in range(4))]
    thread.join()
    assert read == [(4, b"one"), (4, b""), (4, bytes(1000)), (7, b"four")]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [(pdu(b"", kind=1), 1), (pdu(b"", kind=9), 1), (b"GET / HTTP/1.1\r\n", 1), (struct.pack(">BxI", 4, 1001), 0)],
)
def test_what_has_no_place_is_refused_by_its_header(
    pair: tuple[socket.socket, socket.socket], sent: bytes, reason: int
) -> None:
    ours, theirs = pair
    theirs.sendall(sent)
    with pytest.raises(ProtocolBroken) as caught:
        connection(ours).read()
    assert caught.value.reason == reason


def test_silence_and_a_stall_end(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    at = connection(ours, silence_seconds=0.2)
    with pytest.raises(TimeoutError, match="silent"):
        at.read()
    theirs.sendall(pdu(b"stalls")[:8])
    with pytest.raises(TimeoutError, match="silent"):
        at.read()


def test_a_drip_ends_too(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ended = threading.Event()

    def drip() -> None:
        theirs.sendall(struct.pack(">BxI", 4, 1000))
        while not ended.wait(0.02):
            theirs.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="too long"):
        connection(ours, silence_seconds=0.4).read()
    assert time.monotonic() - began < 2
    ended.set()
    thread.join()


def test_a_connection_that_ends_is_told_apart(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(pdu(b"half")[:8])
    theirs.close()
    with pytest.raises(PeerGone):
        connection(ours).read()


def test_a_read_that_waits_is_woken(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    at = connection(ours, silence_seconds=30)
    waker = threading.Timer(0.1, at.wake)
    waker.start()
    with pytest.raises(PeerGone):
        at.read()
    waker.join()
    at.write(7, bytes(4))
    assert theirs.recv(100) == pdu(bytes(4), kind=7)


@pytest.mark.parametrize(("longest", "pdus"), [(0, 1), (16384, 1), (26, 5), (106, 1)])
def test_a_command_is_cut_as_the_peer_wants(pair: tuple[socket.socket, socket.socket], longest: int, pdus: int) -> None:
    ours, theirs = pair
    command = bytes(range(100))
    at = connection(ours)
    at.write_command(3, command, longest)
    reader = PduConnection(theirs, longest_pdu=longest or 1000, silence_seconds=1, pdu_seconds=1)
    found = []
    for _ in range(pdus):
        kind, body = reader.read()
        assert kind == 4
        assert not longest or len(body) <= longest
        found += [(one.context_id, one.is_command, one.is_last, bytes(one.data)) for one in data_values(body)]
    assert b"".join(one[3] for one in found) == command
    assert [one[:3] for one in found] == [(3, True, False)] * (pdus - 1) + [(3, True, True)]


@given(st.lists(st.tuples(st.binary(max_size=20), st.integers(0, 3), st.integers(0, 255)), max_size=5))
def test_data_values_are_found_in_their_pdu(values: list[tuple[bytes, int, int]]) -> None:
    body = b"".join(value(*one) for one in values)
    found = list(data_values(memoryview(body)))
    assert [(bytes(one.data), one.is_command | one.is_last << 1, one.context_id) for one in found] == values


@pytest.mark.parametrize(
    "body", [b"\0", value(b"data")[:-1], struct.pack(">IBB", 1, 1, 0), struct.pack(">IBB", 0xFFFFFFFF, 1, 0)]
)
def test_what_is_no_data_value_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolBroken):
        list(data_values(memoryview(body)))
