"""POSIX shared memory for tensors, private to this user and found again when its process was killed."""

from __future__ import annotations

import mmap
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SHARED_MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lies on Linux
"""Where regions are files."""
REGION_PREFIX = "limner_tensors_"
"""Regions are called this, then the process's mark, then something random."""
_REGION_NAME = re.compile(REGION_PREFIX + r"(\d+_\d+)_[0-9a-f]+")
_PROC = Path("/proc")


class SharedMemoryUnusable(Exception):
    """Shared memory is full, or the other side can't open it; tensors must go another way."""


class Region:
    """A POSIX shared memory region that only this user can open."""

    def __init__(self, size: int) -> None:
        self.name = f"{REGION_PREFIX}{process_mark()}_{secrets.token_hex(8)}"
        """How it is called under /dev/shm, and to Triton."""
        self.size = size
        """Its bytes."""
        self._path = SHARED_MEMORY_FOLDER / self.name
        descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            # allocated now: a full /dev/shm is an error here instead of a bus error while writing
            os.posix_fallocate(descriptor, 0, size)
            self._map = mmap.mmap(descriptor, size)
        except OSError as error:
            self._path.unlink(missing_ok=True)
            raise SharedMemoryUnusable(f"no shared memory for {size} bytes: {error.strerror}") from error
        finally:
            os.close(descriptor)

    def view(self, dtype: np.dtype[Any], shape: Sequence[int]) -> Array:
        """The region's beginning as an array; not a copy."""
        return np.ndarray(tuple(shape), dtype, buffer=memoryview(self._map))

    def close(self) -> None:
        """Remove the region. Its memory is freed when the last view is gone."""
        self._path.unlink(missing_ok=True)


def remove_stale_regions() -> list[str]:
    """Remove the shared memory of processes that no longer run, and return the names of what was removed."""
    removed = []
    for path in SHARED_MEMORY_FOLDER.glob(f"{REGION_PREFIX}*"):
        if is_stale(path.name):
            path.unlink(missing_ok=True)
            removed.append(path.name)
    return removed


def is_stale(name: str) -> bool:
    """Whether `name` is a region of a process that no longer runs."""
    found = _REGION_NAME.fullmatch(name)
    return found is not None and not is_running(found.group(1))


def process_mark() -> str:
    """Return what tells this process from every other one on this machine: its number and when it was started.

    The number alone would not do: in a container, Limner has the same one after each restart.
    """
    return f"{os.getpid()}_{_start_ticks(os.getpid())}"


def is_running(mark: str) -> bool:
    """Whether the process that has this mark (see `process_mark`) still runs."""
    pid, _, ticks = mark.partition("_")
    return pid.isdecimal() and ticks.isdecimal() and ticks == _start_ticks(int(pid))


def _start_ticks(pid: int) -> str:
    """When a process was started, in clock ticks since boot: field 22 of its stat, proc(5). Empty if it is gone."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # the second field is the program's name in brackets, and may hold anything
    return stat.rpartition(")")[2].split()[19]
