"""Our own loop on an association: what peers may send, in every cut, and what not; and the toolkit's loop beside it."""

import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from app.audit.events import AuditEvent
from app.delivery.dimse import Peer, echo
from app.delivery.sending import send_folder
from app.identifiers import UID
from app.listener import takeover, toolkit_bounds
from app.listener.reception import Reception
from tests.listening import CT, Listening, RawPeer, listening, make_ct, wait_until, write_ct

HOST = "127.0.0.1"
VERIFICATION = "1.2.840.10008.1.1"


def encode(number: int, size: int = 32) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, make_ct(number, size=size))
    return buffer.getvalue()


def value(data: bytes, flags: int, context_id: int = 1) -> bytes:
    return struct.pack(">IBB", len(data) + 2, context_id, flags) + data


def command(field: int, *, sop_class: str = CT, instance: str = "", data_set: bool = True) -> bytes:
    def element(number: int, content: bytes) -> bytes:
        content += b"\0" * (len(content) % 2)
        return struct.pack("<HHI", 0, number, len(content)) + content

    elements = element(0x0002, sop_class.encode()) + element(0x0100, struct.pack("<H", field))
    elements += element(0x0110, struct.pack("<H", 9)) + element(0x0800, struct.pack("<H", 0 if data_set else 0x0101))
    if instance:
        elements += element(0x1000, instance.encode())
    return element(0, struct.pack("<I", len(elements))) + elements


def store_command(number: int) -> bytes:
    return command(1, instance=make_ct(number).SOPInstanceUID)


@pytest.fixture(params=["own", "toolkit"])
def served_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which loop serves; an association with a service that is not storage stays with the toolkit's."""
    if request.param == "toolkit":
        monkeypatch.setattr(takeover, "OUR_SOP_CLASSES", frozenset({UID(VERIFICATION)}))
        monkeypatch.setattr(toolkit_bounds, "LONGEST_MESSAGE", 1 << 22)  # of reports; here are images
    return str(request.param)


@pytest.mark.usefixtures("served_by")
def test_both_loops_keep_count_and_refuse_alike(tmp_path: Path) -> None:
    with listening(tmp_path / "spool", maximum_object_bytes=1 << 20) as at:
        sent = send_folder([write_ct(tmp_path / f"{n}.dcm", n) for n in (1, 2)], HOST, at.port, "LIMNER", "MODALITY")
        assert [one.status for one in sent.files] == [0, 0]
        with RawPeer(at.port) as raw:
            raw.associate()
            for data, status in ((encode(3)[:-7], 0xC000), (encode(4), 0xA900), (encode(3, size=800), 0xC000)):
                raw.send_pdu(4, value(store_command(3), 3))
                for start in range(0, len(data), 60000):
                    raw.send_pdu(4, value(data[start : start + 60000], (start + 60000 >= len(data)) << 1))
                assert raw.read_status() == status
            raw.send_pdu(4, value(store_command(3), 3) + value(encode(3), 2))
            assert raw.read_status() == 0
            raw.send_pdu(5, bytes(4))
            assert raw.read_pdu()[0] == 6
        wait_until(lambda: len(at.audit.of(AuditEvent.INSTANCES_RECEIVED)) == 2)
        assert at.parts() == []
        assert len(at.quarantined()) == 2  # of what is too long nothing is kept
    assert [str(one.sop_instance_uid) for one in at.instances] == [make_ct(n).SOPInstanceUID for n in (1, 2, 3)]
    codes = [one["code"] for one in at.audit.of(AuditEvent.INSTANCE_REFUSED)]
    assert codes == ["truncated", "data-set-mismatch", "object-too-long"]


def test_an_error_of_ours_is_no_fault_of_the_sender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served_by: str
) -> None:
    """The toolkit would answer that it cannot understand, and the sender would not try again."""
    with listening(tmp_path / "spool") as at, RawPeer(at.port) as raw:
        raw.associate()
        with monkeypatch.context() as patched:
            patched.setattr(Reception, "_keep", lambda *_: 1 / 0)
            raw.send_pdu(4, value(store_command(1), 3) + value(encode(1), 2))
            assert raw.read_status() == 0x0110
            patched.setattr(at.listener._handlers, "receive", lambda *_: 1 / 0)
            raw.send_pdu(4, value(store_command(1), 3) + value(encode(1), 2))
            if served_by == "toolkit":
                assert raw.read_status() == 0x0110
            else:
                assert raw.read_pdu()[0] == 7
        echo(Peer(HOST, at.port, "LIMNER", "MODALITY", 30))
    assert at.instances == []


def test_messages_may_be_cut_anywhere(tmp_path: Path) -> None:
    """Commands and data sets in any number of values, values in any number of PDUs, and nothing waits for answers."""
    chance = random.Random(1)
    numbers = range(1, 31)
    pdus: list[bytes] = []
    for number in numbers:
        values = []
        for whole, is_command in ((store_command(number), 1), (encode(number), 0)):
            cuts = sorted({0, len(whole), *(chance.randrange(len(whole)) for _ in range(chance.randrange(8)))})
            parts = [whole[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
            values += [value(part, is_command | (part is parts[-1]) << 1) for part in parts]
        while values:
            count = chance.randrange(1, len(values) + 1)
            pdus.append(b"".join(values[:count]))
            values = values[count:]
    with listening(tmp_path / "spool") as at, RawPeer(at.port) as raw:
        raw.associate()

        def send_all() -> None:
            for pdu in pdus:
                raw.send_pdu(4, pdu)

        sender = threading.Thread(target=send_all)
        sender.start()
        assert [raw.read_status() for _ in numbers] == [0] * len(numbers)
        sender.join()
    assert [str(one.sop_instance_uid) for one in at.instances] == [make_ct(n).SOPInstanceUID for n in numbers]


def test_verification_is_answered_on_its_own_context_only(tmp_path: Path) -> None:
    with listening(tmp_path / "spool") as at:
        for context, status in ((VERIFICATION, 0), (CT, 0x0122)):
            with RawPeer(at.port) as raw:
                raw.associate(context)
                raw.send_pdu(4, value(command(0x30, sop_class=VERIFICATION, data_set=False), 3))
                assert raw.read_status() == status


def test_what_is_not_offered_is_answered_and_a_cancel_is_not(tmp_path: Path) -> None:
    with listening(tmp_path / "spool") as at, RawPeer(at.port) as raw:
        raw.associate()
        raw.send_pdu(4, value(command(0x20), 3) + value(b"a query that nobody reads", 2))
        assert raw.read_status() == 0x0211
        raw.send_pdu(4, value(command(0x0FFF, data_set=False), 3) + value(store_command(1), 3) + value(encode(1), 2))
        assert raw.read_status() == 0
        raw.send_pdu(4, value(command(1, instance="1.2.3", data_set=False), 3))
        assert raw.read_status() == 0xC000  # a C-STORE without a data set


BROKEN: dict[str, Callable[[RawPeer], None]] = {
    "data without a command": lambda raw: raw.send_pdu(4, value(b"data", 2)),
    "a context that was not accepted": lambda raw: raw.send_pdu(4, value(store_command(1), 3, context_id=3)),
    "data of another context": lambda raw: raw.send_pdu(4, value(store_command(1), 3) + value(b"data", 0, 3)),
    "a command within a data set": lambda raw: raw.send_pdu(4, value(store_command(1), 3) * 2),
    "a response": lambda raw: raw.send_pdu(4, value(command(0x8001, data_set=False), 3)),
    "a command that is none": lambda raw: raw.send_pdu(4, value(b"\xff" * 20, 3)),
    "a command without end": lambda raw: raw.send_pdu(4, value(bytes(16000), 1) * 5),
    "a value longer than its PDU": lambda raw: raw.send_pdu(4, struct.pack(">IBB", 100, 1, 3) + b"short"),
    "a PDU that is too long": lambda raw: raw.socket.sendall(struct.pack(">BxI", 4, 1 << 30)),
    "a second association request": lambda raw: raw.send_pdu(1, bytes(68)),
    "an acceptance": lambda raw: raw.send_pdu(2, bytes(68)),
    "a release response": lambda raw: raw.send_pdu(6, bytes(4)),
    "no PDU": lambda raw: raw.socket.sendall(b"GET / HTTP/1.1\r\n"),
}


@pytest.mark.parametrize("what", list(BROKEN))
def test_who_breaks_the_protocol_is_aborted_with_its_reason(tmp_path: Path, what: str) -> None:
    with listening(tmp_path / "spool") as at:
        with RawPeer(at.port) as raw:
            raw.associate()
            BROKEN[what](raw)
            kind, body = raw.read_pdu()
            assert kind == 7, what
            assert body[2] == 2  # by the service provider
        wait_until(lambda: not at.listener._server.active_associations)  # type: ignore[union-attr]
        assert at.parts() == []
        echo(Peer(HOST, at.port, "LIMNER", "MODALITY", 30))


def test_who_is_silent_or_drips_is_aborted(tmp_path: Path) -> None:
    with listening(tmp_path / "spool", network_timeout_seconds=1, dimse_timeout_seconds=2) as at:
        with RawPeer(at.port) as silent, RawPeer(at.port) as stalled, RawPeer(at.port) as dripping:
            for one in (silent, stalled, dripping):
                one.associate()
            stalled.send_pdu(4, value(store_command(1), 3))
            stalled.socket.sendall(struct.pack(">BxIIBB", 4, 1006, 1002, 1, 0) + bytes(500))
            dripping.send_pdu(4, value(store_command(1), 3))
            began = time.monotonic()
            ended = {}
            for name, one in (("silent", silent), ("stalled", stalled)):
                ended[name] = one.read_pdu()[0]
            while time.monotonic() - began < 15:
                try:
                    dripping.send_pdu(4, value(b"x", 0))
                except OSError:
                    break
                time.sleep(0.2)
            assert time.monotonic() - began < 15
            assert ended == {"silent": 7, "stalled": 7}
        wait_until(lambda: not at.listener._server.active_associations)  # type: ignore[union-attr]
        assert at.parts() == []


def test_a_data_set_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    with listening(tmp_path / "spool", maximum_object_bytes=1 << 20) as at:
        with RawPeer(at.port) as raw:
            raw.associate()
            raw.send_pdu(4, value(store_command(1), 3))

            def send_for_ever() -> None:
                for _ in range(100_000):
                    raw.send_pdu(4, value(bytes(100_000), 0))

            with pytest.raises(OSError, match=r"Broken pipe|reset"):
                send_for_ever()
        wait_until(lambda: not at.listener._server.active_associations)  # type: ignore[union-attr]
        assert at.parts() == []


def test_an_abort_in_mid_object_ends_the_thread_and_the_file(tmp_path: Path) -> None:
    def threads() -> int:
        return sum("AcceptorThread" in one.name for one in threading.enumerate())

    with listening(tmp_path / "spool") as at:
        raws = [RawPeer(at.port) for _ in range(5)]
        for number, raw in enumerate(raws, start=1):
            raw.associate()
            raw.send_pdu(4, value(store_command(number), 3) + value(encode(number)[:500], 0))
        wait_until(lambda: len(at.parts()) == 5)
        raws[0].send_pdu(7, bytes(4))
        raws[1].socket.close()
        raws[2].socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raws[2].socket.close()
        raws[3].send_pdu(5, bytes(4))  # a release in mid-object is one: nothing of the object is acknowledged
        raws[4].socket.shutdown(socket.SHUT_WR)
        wait_until(lambda: threads() == 0 and at.parts() == [])
        for raw in raws:
            raw.socket.close()
    assert at.instances == []


def test_while_an_instance_is_kept_nothing_is_read(tmp_path: Path) -> None:
    """A peer that sends without waiting fills its own buffers, not our memory."""
    go_on = threading.Event()
    recorded: list[object] = []

    def record(instance: object) -> None:
        go_on.wait(30)
        recorded.append(instance)

    with listening(tmp_path / "spool", record=record) as at, RawPeer(at.port) as raw:
        raw.associate()
        raw.socket.settimeout(2)
        message = BytesIO()
        for pdu in (value(store_command(1), 3), value(encode(1, size=128), 2)):
            message.write(struct.pack(">BxI", 4, len(pdu)) + pdu)
        with pytest.raises(TimeoutError):
            raw.socket.sendall(message.getvalue() * 3000)  # 100 MB
        assert recorded == []
        assert len(list(at.spool.all_digests())) == 1
        assert at.parts() == []
        go_on.set()


def threads_of(at: Listening) -> list[str]:
    return [one.name for one in at.listener._server.active_associations]  # type: ignore[union-attr]


def test_an_idle_association_costs_one_thread_and_no_processor_time(tmp_path: Path) -> None:
    with listening(tmp_path / "spool") as at:
        before = threading.active_count()
        raws = [RawPeer(at.port) for _ in range(20)]
        for raw in raws:
            raw.associate()
        wait_until(lambda: threading.active_count() <= before + 20)
        assert len(threads_of(at)) == 20
        began = time.process_time()
        time.sleep(1)
        assert time.process_time() - began < 0.1
        for raw in raws:
            raw.socket.close()
