"""Where the files of jobs' results lie: in the folder of this host, or besides in storage that hosts share.

::

    results/<job>/<sha256>.dcm   in the storage; a host's folder has them as its attempts wrote them

What is recorded as a result is stored before. A host that is to read one which another has made fetches it, held to
the recorded digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import StorageError
from app.telemetry import get_logger

if TYPE_CHECKING:
    from app.storage.object_store import ObjectStore

_RESULTS = "results/"
_FETCHED = "fetched"
_PATIENCE_SECONDS = 600.0

_log = get_logger(__name__)


class ResultFiles:
    """The files of results where all hosts see one folder.

    Parameters
    ----------
    folder
        One folder a job lies in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def share(self, job_id: uuid.UUID, files: Iterable[tuple[str, Path]]) -> None:
        """Let other hosts have files, each with its digest, before they are recorded; here nothing is to be done.

        Raises
        ------
        StorageError
            If they can't have them now: they must not be recorded.
        """

    def file_of(self, job_id: uuid.UUID, digest: str, path: Path) -> Path:
        """Return where to read the file that was recorded at `path`; there is none if this host can have none.

        Raises
        ------
        StorageError
            If another host may have it and that can't be told now.
        """
        return path

    def exists(self, job_id: uuid.UUID, digest: str, path: Path) -> bool:
        """Whether the file is there for all hosts."""
        return path.is_file()

    def read_digest(self, job_id: uuid.UUID, digest: str, path: Path) -> str | None:
        """Read the file and return its SHA-256 in hexadecimal; None if there is none."""
        return _digest_of(path)

    def sizes(self) -> dict[uuid.UUID, tuple[int, int]]:
        """Return of each job how many files it has, and what they take."""
        return self.local_sizes()

    def local_sizes(self) -> dict[uuid.UUID, tuple[int, int]]:
        """Return the same of what lies on this host's disk."""
        sizes = {}
        for path in self.folder.glob("*-*-*-*-*"):
            try:
                sizes[uuid.UUID(path.name)] = _size_of(path)
            except ValueError:
                continue  # not ours
        return sizes

    def idle_seconds(self, job_id: uuid.UUID) -> float | None:
        """Return the seconds since anything was written for a job; None if that can't be told."""
        return _idle_seconds(self.folder / str(job_id))

    def remove(self, job_id: uuid.UUID) -> None:
        """Remove a job's files for good."""
        self.drop_copies(job_id)

    def drop_copies(self, job_id: uuid.UUID) -> None:
        """Remove what lies of a job on this host's disk."""
        shutil.rmtree(self.folder / str(job_id), ignore_errors=True)


class SharedResultFiles(ResultFiles):
    """The files of results that hosts share through storage."""

    def __init__(self, folder: Path, store: ObjectStore) -> None:
        super().__init__(folder)
        self._store = store

    def share(self, job_id: uuid.UUID, files: Iterable[tuple[str, Path]]) -> None:
        """Put files into the storage, and see that it has them whole."""
        for digest, path in files:
            name, size_bytes = _name_of(job_id, digest), path.stat().st_size
            if self._store.size(name) == size_bytes:
                continue
            self._store.put(name, path, digest)
            found = self._store.size(name)
            if found != size_bytes:
                raise StorageError(f"the shared storage took {size_bytes} bytes and has {found}; see to the storage")

    def file_of(self, job_id: uuid.UUID, digest: str, path: Path) -> Path:
        """Return this host's own file if it is the recorded one, else a fetched one."""
        fetched = self.folder / str(job_id) / _FETCHED / f"{digest}.dcm"
        for known in (path, fetched):
            if _digest_of(known) == digest:
                return known
        try:
            fetched.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            is_there = self._store.get(_name_of(job_id, digest), fetched, digest)
        except OSError as error:
            raise StorageError(
                f"no copy of a result can be written ({os.strerror(error.errno or 0)}); free or mend the disk",
                code="spool-write-failed",
            ) from error
        return fetched if is_there else path

    def exists(self, job_id: uuid.UUID, digest: str, path: Path) -> bool:
        """Whether the storage has the file."""
        return self._store.size(_name_of(job_id, digest)) is not None

    def read_digest(self, job_id: uuid.UUID, digest: str, path: Path) -> str | None:
        """Read the file in the storage."""
        return self._store.digest_of(_name_of(job_id, digest))

    def sizes(self) -> dict[uuid.UUID, tuple[int, int]]:
        """Return of each job what it has in the storage."""
        sizes: dict[uuid.UUID, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for name, size_bytes in self._store.listed(_RESULTS):
            try:
                job_id = uuid.UUID(name.split("/")[1])
            except ValueError:
                continue  # not ours
            files, total = sizes[job_id]
            sizes[job_id] = files + 1, total + size_bytes
        return dict(sizes)

    def idle_seconds(self, job_id: uuid.UUID) -> float | None:
        """Return None: the storage's clock may be any."""
        return None

    def remove(self, job_id: uuid.UUID) -> None:
        """Remove a job's files from the storage and here; other hosts' copies go when they next look."""
        self._store.remove([name for name, _ in self._store.listed(f"{_RESULTS}{job_id}/")])
        self.drop_copies(job_id)


def share_patiently(
    files: ResultFiles,
    job_id: uuid.UUID,
    made: Sequence[tuple[str, Path]],
    hurries: Sequence[threading.Event],
    seconds: float = _PATIENCE_SECONDS,
) -> None:
    """Let other hosts have files that took long to make: storage that is away is waited for, if nothing hurries.

    Raises
    ------
    StorageError
        If it stays away for so many seconds, or one of `hurries` is set.
    """
    ends = time.monotonic() + seconds
    while True:
        try:
            files.share(job_id, made)
        except StorageError as error:
            if time.monotonic() > ends or any(one.is_set() for one in hurries):
                raise
            _log.warning("results.not_shared", job_id=str(job_id), code=error.code)
            hurries[0].wait(1.0)
        else:
            return


def _name_of(job_id: uuid.UUID, digest: str) -> str:
    return f"{_RESULTS}{job_id}/{digest}.dcm"


def _digest_of(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _size_of(folder: Path) -> tuple[int, int]:
    """How many files are in a folder, and what they take."""
    count = total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(path, name)).st_size
                count += 1
            except FileNotFoundError:
                continue
    return count, total


def _idle_seconds(folder: Path) -> float | None:
    """How long ago the youngest file or folder in a folder, itself counted, was written; None if it is gone."""
    youngest: list[float] = []
    for path, _, names in os.walk(folder):
        for name in ("", *names):
            with contextlib.suppress(FileNotFoundError):
                youngest.append(os.stat(os.path.join(path, name)).st_mtime)
    return time.time() - max(youngest) if youngest else None
