"""Failures of this host's disks and memory, or of what is mounted there: they pass when mended; no job is to blame."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import StorageError

DISK_FAILED = "disk-failed"
MEMORY_SHORT = "memory-short"

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_MOUNT_AWAY = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EREMOTEIO)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_OF_THE_HOST = frozenset({*_NO_ROOM, *_MOUNT_AWAY, *_NOT_ALLOWED, *_EXHAUSTED})


def is_of_the_host(error: BaseException) -> bool:
    """Whether an error says that the host can't do now what it could do before."""
    return isinstance(error, OSError) and error.errno in _OF_THE_HOST


def disk_failed(error: OSError) -> StorageError:
    """Return the error that has the queue try again."""
    return disk_failed_by(os.strerror(error.errno) if error.errno else type(error).__name__)


def host_failed(error: OSError | MemoryError) -> StorageError:
    """Return the same, also of a host without the memory to read what lies there."""
    if isinstance(error, OSError):
        return disk_failed(error)
    return StorageError(
        "this host has too little free memory to read it; give it more, or stop what takes it: what waits for it goes "
        "on by itself",
        code=MEMORY_SHORT,
    )


def disk_failed_by(why: str) -> StorageError:
    """Return the same, where only the words have come."""
    return StorageError(
        f"a disk of this host, or what is mounted on it, can't be used ({why}); free, mend or mount it: what waits for "
        "it goes on by itself",
        code=DISK_FAILED,
    )


@contextmanager
def host_faults_waited_for() -> Iterator[None]:
    """Have what fails for the host's sake within the context be tried again, and not end as a defect."""
    try:
        yield
    except (OSError, MemoryError) as error:
        if isinstance(error, MemoryError) or is_of_the_host(error):
            raise host_failed(error) from error
        raise


def check_mounted(folder: Path) -> None:
    """Raise StorageError if a folder is not there that was: a file missing in it says nothing then."""
    if not folder.is_dir():
        raise disk_failed_by(f"{folder.name} is not in the data folder; see whether that is mounted")
