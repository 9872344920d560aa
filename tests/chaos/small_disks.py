"""File systems in memory that are soon full."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests import peers

_DISK_BYTES = 48 << 20


def small_disk(
    folder: Path, size_bytes: int = _DISK_BYTES, mode: int = 0o1777
) -> contextlib.AbstractContextManager[Path]:
    """A file system of so many bytes, mounted as the folder, which is made."""
    return _mounted(folder, f"size={size_bytes},mode={mode:o}")


def disk_without_room(folder: Path) -> contextlib.AbstractContextManager[Path]:
    """A file system in which no file can be made, mounted as the folder, which is made.

    Not one without free bytes: storescp acknowledges what did not fit.
    """
    return _mounted(folder, "nr_inodes=1")


@contextlib.contextmanager
def _mounted(folder: Path, options: str) -> Iterator[Path]:
    peers.require("root", "mount")
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, capture_output=True)


def fill(path: Path) -> bool:
    """Take all the room that is left, that too which was given back since the last time; return True."""
    with path.open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass
    return True
