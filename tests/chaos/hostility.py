"""What hostile and slow peers do to a receiver, each kind in a thread of its own, again and again until told to end."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from app.identifiers import UID
from app.listener.spool import encode_file_meta
from app.listener.toolkit_bounds import LONGEST_MESSAGE
from tests.listening import CT, EXPLICIT, STORAGE_COMMITMENT, reset
from tests.storing import STUDY, Slices, StoreSender, peer_context

SLOW, LOUD, MUTANT = "127.0.0.11", "127.0.0.12", "127.0.0.13"
"""The addresses that attack: those who hold places, those who send much, and those who send what is broken."""
HALF_OPEN = ("127.0.0.14", "127.0.0.15")
"""Those who say half of something and stay: too many for one address, of which no more than 24 are heard at once."""

_MUTANTS = 8
"""Who hold mutated dialogues at once."""

Kind = tuple[Callable[[], None], str]

_BLOCK = bytes(1 << 17)
_SLICES = Slices(size=64, series="1.2.826.0.1.3680043.8.498.99.1")
_LARGE_SLICES = Slices(size=512, series="1.2.826.0.1.3680043.8.498.99.3")
"""Of half a megabyte: a receiver that queued what comes would soon have 200 MB of them."""
_HALF_REQUEST = b"\x01\x00\x00\x00\x01\x00" + bytes(54)
_HELLO_BEGINS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
EVIL_NAME = f"limner-evil-{os.getpid()}"
EVIL_UIDS = (f"../{EVIL_NAME}", f"../../{EVIL_NAME}", f"../../../../tmp/{EVIL_NAME}", f"/tmp/{EVIL_NAME}")
"""Paths in the place of UIDs; each leads out of some folder into one that is there."""
_EVIL_STUDY = f"../{EVIL_NAME}".ljust(len(STUDY), "-")
"""As long as the real one, which it stands for in a data set."""


def _referenced(number: int) -> Dataset:
    one = Dataset()
    one.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    one.ReferencedSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.99.{10**9 + number}"
    return one


def _long_report() -> bytes:
    """The data set of a commitment report that is nearly as long as the receiver takes one."""
    report = Dataset()
    report.TransactionUID = "1.2.826.0.1.3680043.8.498.99.4"
    report.ReferencedSOPSequence = [_referenced(number) for number in range(LONGEST_MESSAGE // 95)]
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, report)
    return buffer.getvalue()


_LONG_REPORT = _long_report()


class Attackers:
    """Kinds of attack, all at once, on one port."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.done: Counter[str] = Counter()
        """How often each kind of attack came to its point."""
        self.most_half_open = 0
        """How many peers at once, at most, had said half of something and were waited for."""
        self._half_open = 0
        self._port = port
        self._tls = tls
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._repeat, args=one, daemon=True) for one in self.kinds()]

    def kinds(self) -> list[Kind]:
        """The attacks with the names of their kinds, as often as they are made at once."""
        raise NotImplementedError

    def pointless(self) -> list[str]:
        """The kinds that came to no point yet."""
        return sorted({name for _, name in self.kinds() if not self.done[name]})

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
                with self._lock:
                    self.done[name] += 1
            self._ended.wait(0.05)

    def _peer(self, source: str) -> StoreSender:
        """Connect, over TLS where the receiver has it."""
        peer = StoreSender(self._port, source=source)
        if self._tls is not None:
            try:
                peer.speak_tls(self._tls)
            except BaseException:
                peer.socket.close()
                raise
        return peer

    def _hold(self, peer: StoreSender) -> None:
        """Stay until the receiver ends it."""
        peer.socket.settimeout(0.5)
        while not self._ended.is_set():
            try:
                if not peer.socket.recv(4096):
                    return
            except TimeoutError:
                continue
            except (ConnectionError, ssl.SSLError):
                return

    def _hold_half_open(self, peer: StoreSender) -> None:
        """The same, counted among those that are half open; who is turned away at once came to no point."""
        peer.socket.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            said = peer.socket.recv(4096)
            raise AssertionError(f"turned away: {said!r}")
        with self._counted():
            self._hold(peer)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._half_open += 1
            self.most_half_open = max(self.most_half_open, self._half_open)
        try:
            yield
        finally:
            with self._lock:
                self._half_open -= 1

    def _drip(self, data: bytes) -> None:
        """Say it byte by byte, until the receiver has had enough; who is turned away at once came to no point."""
        with StoreSender(self._port, source=SLOW) as peer:
            for number, byte in enumerate(data):
                try:
                    peer.socket.sendall(bytes((byte,)))
                except OSError:
                    if number > 2:
                        return
                    raise
                if self._ended.wait(0.5):
                    return

    def _say(self, data: bytes) -> None:
        """Say something that has no place here, or nothing."""
        with StoreSender(self._port, source=SLOW) as peer:
            peer.socket.sendall(data)
            self._hold(peer)

    def _say_garbage(self, chance: random.Random) -> None:
        self._say(chance.randbytes(1000))


class HostilePeers(Attackers):
    """All kinds of attack on an association, and on its request; in the clear, or over TLS where a context is given.

    `flood` is how many stores come without waiting for answers; each is of half a megabyte.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None, *, flood: int) -> None:
        self._stores_of_flood = flood
        super().__init__(port, tls)

    def kinds(self) -> list[Kind]:
        """Those of a table that was made with the toolkit alone, and those on what it still serves."""
        return [
            *[(partial(self._half_request, HALF_OPEN[one % 2]), "half an association request") for one in range(25)],
            *[(partial(self._drip, _HALF_REQUEST), "a byte every half second")] * 2,
            *[(partial(self._say, b""), "a connection that says nothing")] * 3,
            (partial(self._say, b"GET / HTTP/1.1\r\nHost: limner\r\n\r\n"), "HTTP"),
            (partial(self._say_garbage, random.Random(1)), "garbage"),
            *[(self._idle, "a silent association")] * 2,
            (self._huge_request, "an association request of 4 GiB"),
            (self._endless, "a data set without end"),
            (self._endless_beside_reports, "a data set without end where commitments are reported"),
            (self._flood_of_reports, "reports without waiting for answers"),
            (self._evil_uid, "a path as a UID"),
            *self.kinds_once_associated(),
        ]

    def kinds_once_associated(self) -> list[Kind]:
        """Those that are made over TLS too: what reads, writes and ends a connection is not the same there."""
        return [
            (self._huge_pdu, "a PDU of 800 MB"),
            (self._flood, "stores without waiting for answers"),
            *[(self._stall, "a stall within a data value")] * 2,
            (self._abort, "an abort within a data value"),
            *[(partial(self._mutate, random.Random(seed)), "a mutated dialogue") for seed in range(_MUTANTS)],
        ]

    def _half_request(self, source: str) -> None:
        with self._peer(source) as peer:
            peer.socket.sendall(_HALF_REQUEST)
            self._hold_half_open(peer)

    def _stall(self) -> None:
        with self._peer(SLOW) as peer:
            peer.associate()
            peer.send_store_command(_SLICES.uid(1))
            peer.socket.sendall(struct.pack(">BxIIBB", 4, 10006, 10002, 1, 0) + bytes(500))
            self._hold(peer)

    def _idle(self) -> None:
        with self._peer(SLOW) as peer:
            peer.associate()
            self._hold(peer)

    def _huge_request(self) -> None:
        with self._peer(LOUD) as peer:
            peer.socket.sendall(struct.pack(">BxI", 1, 0xFFFFFFF0))
            self._send_until_cut(peer, 1 << 30)

    def _huge_pdu(self) -> None:
        with self._peer(LOUD) as peer:
            peer.associate()
            peer.send_store_command(_SLICES.uid(2))
            peer.socket.sendall(struct.pack(">BxIIBB", 4, 800 << 20, (800 << 20) - 4, 1, 0))
            self._send_until_cut(peer, 800 << 20)

    def _endless(self) -> None:
        with self._peer(LOUD) as peer:
            peer.associate()
            peer.send_store_command(_SLICES.uid(3))
            with contextlib.suppress(OSError):
                self._send_without_end(peer)

    def _flood(self) -> None:
        with self._peer(LOUD) as peer:
            peer.associate()
            peer.socket.settimeout(1)
            with contextlib.suppress(TimeoutError):
                for number in self._flood_numbers(self._stores_of_flood):
                    peer.send_store_command(_LARGE_SLICES.uid(number))
                    peer.send_data_set(_LARGE_SLICES.data_set(number))

    def _flood_numbers(self, count: int) -> Iterator[int]:
        return itertools.takewhile(lambda _: not self._ended.is_set(), range(count))

    def _endless_beside_reports(self) -> None:
        with self._peer(LOUD) as peer:
            peer.associate(scp_of=STORAGE_COMMITMENT)
            peer.send_store_command(_SLICES.uid(3))
            with contextlib.suppress(OSError):
                self._send_without_end(peer)

    def _flood_of_reports(self) -> None:
        with self._peer(LOUD) as peer:
            peer.associate(STORAGE_COMMITMENT, scp_of=STORAGE_COMMITMENT)
            peer.socket.settimeout(5)  # each is kept for a while, and who comes again meanwhile has another
            with contextlib.suppress(TimeoutError):
                for number in self._flood_numbers(2000):
                    peer.send_report_command(number)
                    peer.send_data_set(_LONG_REPORT)

    def _evil_uid(self) -> None:
        with self._peer(LOUD) as peer:
            peer.associate()
            for uid in EVIL_UIDS:
                assert peer.store(uid, _SLICES.data_set(4)) == 0x0117
            data = _SLICES.data_set(4).replace(STUDY.encode(), _EVIL_STUDY.encode())
            assert peer.store(_SLICES.uid(4), data) == 0xC000

    def _abort(self) -> None:
        with self._peer(LOUD) as peer:
            begin_instance(peer, 10_000)
            abort_within_a_value(peer, time.monotonic_ns() % 3)

    def _mutate(self, chance: random.Random) -> None:
        """Hold a dialogue of which the request, or all that follows its acceptance, is changed in some places.

        Most end their side then: of those that wait for an answer many hear none, and few could be held in a minute.
        """
        with self._peer(MUTANT) as peer:
            peer.socket.settimeout(1)
            if chance.random() < 0.3:
                peer.socket.sendall(mutated(_DIALOGUE[0], chance))
                with contextlib.suppress(OSError):
                    peer.read_pdu()
                    peer.socket.sendall(_DIALOGUE[1])
            else:
                peer.associate()
                peer.socket.sendall(mutated(_DIALOGUE[1], chance))
            if chance.random() < 0.8:
                peer.socket.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while peer.read_pdu()[0]:
                    pass

    def _send_without_end(self, peer: StoreSender) -> None:
        """Send until the receiver cuts it; one that reads on to the end of the attack came to no point."""
        while not self._ended.is_set():
            peer.send_fragment(_BLOCK[:100_000], command=False, last=False)
        raise AssertionError("it was not cut")

    def _send_until_cut(self, peer: StoreSender, most: int) -> None:
        with contextlib.suppress(OSError):
            for _ in range(most // len(_BLOCK)):
                peer.socket.sendall(_BLOCK)
                if self._ended.is_set():
                    return


class HostileTlsPeers(HostilePeers):
    """What is done to a receiver with TLS before and after the handshake; `certificates` are its hospital's."""

    def __init__(self, port: int, certificates: Path, *, flood: int) -> None:
        self._known = peer_context(certificates, "modality")
        self._nobody = peer_context(certificates, "")
        self._stranger = peer_context(certificates, "stranger")
        super().__init__(port, self._known, flood=flood)

    def kinds(self) -> list[Kind]:
        """A handshake in the thread that accepts connections would let each of the first ones stop the receiver."""
        return [
            *[(partial(self._no_hello, HALF_OPEN[one % 2]), "no hello") for one in range(25)],
            *[(partial(self._drip, _HELLO_BEGINS + bytes(200)), "a hello of a byte every half second")] * 2,
            (partial(self._say, _HELLO_BEGINS), "a hello that is not ended"),
            (partial(self._say_garbage, random.Random(1)), "garbage in place of a hello"),
            (self._in_the_clear, "an association request in the clear"),
            *[(partial(self._shake_hands, self._known), "silence after the handshake")] * 2,
            *[(partial(self._half_request, SLOW), "half an association request over TLS")] * 2,
            (partial(self._shake_hands, self._nobody), "no certificate"),
            (partial(self._shake_hands, self._stranger), "a certificate of another authority"),
            *((attack, f"{name} over TLS") for attack, name in self.kinds_once_associated()),
        ]

    def _no_hello(self, source: str) -> None:
        with StoreSender(self._port, source=source) as peer:
            self._hold_half_open(peer)

    def _in_the_clear(self) -> None:
        with StoreSender(self._port, source=SLOW) as peer:
            peer.request()
            self._hold(peer)

    def _shake_hands(self, context: ssl.SSLContext) -> None:
        with StoreSender(self._port, source=SLOW) as peer:
            peer.speak_tls(context)
            self._hold(peer)


class _Tape(StoreSender):
    """A sender that sends to itself, of short dialogues."""

    def __init__(self) -> None:
        self.socket, self._end = socket.socketpair()
        self.longest_pdu = 0

    def taken(self) -> bytes:
        """What was sent since the last time."""
        return self._end.recv(1 << 16)

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self._end.close()


def _dialogue() -> tuple[bytes, bytes]:
    """The bytes of a request, and of all that follows its acceptance: two small instances and a release."""
    slices = Slices(size=8, series="1.2.826.0.1.3680043.8.498.99.2")
    with _Tape() as tape:
        tape.request()
        request = tape.taken()
        for number in range(2):
            tape.send_store_command(slices.uid(number))
            tape.send_data_set(slices.data_set(number))
        tape.send_pdu(5, bytes(4))
        return request, tape.taken()


_DIALOGUE = _dialogue()


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Change bytes, take some out and repeat some, in up to four places."""
    for _ in range(chance.randint(1, 4)):
        at, length = chance.randrange(len(data)), chance.choice((1, 1, 2, 4, 16, 200))
        before, these, after = data[:at], data[at : at + length], data[at + length :]
        these = chance.choice((chance.randbytes(len(these)), b"", these * chance.randint(2, 5)))
        data = before + these + after or data
    return data


def begin_instance(peer: StoreSender, size: int) -> int:
    """Send a store command and so many bytes of a data set that has more; return how many the receiver writes then."""
    peer.associate()
    peer.send_store_command(_SLICES.uid(5))
    peer.send_fragment(bytes(size), command=False, last=False)
    return len(encode_file_meta(UID(CT), UID(_SLICES.uid(5)), UID(EXPLICIT))) + size


def abort_within_a_value(peer: StoreSender, way: int) -> None:
    """End the connection within a data set that was begun: close or reset it within a PDU, or A-ABORT between two."""
    if way == 1:
        peer.send_pdu(7, bytes(4))
        peer.socket.close()
        return
    peer.socket.sendall(struct.pack(">BxIIBB", 4, 10006, 10002, 1, 0) + bytes(5000))
    if way == 2:
        reset(peer.socket)
    peer.socket.close()
