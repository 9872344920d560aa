"""The copies that one host has of what hosts share through storage, kept within the room there is.

A copy goes where retention has removed what it is a copy of, and, where room is wanted, when it was not used for
longest. No copy goes for want of room that the storage does not hold. What was used within the last hour, or as long as
a graph or a session may take, stays: someone may read it. The quarantine, which is this host's alone, goes before.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Protocol

import psycopg

from app.errors import AuditError, StorageError
from app.jobs.records import Records
from app.jobs.result_files import SharedResultFiles
from app.jobs.retention import Retention
from app.settings import Settings
from app.telemetry import get_logger

_USED_SECONDS = 3600.0
_TIDY_SECONDS = 300.0
_BATCH = 10_000

_log = get_logger(__name__)


class CopiedSpool(Protocol):
    """The spool: `app.listener.shared_spool.SharedSpool`."""

    def disk_free_bytes(self) -> int:
        """Return the free space of this host's disk."""
        ...

    def local_files(self) -> Iterator[tuple[str, int]]:
        """Yield digest and size in bytes of every file here."""
        ...

    def path_of(self, digest: str) -> Path:
        """Return where a file lies here."""
        ...

    def is_stored(self, digest: str, size_bytes: int) -> bool:
        """Whether the storage has a file that is here."""
        ...

    def drop_copy(self, digest: str) -> None:
        """Remove a file here."""
        ...

    def sweep_parts(self, seconds: float) -> None:
        """Remove what was half fetched and has not grown for so long."""
        ...


class LocalCopies:
    """Keeps the copies: a service of each process that has storage to share."""

    def __init__(
        self,
        *,
        settings: Settings,
        records: Records,
        spool: CopiedSpool,
        results: SharedResultFiles,
        retention: Retention | None,
    ) -> None:
        self._records = records
        self._spool = spool
        self._results = results
        self._retention = retention
        self._seconds = settings.retention.look_seconds
        self._least_free_bytes = settings.least_free_bytes
        longest = max((one.time_limit_seconds for one in settings.pipeline), default=0.0)
        self._used_seconds = max(_USED_SECONDS, settings.web.idle_seconds, longest + 600.0)
        self._tidied: float | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Look every ``retention.look_seconds`` until `stop` is set. What is away is waited for."""
        while not stop.is_set():
            try:
                await asyncio.to_thread(self.look)
            except (psycopg.Error, AuditError, StorageError, OSError) as error:
                _log.warning("local_copies.not_looked", error=type(error).__name__)
            try:
                await asyncio.wait_for(stop.wait(), self._seconds)
            except TimeoutError:
                continue

    def look(self) -> None:
        """Remove what is to go: for want of room at once, the rest every few minutes."""
        if not self._has_room():
            self.make_room()
        if self._tidied is None or time.monotonic() - self._tidied > _TIDY_SECONDS:
            self.tidy()
            self._tidied = time.monotonic()

    def tidy(self) -> None:
        """Remove the copies of what is removed, results that nothing needs, and what is too old in the quarantine."""
        self._spool.sweep_parts(_USED_SECONDS)
        unused = (digest for digest, _, _ in self._unused())
        while batch := list(islice(unused, _BATCH)):
            for digest in self._records.removed_of(batch):
                self._spool.drop_copy(digest)
        self._drop_results()
        if self._retention is not None:
            self._retention.remove_refused()

    def make_room(self) -> None:
        """Remove the quarantine, then copies, what is oldest or not used for longest first, until there is room."""
        self._remove_refused()
        dropped = 0
        for digest, size_bytes, _ in sorted(self._unused(), key=lambda one: one[2], reverse=True):
            if self._has_room():
                break
            if self._spool.is_stored(digest, size_bytes):
                self._spool.drop_copy(digest)
                dropped += 1
        if not self._has_room():
            self._drop_results()
        _log.info("local_copies.made_room", count=dropped, bytes=self._spool.disk_free_bytes())

    def _has_room(self) -> bool:
        return self._spool.disk_free_bytes() >= self._least_free_bytes

    def _remove_refused(self) -> None:
        if self._retention is None:
            return
        try:
            self._retention.remove_refused_for_room(self._has_room)
        except AuditError as error:  # copies go without a line: their going may be what the audit log waits for
            _log.warning("local_copies.quarantine_stays", code=error.code)

    def _unused(self) -> Iterator[tuple[str, int, float]]:
        """Yield digest, size in bytes and idle seconds of each instance that nobody can be reading."""
        now = time.time()
        for digest, size_bytes in self._spool.local_files():
            try:
                idle = now - self._spool.path_of(digest).stat().st_mtime
            except FileNotFoundError:
                continue
            if idle > self._used_seconds:
                yield digest, size_bytes, idle

    def _drop_results(self) -> None:
        """Remove here the results of jobs that need them no more: what is recorded of them is in the storage."""
        jobs = list(self._results.local_sizes())
        for one in self._records.kept_results((), 0.0, jobs):
            if not one.needed_by and one.idle_seconds > self._used_seconds and self._are_stored(one.job_id):
                self._results.drop_copies(one.job_id)

    def _are_stored(self, job_id: uuid.UUID) -> bool:
        job = self._records.job(job_id)
        return job is not None and all(
            self._results.exists(job_id, one.digest, Path(one.path)) or not Path(one.path).is_file()
            for one in job.results
        )
