"""A real listener on loopback, and peers of it that keep to no rule."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pydicom.uid
from pydicom.dataset import Dataset, FileMetaDataset

from app.audit.events import DETAIL_KEYS, AuditEvent, Outcome
from app.jobs.records import Instance
from app.listener.association import Listener
from app.listener.commitment import CommitmentReports
from app.listener.spool import Spool
from app.listener.transfers import Transfers
from app.settings_listener import ListenerSettings

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"


@dataclass
class RecordedAudit:
    """Stands where the audit log does; what was appended, in order."""

    records: list[tuple[AuditEvent, Outcome, dict[str, Any]]] = field(default_factory=list)

    def append(self, event: AuditEvent, outcome: Outcome = Outcome.SUCCESS, **detail: Any) -> None:
        assert set(detail) <= set(DETAIL_KEYS), "the audit log would not take it"
        self.records.append((event, outcome, detail))

    def of(self, event: AuditEvent) -> list[dict[str, Any]]:
        return [detail for one, _, detail in self.records if one is event]


@dataclass
class Listening:
    listener: Listener
    spool: Spool
    folder: Path
    instances: list[Instance]
    audit: RecordedAudit

    @property
    def port(self) -> int:
        return self.listener.port

    def parts(self) -> list[Path]:
        """What lies in the spool half written."""
        return list((self.folder / "incoming").iterdir())

    def quarantined(self) -> list[Path]:
        return sorted((self.folder / "quarantine").glob("*.dcm"))


@contextmanager
def listening(
    folder: Path,
    *,
    low_water_bytes: int = 0,
    record: Any = None,
    backlog: Any = None,
    transfers: Transfers | None = None,
    reports: CommitmentReports | None = None,
    **settings: Any,
) -> Iterator[Listening]:
    """A running listener called LIMNER on an ephemeral port, with its spool in `folder`."""
    spool = Spool(folder, low_water_bytes)
    spool.prepare()
    instances: list[Instance] = []

    def remember(instance: Instance, /, *, is_told: bool = False) -> bool:
        before = {one.digest for one in instances if one.sop_instance_uid == instance.sop_instance_uid}
        if before and instance.digest not in before and not is_told:
            return True
        instances.append(instance)
        return False

    audit = RecordedAudit()
    listener = Listener(
        ListenerSettings.model_validate({"port": 0, "shutdown_seconds": 5, **settings}),
        spool,
        record or remember,
        audit,  # type: ignore[arg-type]
        backlog or (lambda: 0),
        transfers,
        reports=reports,
    )
    listener.start()
    try:
        yield Listening(listener, spool, folder, instances, audit)
    finally:
        listener.stop()


def make_ct(
    number: int = 1,
    *,
    study: str = "1.2.826.0.1.3680043.8.498.1",
    series: str = "1.2.826.0.1.3680043.8.498.2",
    size: int = 32,
) -> Dataset:
    """A small CT image in Explicit VR Little Endian; its UIDs end in `number`."""
    image = Dataset()
    image.SOPClassUID = CT
    image.SOPInstanceUID = f"{series}.{number}"
    image.Modality = "CT"
    image.PatientName = "Doe^Jane"
    image.PatientID = "canary-1234"
    image.StudyInstanceUID = study
    image.SeriesInstanceUID = series
    image.InstanceNumber = number
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows = image.Columns = size
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit = 15
    image.PixelRepresentation = 0
    image.PixelData = np.full((size, size), number, np.uint16).tobytes()
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID = pydicom.uid.UID(CT)
    image.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(f"{series}.{number}")
    image.file_meta.TransferSyntaxUID = pydicom.uid.UID(EXPLICIT)
    return image


def write_ct(path: Path, number: int = 1, **changes: Any) -> Path:
    make_ct(number, **changes).save_as(path, enforce_file_format=True)
    return path


# --- PDUs by hand, for peers that break the rules ---------------------------------------------------------------------


class RawPeer:
    """A connection that sends what it is told (PS3.8 section 9.3)."""

    def __init__(self, port: int, *, host: str = "127.0.0.1", source: str = "", patience: float = 30) -> None:
        own = (source, 0) if source else None
        self.socket = socket.create_connection((host, port), timeout=patience, source_address=own)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def associate(
        self,
        sop_class: str = CT,
        transfer_syntax: str = EXPLICIT,
        called: str = "LIMNER",
        *,
        scp_of: str = "",
    ) -> None:
        """Request an association, as `request` does; it must be accepted."""
        self.request(sop_class, transfer_syntax, called, scp_of=scp_of)
        kind, body = self.read_pdu()
        assert kind == 2, f"not accepted: PDU type {kind}"
        self.longest_pdu = _longest_pdu(body)

    def request(
        self,
        sop_class: str = CT,
        transfer_syntax: str = EXPLICIT,
        called: str = "LIMNER",
        *,
        scp_of: str = "",
    ) -> None:
        """Send an association request with one presentation context, 1.

        With `scp_of` it proposes the SCP role for itself of that class (PS3.7 section D.3.3.4), in a context 3 unless
        it is `sop_class`.
        """

        def item(kind: int, body: bytes) -> bytes:
            return struct.pack(">BxH", kind, len(body)) + body

        def context(number: int, abstract_syntax: str) -> bytes:
            syntaxes = item(0x30, abstract_syntax.encode()) + item(0x40, transfer_syntax.encode())
            return item(0x20, struct.pack(">Bxxx", number) + syntaxes)

        contexts = context(1, sop_class)
        user = item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3.4")
        if scp_of:
            contexts += context(3, scp_of) if scp_of != sop_class else b""
            user += item(0x54, struct.pack(">H", len(scp_of)) + scp_of.encode() + b"\0\1")
        body = (
            struct.pack(">Hxx", 1)
            + called.encode().ljust(16)
            + b"RAW".ljust(16)
            + bytes(32)
            + item(0x10, b"1.2.840.10008.3.1.1.1")
            + contexts
            + item(0x50, user)
        )
        self.send_pdu(1, body)

    def send_pdu(self, kind: int, body: bytes) -> None:
        self.socket.sendall(struct.pack(">BxI", kind, len(body)) + body)

    def send_fragment(self, data: bytes, *, command: bool, last: bool) -> None:
        """Send one P-DATA PDU with one presentation data value (PS3.8 annex E)."""
        self.send_pdu(4, struct.pack(">IBB", len(data) + 2, 1, command | last << 1) + data)

    def send_store_command(self, sop_instance: str, sop_class: str = CT) -> None:
        numbers = ((0x0100, 1), (0x0110, 7), (0x0700, 0), (0x0800, 0))
        self._send_command((0x0002, sop_class), *numbers, (0x1000, sop_instance))

    def send_report_command(self, message_id: int) -> None:
        """Begin an N-EVENT-REPORT of the Storage Commitment Push Model, on context 1; its data set must follow."""
        sop_class, sop_instance = STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
        numbers = ((0x0100, 0x0100), (0x0110, message_id), (0x0800, 0))
        self._send_command((0x0002, sop_class), *numbers, (0x1000, sop_instance), (0x1002, 1))

    def _send_command(self, *elements: tuple[int, str | int]) -> None:
        """Send a command set; numbers are of VR US."""

        def element(number: int, value: bytes) -> bytes:
            value += b"\0" * (len(value) % 2)
            return struct.pack("<HHI", 0, number, len(value)) + value

        encoded = b"".join(
            element(number, value.encode() if isinstance(value, str) else struct.pack("<H", value))
            for number, value in elements
        )
        self.send_fragment(element(0, struct.pack("<I", len(encoded))) + encoded, command=True, last=True)

    def read_pdu(self) -> tuple[int, bytes]:
        """Return type and body of the next PDU; type 0 if the connection was closed."""
        header = self._read(6)
        if len(header) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxI", header)
        return kind, self._read(length)

    def read_status(self) -> int:
        """Return the status of the next response."""
        kind, body = self.read_pdu()
        assert kind == 4, f"expected P-DATA, got PDU type {kind}"
        command, offset = body[6:], 0
        while offset < len(command):
            _, number, length = struct.unpack_from("<HHI", command, offset)
            if number == 0x0900:
                return int(struct.unpack_from("<H", command, offset + 8)[0])
            offset += 8 + length
        raise AssertionError("the response has no status")

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except ConnectionResetError:
                break
            if not more:
                break
            data += more
        return data


def reset(connection: socket.socket) -> None:
    """End a connection with RST in place of FIN, as a peer that crashes or a scanner does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _longest_pdu(acceptance: bytes) -> int:
    """The Maximum Length that an A-ASSOCIATE-AC names (PS3.8 section 9.3.3, annex D.1); 0 if any may come."""
    offset = 68
    while offset < len(acceptance):
        kind, length = struct.unpack_from(">BxH", acceptance, offset)
        offset += 4
        if kind == 0x51:
            return int(struct.unpack_from(">I", acceptance, offset)[0])
        offset += 0 if kind == 0x50 else length  # the item of user information holds it
    raise AssertionError("the acceptance names no Maximum Length")


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    """Wait until `condition()` holds; fail the test if it does not."""
    done = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        done.wait(0.05)
    raise AssertionError(f"did not come true within {seconds} s")
