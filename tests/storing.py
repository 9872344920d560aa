"""A storage sender that costs little, and a receiver to send to: for tests and figures of the receive path."""

from __future__ import annotations

import contextlib
import hashlib
import json
import ssl
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import psutil
import psycopg
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from app.identifiers import UID
from app.listener.spool import encode_file_meta
from tests.listening import CT, EXPLICIT, RawPeer, make_ct

STUDY = "1.2.826.0.1.3680043.8.498.77"
LONGEST_PDU = 131072
REPOSITORY = Path(__file__).resolve().parents[1]
_NUMBER_DIGITS = 9


class Slices:
    """CT images that differ in their UID only, made from one encoded data set without encoding again."""

    def __init__(self, size: int = 512, *, series: str = f"{STUDY}.1", seed: int = 0) -> None:
        self._series = series
        image = make_ct(1, study=STUDY, series=series, size=size)
        # of even length, so that no UID needs padding
        self._template_uid = self.uid(0)
        image.SOPInstanceUID = self._template_uid
        image.PixelData = np.random.default_rng(seed).integers(0, 4096, (size, size), np.uint16).tobytes()
        buffer = DicomBytesIO()
        buffer.is_implicit_VR, buffer.is_little_endian = False, True
        write_dataset(buffer, image)
        self._template = buffer.getvalue()
        self._at = self._template.index(self._template_uid.encode())

    def uid(self, number: int) -> str:
        """The SOP Instance UID of a slice."""
        uid = f"{self._series}.{10**_NUMBER_DIGITS + number}"
        return uid if len(uid) % 2 == 0 else f"{uid}0"

    def data_set(self, number: int) -> bytes:
        """The encoded data set of a slice, Explicit VR Little Endian."""
        uid = self.uid(number).encode()
        assert len(uid) == len(self._template_uid)
        return self._template[: self._at] + uid + self._template[self._at + len(uid) :]

    def changeable(self) -> tuple[bytearray, int]:
        """An encoded data set, and where in it the UID is to be written that makes it that of another slice."""
        return bytearray(self._template), self._at

    def digest(self, number: int) -> str:
        """What the spool must call the slice's file."""
        head = encode_file_meta(UID(CT), UID(self.uid(number)), UID(EXPLICIT))
        return hashlib.sha256(head + self.data_set(number)).hexdigest()


class StoreSender(RawPeer):
    """An association that stores, in PDUs as long as the receiver takes them."""

    def speak_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands, and go on over TLS; `peer_context` makes contexts."""
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    def store(self, uid: str, data: bytes | memoryview, *, sop_class: str = CT) -> int:
        """Send one instance and return the status."""
        self.send_store_command(uid, sop_class)
        self.send_data_set(data)
        return self.read_status()

    def send_echo_command(self) -> None:
        """Send a C-ECHO request."""
        elements = b"".join(
            struct.pack("<HHI", 0, number, len(value)) + value
            for number, value in (
                (0x0002, b"1.2.840.10008.1.1\0"),
                (0x0100, struct.pack("<H", 0x30)),
                (0x0110, struct.pack("<H", 3)),
                (0x0800, struct.pack("<H", 0x0101)),
            )
        )
        self.send_fragment(struct.pack("<HHII", 0, 0, 4, len(elements)) + elements, command=True, last=True)

    def send_data_set(self, data: bytes | memoryview) -> None:
        """Send a data set without waiting for the answer."""
        view, room = memoryview(data), min(self.longest_pdu or LONGEST_PDU, LONGEST_PDU) - 6
        for start in range(0, len(view), room):
            part = view[start : start + room]
            is_last = start + room >= len(view)
            head = struct.pack(">BxIIBB", 4, len(part) + 6, len(part) + 2, 1, is_last << 1)
            if isinstance(self.socket, ssl.SSLSocket):  # which can't send from several places at once
                self.socket.sendall(head + part)
            else:
                self.socket.sendmsg([head, part])

    def release(self) -> None:
        """End the association in order."""
        self.send_pdu(5, bytes(4))
        assert self.read_pdu()[0] == 6


def peer_context(certificates: Path, name: str) -> ssl.SSLContext:
    """What a peer needs for TLS with a receiver of `tests.certificates`; `name` is its certificate, empty for none."""
    context = ssl.create_default_context(cafile=certificates / "hospital.crt")
    if name:
        context.load_cert_chain(certificates / f"{name}.crt", certificates / f"{name}.key")
    return context


class Receiver:
    """The process of `tests.chaos.receiver`; `folder` has its spool and audit log.

    `shared_storage` are the settings of that name, where its spool is shared through storage.
    """

    def __init__(
        self,
        folder: Path,
        database_url: str,
        *,
        low_water_bytes: int = 0,
        wrapped_by: Sequence[str] = (),
        shared_storage: Mapping[str, object] = MappingProxyType({}),
        **settings: object,
    ) -> None:
        self.folder = folder
        self.url = database_url
        self.port = 0
        self._low_water_bytes = low_water_bytes
        self._wrapped_by = wrapped_by
        self._shared_storage = shared_storage
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> None:
        """Start it, on the port that it had before; returns when it listens."""
        self.folder.mkdir(exist_ok=True)
        listener = json.dumps({"shutdown_seconds": 5, **self._settings, "port": self.port})
        settings = [listener, json.dumps(dict(self._shared_storage))]
        command = [sys.executable, "-m", "tests.chaos.receiver", str(self.folder), self.url]
        with (self.folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                [*self._wrapped_by, *command, str(self._low_water_bytes), *settings],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=REPOSITORY,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the receiver did not start:\n{self.log()}"
        self.port = int(line)

    def kill(self) -> None:
        """End it by SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._ended()

    def end(self) -> None:
        """End it in order; nothing happens if it does not run."""
        if self._process is not None:
            self.process().send_signal(15)
            self._ended()

    def process(self) -> psutil.Process:
        """The receiver itself, also where another program started it."""
        assert self._process is not None
        own = psutil.Process(self._process.pid)
        return own.children()[0] if self._wrapped_by else own

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def ledger(self) -> dict[str, str]:
        """The digest of each recorded instance by its UID."""
        with psycopg.connect(self.url) as connection:
            return dict(connection.execute("SELECT sop_instance_uid, digest FROM instances").fetchall())

    def records(self) -> int:
        """How many records of instances there are: one that came with two contents has two."""
        with psycopg.connect(self.url) as connection:
            [(count,)] = connection.execute("SELECT count(*) FROM instances").fetchall()
        return int(count)

    def kept(self) -> dict[str, Path]:
        """The files of the spool by the digest in their name."""
        return {path.stem: path for path in (self.folder / "spool" / "instances").rglob("*.dcm")}

    def parts(self) -> list[Path]:
        """What lies in the spool half written."""
        return list((self.folder / "spool" / "incoming").iterdir())

    def part_sizes(self) -> list[int]:
        """How many bytes each of these has; one that goes meanwhile may be left out."""
        sizes = []
        for path in self.parts():
            with contextlib.suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
        return sizes

    def _ended(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()
