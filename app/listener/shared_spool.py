"""A spool that several hosts share through S3-compatible storage: this host's folder is its copy of a part of it.

::

    instances/ab/<sha256>.dcm   in the storage, as in the folder

An instance is kept here first, then stored, then recorded, then acknowledged. Whoever reads one that is not here
fetches it, held to its digest. What is here and stored may go from here at any time (`app.jobs.local_copies`).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import OutOfResources, StorageError
from app.listener.durable import KeptFile
from app.listener.spool import Spool
from app.storage import PART_SUFFIX

if TYPE_CHECKING:
    from app.storage.object_store import ObjectStore

_INSTANCES = "instances/"
_UNMEASURED_BYTES = 1 << 62


class SharedSpool(Spool):
    """A spool whose files are also in the storage. Safe to use from many threads, processes and hosts at once.

    Parameters
    ----------
    store
        The storage that the hosts share.
    """

    is_shared = True

    def __init__(self, folder: Path, low_water_bytes: int, store: ObjectStore) -> None:
        super().__init__(folder, low_water_bytes)
        self._store = store

    def share(self, kept: KeptFile, *, is_new: bool) -> None:
        """Put a file that is kept here into the storage; one that it has already is not sent again."""
        name = _name_of(kept.digest)
        try:
            if is_new or self._store.size(name) != kept.size_bytes:
                self._store.put(name, kept.path, kept.digest)
        except StorageError as error:
            raise OutOfResources(str(error), code=error.code) from error
        except OSError as error:
            raise OutOfResources(
                f"the file went before it was in the shared storage ({os.strerror(error.errno or 0)}); send it again",
                code="spool-write-failed",
            ) from error

    def holds(self, kept: KeptFile) -> bool:
        """Whether the storage has a kept file: of a copy here alone other hosts would know nothing."""
        try:
            return self._store.size(_name_of(kept.digest)) == kept.size_bytes
        except StorageError as error:
            raise OutOfResources(str(error), code=error.code) from error

    def file_of(self, digest: str) -> Path:
        """Return this host's copy of a file, fetched if it is not here; there is none if the storage has none.

        Raises
        ------
        StorageError
            If the storage does not answer, or this host's disk has no room for the copy.
        """
        path = self.path_of(digest)
        if _is_used_now(path):
            return path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._store.get(_name_of(digest), path, digest, self.check_room)
        except OutOfResources as error:
            raise StorageError(f"no copy of what the shared storage has: {error}", code=error.code) from error
        except OSError as error:
            raise StorageError(
                f"no copy of what the shared storage has can be written ({os.strerror(error.errno or 0)}); free or "
                "mend the disk",
                code="spool-write-failed",
            ) from error
        return path

    def is_stored(self, digest: str, size_bytes: int) -> bool:
        """Whether the storage has a file that is here; StorageError if that can't be told."""
        return self._store.size(_name_of(digest)) == size_bytes

    def drop_copy(self, digest: str) -> None:
        """Remove this host's copy of a file; the storage keeps it."""
        self.path_of(digest).unlink(missing_ok=True)

    def sweep_parts(self, seconds: float) -> None:
        """Remove what was half fetched by a process that ended, and has not grown for so long."""
        for part in self._instances.glob(f"??/*{PART_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > seconds:
                    part.unlink()

    def remove_all(self, digests: Collection[str], check: Callable[[], None] = lambda: None) -> None:
        """Remove files for good, from the storage and here; other hosts' copies go when they next look."""
        check()
        self._store.remove([_name_of(one) for one in digests])
        with contextlib.suppress(FileNotFoundError):  # of a host that has received and read nothing
            super().remove_all(digests, check)

    def remove(self, digest: str) -> None:
        """Remove one for good."""
        self.remove_all([digest])

    def free_bytes(self) -> int:
        """Return more than anyone needs: a bucket's room can't be asked for, so nothing goes for want of it."""
        return _UNMEASURED_BYTES

    def all_files(self) -> Iterator[tuple[str, int]]:
        """Yield digest and size in bytes of every file in the storage."""
        for name, size_bytes in self._store.listed(_INSTANCES):
            if name.endswith(".dcm"):
                yield name.rpartition("/")[2].removesuffix(".dcm"), size_bytes

    def size_of(self, digest: str) -> int | None:
        """Return the size in bytes of a file in the storage; None if there is none."""
        return self._store.size(_name_of(digest))

    def age_of(self, digest: str) -> float:
        """Return 0: the storage's clock may be any."""
        return 0.0

    def read_digest(self, digest: str) -> str | None:
        """Read a file in the storage and return its SHA-256 in hexadecimal; None if there is none."""
        return self._store.digest_of(_name_of(digest))


def _name_of(digest: str) -> str:
    return f"{_INSTANCES}{digest[:2]}/{digest}.dcm"


def _is_used_now(path: Path) -> bool:
    """Say by the file's time that it is read now, so that it is not among the first to go; False if it is not here."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True
