"""What hostile and slow peers do to a receiver, each kind in a thread of its own, again and again until told to end."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.listening import STORAGE_COMMITMENT
from tests.storing import Slices, StoreSender

SLOW, LOUD = "127.0.0.11", "127.0.0.12"
"""The addresses that attack: those who hold places, and those who send much."""

_BLOCK = bytes(1 << 17)
_SLICES = Slices(size=64, series="1.2.826.0.1.3680043.8.498.99.1")
EVIL_UID = "../../../../tmp/limner-evil"


class Attackers:
    """All kinds of attack at once on one port."""

    def __init__(self, port: int) -> None:
        self.done: Counter[str] = Counter()
        """How often each kind of attack came to its point."""
        self._port = port
        self._ended = threading.Event()
        kinds: list[tuple[Callable[[], None], str]] = [
            *[(self._half_request, "half an association request")] * 12,
            *[(self._drip, "a byte every half second")] * 2,
            *[(self._say_nothing, "a connection that says nothing")] * 3,
            *[(self._say_http, "HTTP")] * 1,
            *[(self._stall, "a stall within a data value")] * 2,
            *[(self._idle, "a silent association")] * 2,
            (self._huge_request, "an association request of 4 GiB"),
            (self._huge_pdu, "a PDU of 800 MB"),
            (self._endless, "a data set without end"),
            (self._flood, "stores without waiting for answers"),
            (self._endless_beside_reports, "a data set without end where commitments are reported"),
            (self._flood_of_reports, "reports without waiting for answers"),
            (self._evil_uid, "a path as a UID"),
            (self._abort, "an abort within a data value"),
        ]
        self.kinds = {name for _, name in kinds}
        self._threads = [threading.Thread(target=self._repeat, args=one, daemon=True) for one in kinds]

    def __enter__(self) -> Attackers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _repeat(self, attack: Callable[[], None], name: str) -> None:
        while not self._ended.is_set():
            # what is cut, reset or rejected is what is meant to happen
            with contextlib.suppress(OSError, AssertionError, struct.error):
                attack()
                self.done[name] += 1
            self._ended.wait(0.05)

    def _hold(self, peer: StoreSender) -> None:
        """Stay until the receiver ends it."""
        peer.socket.settimeout(0.5)
        while not self._ended.is_set():
            try:
                if not peer.socket.recv(4096):
                    return
            except TimeoutError:
                continue

    def _half_request(self) -> None:
        with StoreSender(self._port, source=SLOW) as peer:
            peer.socket.sendall(b"\x01\x00\x00\x00\x01\x00" + bytes(54))
            self._hold(peer)

    def _drip(self) -> None:
        with StoreSender(self._port, source=SLOW) as peer:
            for byte in b"\x01\x00\x00\x00\x01\x00" + bytes(250):
                peer.socket.sendall(bytes((byte,)))
                if self._ended.wait(0.5):
                    return

    def _say_nothing(self) -> None:
        with StoreSender(self._port, source=SLOW) as peer:
            self._hold(peer)

    def _say_http(self) -> None:
        with StoreSender(self._port, source=SLOW) as peer:
            peer.socket.sendall(b"GET / HTTP/1.1\r\nHost: limner\r\n\r\n")
            self._hold(peer)

    def _stall(self) -> None:
        with StoreSender(self._port, source=SLOW) as peer:
            peer.associate()
            peer.send_store_command(_SLICES.uid(1))
            peer.socket.sendall(struct.pack(">BxIIBB", 4, 10006, 10002, 1, 0) + bytes(500))
            self._hold(peer)

    def _idle(self) -> None:
        with StoreSender(self._port, source=SLOW) as peer:
            peer.associate()
            self._hold(peer)

    def _huge_request(self) -> None:
        with StoreSender(self._port, source=LOUD) as peer:
            peer.socket.sendall(struct.pack(">BxI", 1, 0xFFFFFFF0))
            self._send_until_cut(peer, 1 << 30)

    def _huge_pdu(self) -> None:
        with StoreSender(self._port, source=LOUD) as peer:
            peer.associate()
            peer.send_store_command(_SLICES.uid(2))
            peer.socket.sendall(struct.pack(">BxIIBB", 4, 800 << 20, (800 << 20) - 4, 1, 0))
            self._send_until_cut(peer, 800 << 20)

    def _endless(self) -> None:
        with StoreSender(self._port, source=LOUD) as peer:
            peer.associate()
            peer.send_store_command(_SLICES.uid(3))
            with contextlib.suppress(OSError):
                while not self._ended.is_set():
                    peer.send_fragment(_BLOCK[:100_000], command=False, last=False)

    def _flood(self) -> None:
        with StoreSender(self._port, source=LOUD) as peer:
            peer.associate()
            peer.socket.settimeout(1)
            with contextlib.suppress(TimeoutError):
                for number in range(436):
                    peer.send_store_command(_SLICES.uid(number))
                    peer.send_data_set(_SLICES.data_set(number))

    def _endless_beside_reports(self) -> None:
        with StoreSender(self._port, source=LOUD) as peer:
            peer.associate(scp_of=STORAGE_COMMITMENT)
            peer.send_store_command(_SLICES.uid(3))
            with contextlib.suppress(OSError):
                while not self._ended.is_set():
                    peer.send_fragment(_BLOCK[:100_000], command=False, last=False)

    def _flood_of_reports(self) -> None:
        with StoreSender(self._port, source=LOUD) as peer:
            peer.associate(STORAGE_COMMITMENT, scp_of=STORAGE_COMMITMENT)
            peer.socket.settimeout(1)
            with contextlib.suppress(TimeoutError):
                for number in range(436):
                    peer.send_report_command(number)
                    peer.send_fragment(_BLOCK[:100_000], command=False, last=True)

    def _evil_uid(self) -> None:
        with StoreSender(self._port, source=LOUD) as peer:
            peer.associate()
            assert peer.store(EVIL_UID, _SLICES.data_set(4)) == 0x0117

    def _abort(self) -> None:
        with StoreSender(self._port, source=LOUD) as peer:
            abort_within_a_value(peer, time.monotonic_ns() % 3)

    def _send_until_cut(self, peer: StoreSender, most: int) -> None:
        with contextlib.suppress(OSError):
            for _ in range(most // len(_BLOCK)):
                peer.socket.sendall(_BLOCK)
                if self._ended.is_set():
                    return


def abort_within_a_value(peer: StoreSender, way: int) -> None:
    """Begin an instance, and end the connection in mid-value: by closing, an A-ABORT, or a reset."""
    peer.associate()
    peer.send_store_command(_SLICES.uid(5))
    peer.socket.sendall(struct.pack(">BxIIBB", 4, 10006, 10002, 1, 0) + bytes(5000))
    if way == 1:
        peer.send_pdu(7, bytes(4))
    if way == 2:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.socket.close()
