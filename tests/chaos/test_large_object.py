"""One object of a gigabyte: it goes to the disk as it comes, and memory does not know it."""

from __future__ import annotations

import hashlib
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from app.identifiers import UID
from app.listener.spool import encode_file_meta
from tests.chaos.figures import Figures
from tests.database_fixture import fresh_database
from tests.listening import EXPLICIT, make_ct
from tests.storing import LONGEST_PDU, Receiver, StoreSender

PROMISE = "3. One multi-frame object"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
UID_OF_OBJECT = "1.2.826.0.1.3680043.8.498.3.1"
MEGABYTE = 1 << 20


def blocks(megabytes: int) -> Iterator[bytes]:
    """The encoded data set of an Enhanced CT image with this much pixel data, block by block."""
    image = make_ct(1, size=512)
    image.SOPClassUID, image.SOPInstanceUID = ENHANCED_CT, UID_OF_OBJECT
    image.NumberOfFrames = 2 * megabytes
    del image.PixelData
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, image)
    yield buffer.getvalue() + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, megabytes * MEGABYTE)
    block = np.random.default_rng(1).bytes(MEGABYTE)
    for _ in range(megabytes):
        yield block


class Watched(threading.Thread):
    """Looks at a process's resident memory until it is told to end."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self._process = process
        self.idle_bytes = self.most_bytes = process.memory_info().rss
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.02):
            self.most_bytes = max(self.most_bytes, self._process.memory_info().rss)


def test_memory_does_not_grow_with_the_object(tmp_path: Path, postgres: str, figures: Figures) -> None:
    megabytes = figures.of(short=200, full=1024)
    head = encode_file_meta(UID(ENHANCED_CT), UID(UID_OF_OBJECT), UID(EXPLICIT))
    digest = hashlib.sha256(head)
    for block in blocks(megabytes):
        digest.update(block)
    with (
        fresh_database(postgres) as url,
        Receiver(tmp_path / "receiver", url) as receiver,
        StoreSender(receiver.port) as sender,
    ):
        sender.socket.settimeout(120)
        sender.associate(ENHANCED_CT)
        watched = Watched(receiver.process())
        watched.start()
        began = time.monotonic()
        sender.send_store_command(UID_OF_OBJECT, ENHANCED_CT)
        room = LONGEST_PDU - 6
        for block in blocks(megabytes):
            for start in range(0, len(block), room):
                part = block[start : start + room]
                head = struct.pack(">BxIIBB", 4, len(part) + 6, len(part) + 2, 1, 0)
                sender.socket.sendmsg([head, part])
        sender.send_fragment(b"", command=False, last=True)
        status = sender.read_status()
        seconds = time.monotonic() - began
        watched.ended.set()
        watched.join()
        sender.release()
        kept = receiver.kept()
    assert status == 0
    assert list(kept) == [digest.hexdigest()]
    growth = (watched.most_bytes - watched.idle_bytes) / MEGABYTE
    promise = f"{PROMISE} of {megabytes} MB"
    figures.show(promise, "resident memory of the receiver over idle, MB", seen=growth, most=100)
    figures.show(
        promise, "rate from first byte to acknowledgement, MB/s", seen=megabytes / seconds,
        least=100 if figures.is_full else 0,
    )  # fmt: skip
