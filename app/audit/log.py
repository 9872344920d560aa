"""The audit log: hash-chained JSON lines, each on the disk before what it tells of leaves the process.

What may go on at once: any number of threads append; the first that gets the file writes the records of all that wait,
with one ``fdatasync`` for them all. One process writes (``flock`` on the log); any number read, with `read_records` and
`verify`, while it does.
"""

from __future__ import annotations

import fcntl
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from app.audit.chain import (
    GENESIS,
    HEAD_NAME,
    LOG_NAME,
    MAXIMUM_LINE_BYTES,
    Detail,
    Link,
    chain,
    compose,
    now,
    parse_line,
    read_head,
    read_records,
)
from app.audit.events import AuditEvent, Outcome
from app.audit.verification import AuditReport, verify
from app.errors import AuditError

__all__ = ["AuditLog", "AuditReport", "read_records", "verify"]

_KEEP = (
    "keep the folder as it is, look at it with `limner audit verify`, and only then move it aside to begin a new log"
)


@dataclass(eq=False)
class _Waiting:
    """A record that a thread waits for."""

    record: dict[str, Any]
    settled: bool = False
    failure: str | None = "writing the audit log was interrupted"


@dataclass(frozen=True)
class _Tail:
    """The end of a log as it was found: its newest record, and what a crash left."""

    newest: Link
    end: int
    """Bytes up to the end of the newest record."""
    ahead: int
    """Records that the head file does not name yet."""
    torn: int
    """Bytes after the end: a line that was not written to its end."""


class AuditLog:
    """The log in a folder, open for appending. Use it as a context manager, or `open` and `close` it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._queue: list[_Waiting] = []
        self._queue_lock = threading.Lock()  # for the queue; held for moments
        self._file_lock = threading.Lock()  # for all below; held while the disk works
        self._log: int | None = None
        self._head = -1
        self._newest = GENESIS
        self._end = 0
        self._junk = False  # bytes may lie after the end: a torn line, or what a failed write left
        self._broken = ""  # why nothing can be written any more

    @property
    def newest(self) -> int:
        """The sequence number of the newest record; 0 if there is none."""
        return self._newest.sequence

    def open(self) -> None:
        """Open the log for appending; make it if there is none; put in order what a crash left, and record that.

        Raises
        ------
        AuditError
            If another process writes it, its files can't be used, or its end contradicts its head: records were cut
            off or changed.
        """
        with self._file_lock:
            if self._log is not None:
                raise AuditError("the audit log is open already", code="audit-in-use")
            try:
                tail = self._open_files()
            except OSError as error:
                self._close_files()
                raise AuditError(f"the audit log in {self.folder} can't be opened: {error.strerror}") from error
            except AuditError:
                self._close_files()
                raise
        if tail.torn or tail.ahead:
            try:
                self.append(AuditEvent.AUDIT_LOG_REPAIRED, cut_bytes=tail.torn, reason=_repair_reason(tail))
            except AuditError:
                self.close()
                raise

    def close(self) -> None:
        """Close the log; records that threads wait for are written first. Closing twice does no harm."""
        with self._file_lock:
            self._close_files()

    def __enter__(self) -> AuditLog:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, event: AuditEvent, outcome: Outcome = Outcome.SUCCESS, **detail: Detail) -> None:
        """Append a record; when this returns, it is on the disk. Threads may call it at once.

        Parameters
        ----------
        event
            What happened, or is about to.
        outcome
            How it went.
        detail
            What is said about it, by the keys of `app.audit.events.DETAIL_KEYS`.

        Raises
        ------
        AuditError
            If `detail` says what it may not, or the record can't be written. It is then not in the log, and what it
            would have told of must not be done.
        """
        waiting = _Waiting(compose(event, outcome, detail))
        with self._queue_lock:
            waiting.record["time"] = now()  # here, so that times go the way of the sequence
            self._queue.append(waiting)
        with self._file_lock:
            if not waiting.settled:
                self._write_queue()
        if waiting.failure is not None:
            raise AuditError(waiting.failure, code="audit-write")

    def _write_queue(self) -> None:
        with self._queue_lock:
            batch, self._queue = self._queue, []
        failure: str | None = "writing the audit log was interrupted"
        try:
            failure = self._write([waiting.record for waiting in batch])
        finally:
            for waiting in batch:
                waiting.failure = failure
                waiting.settled = True

    def _write(self, records: list[dict[str, Any]]) -> str | None:
        """Write records after the newest; return why that failed, or None."""
        if self._log is None:
            return "the audit log is not open"
        if self._broken:
            return self._broken
        newest, lines = self._newest, []
        for record in records:
            line, newest = chain(record, newest)
            lines.append(line)
        data = b"".join(lines)
        try:
            self._put(self._log, data, newest)
        except OSError as error:
            self._take_back(self._log)
            return f"the audit log in {self.folder} can't be written: {error.strerror}; nothing goes on until it can"
        self._newest, self._end = newest, self._end + len(data)
        return None

    def _put(self, log: int, data: bytes, newest: Link) -> None:
        junk, self._junk = self._junk, True
        _write_at(log, data, self._end)
        if junk:
            os.ftruncate(log, self._end + len(data))
        self._broken = (
            f"the audit log in {self.folder} could not be synced to its disk, which no longer can be trusted to hold "
            "it; see to the disk, then start the server again"
        )
        os.fdatasync(log)
        _write_at(self._head, newest.as_head(), 0)  # not synced: after a power cut the log may run ahead of it
        self._broken, self._junk = "", False

    def _take_back(self, log: int) -> None:
        try:
            os.ftruncate(log, self._end)
        except OSError:
            return  # the next write does it
        self._junk = False

    def _open_files(self) -> _Tail:
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._log = os.open(self.folder / LOG_NAME, os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AuditError(
                f"the audit log in {self.folder} is being written by another server; stop that one, or give this one "
                "a --name or a `data_folder` of its own",
                code="audit-in-use",
            ) from error
        head = read_head(self.folder)
        if head is None:
            if os.fstat(self._log).st_size:
                raise AuditError(
                    f"the audit log in {self.folder} has records but no head file; {_KEEP}", code="audit-chain"
                )
            head = GENESIS
            _make_head(self.folder)
        self._head = os.open(self.folder / HEAD_NAME, os.O_RDWR)
        tail = _find_tail(self._log, head, self.folder)
        self._newest, self._end = tail.newest, tail.end
        self._junk, self._broken = tail.torn > 0, ""
        return tail

    def _close_files(self) -> None:
        if self._log is None:
            return
        if self._head >= 0:
            os.close(self._head)
        os.close(self._log)  # releases the lock too
        self._log, self._head = None, -1


def _repair_reason(tail: _Tail) -> str:
    reasons = []
    if tail.torn:
        reasons.append("the last line was incomplete, as a crash leaves it, and was cut")
    if tail.ahead:
        reasons.append(f"the newest records ({tail.ahead}) were not yet named by the head file and were kept")
    return "; ".join(reasons)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _make_head(folder: Path) -> None:
    part = folder / f"{HEAD_NAME}.part"
    part.write_bytes(GENESIS.as_head())
    part.replace(folder / HEAD_NAME)
    for path in (folder / HEAD_NAME, folder):  # content, then both files' names
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _find_tail(log: int, head: Link, folder: Path) -> _Tail:
    """Find the newest record, reading backwards no further than the record that `head` names."""
    size = os.fstat(log).st_size
    reach = 2 * MAXIMUM_LINE_BYTES
    while True:
        start = max(0, size - reach)
        *lines, rest = os.pread(log, size - start, start).split(b"\n")
        whole = lines if start == 0 else lines[1:]  # the first may have begun before
        found = _lines_after(whole, head, from_start=start == 0)
        if found is not None:
            newest = _follow(found, head, folder)
            return _Tail(newest, size - len(rest), newest.sequence - head.sequence, len(rest))
        first = next((intact for line in whole if (intact := parse_line(line))), None)
        if start == 0 or (first is not None and first.link.sequence <= head.sequence):
            raise _contradiction(whole, head, folder)
        reach *= 4


def _lines_after(lines: list[bytes], head: Link, *, from_start: bool) -> list[bytes] | None:
    if head == GENESIS:
        return lines if from_start else None
    for index in range(len(lines) - 1, -1, -1):
        if head.hash.encode() in lines[index]:
            intact = parse_line(lines[index])
            if intact is not None and intact.link == head:
                return lines[index + 1 :]
    return None


def _follow(lines: list[bytes], head: Link, folder: Path) -> Link:
    newest = head
    for line in lines:
        intact = parse_line(line)
        if intact is None or intact.previous != newest.hash or intact.link.sequence != newest.sequence + 1:
            raise AuditError(
                f"the audit log in {folder} was changed: what stands after record {newest.sequence} does not follow "
                f"it; {_KEEP}",
                code="audit-chain",
            )
        newest = intact.link
    return newest


def _contradiction(lines: list[bytes], head: Link, folder: Path) -> AuditError:
    last = next((intact.link.sequence for line in reversed(lines) if (intact := parse_line(line))), 0)
    if last < head.sequence:
        problem = f"its head file names record {head.sequence}, and it ends at record {last}: records were cut off"
    else:
        problem = f"its head file names a record {head.sequence} that is not in it: records were changed"
    return AuditError(f"the audit log in {folder} was tampered with: {problem}; {_KEEP}", code="audit-chain")
