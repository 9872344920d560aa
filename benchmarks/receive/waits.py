"""What no receiver can go below that keeps what it acknowledges: FOLDER FIRST COUNT; begins with a line, as a sender.

Each slice is written, its file synced, renamed, its folder synced, and a page of a log synced as a database commits a
row. Nothing is received, digested or looked at.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from operators.durable import sync_folder
from tests.storing import Slices

_PAGE_BYTES = 8192
_LOG_PAGES = 256


def main(folder: Path, first: int, count: int) -> None:
    """Say that it is ready, wait for a line, write, and print the seconds it took, 0 failures, and processor time."""
    slices = Slices()
    data, at = slices.changeable()
    uids = [slices.uid(number).encode() for number in range(first, first + count)]
    page, kept = bytes(data[:_PAGE_BYTES]), folder / "kept"
    kept.mkdir(parents=True, exist_ok=True)
    log = _prepared_log(folder / f"log-{first}")
    print("ready", flush=True)
    sys.stdin.readline()
    began, began_cpu = time.monotonic(), time.process_time()
    for number, uid in enumerate(uids):
        data[at : at + len(uid)] = uid
        aside = folder / f"{first + number}.part"
        _write(aside, data)
        aside.rename(kept / f"{first + number}")
        sync_folder(kept)
        os.pwrite(log, page, number % _LOG_PAGES * _PAGE_BYTES)
        os.fdatasync(log)
    seconds, cpu = time.monotonic() - began, time.process_time() - began_cpu
    os.close(log)
    print(f"{seconds} 0 {cpu}", flush=True)


def _write(path: Path, data: bytes | bytearray) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prepared_log(path: Path) -> int:
    """Return a file that need not grow, as a database's log."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, bytes(_PAGE_BYTES * _LOG_PAGES))
    os.fsync(descriptor)
    return descriptor


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
