"""Writing so that it survives a crash of the machine: what the spool and a file that is being received share."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from app.errors import OutOfResources
from app.listener.inspection import Buffer


@dataclass(frozen=True)
class KeptFile:
    """A file in the spool."""

    digest: str
    """SHA-256 of its bytes, as 64 hexadecimal digits."""
    size_bytes: int
    path: Path


def write_all(descriptor: int, data: Buffer) -> None:
    """Write all of `data`; OSError where the disk does not take it."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def mapped(descriptor: int) -> memoryview:
    """Return the bytes of an open file, which must not be empty, without reading them into memory.

    The mapping ends with its last view, also where an error's traceback still holds one: it is never closed by hand.
    """
    return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))


def write_failed(error: OSError) -> OutOfResources:
    """Return the error of a spool whose disk did not take what was written."""
    failed = OutOfResources(
        f"the spool can't be written ({os.strerror(error.errno or 0)}); free or mend the disk",
        code="spool-write-failed",
    )
    failed.__cause__ = error
    return failed
