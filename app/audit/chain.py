"""The format of the audit log's two files: records as canonical JSON lines, chained by SHA-256, and the head.

``audit.jsonl`` holds one record a line. ``audit.head`` holds the sequence number and the hash of the newest record; it
is written after that record is on the disk, so the log may run ahead of its head (a crash in between), and
never lags behind.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Union

from app.audit.events import DETAIL_KEYS, AuditEvent, Outcome
from app.errors import AuditError

LOG_NAME = "audit.jsonl"
HEAD_NAME = "audit.head"
MAXIMUM_LINE_BYTES = 65536
"""Longer records are refused, so that the last one is found by reading little."""

Detail = Union[str, int, float, bool, "list[str]"]

_NO_HASH = "0" * 64
_HEAD = re.compile(rb"([0-9]{20}) ([0-9a-f]{64})\n")
_MEMBERS = {"sequence", "time", "event", "event_id", "event_type", "outcome", "detail", "previous", "hash"}


@dataclass(frozen=True)
class Link:
    """A place in the chain: the sequence number of a record, from 1, and its hash (64 hexadecimal digits)."""

    sequence: int
    hash: str

    def as_head(self) -> bytes:
        """Return the head file's content; always 86 bytes, so that it is overwritten in one piece."""
        return f"{self.sequence:020d} {self.hash}\n".encode()


GENESIS = Link(0, _NO_HASH)
"""What the first record follows."""


def canonical(value: object) -> bytes:
    """Return `value` as the one JSON text it has here: ASCII, members sorted, no spaces."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()


def now() -> str:
    """Return the time as records hold it: UTC, ISO 8601, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def compose(event: AuditEvent, outcome: Outcome, detail: dict[str, Detail]) -> dict[str, Any]:
    """Return a record without its place in the chain.

    Raises
    ------
    AuditError
        If `detail` has a key that is not in `DETAIL_KEYS` or a value of another kind than text, number, flag or texts.
    """
    for key, value in detail.items():
        if key not in DETAIL_KEYS:
            raise AuditError(
                f"audit event {event.name}: '{key}' is not among the keys that a record may have; "
                "app/audit/events.py lists them, and none is for a patient's data",
                code="audit-detail",
            )
        texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if not texts and not isinstance(value, (str, int, float, bool)):
            raise AuditError(
                f"audit event {event.name}: '{key}' is a {type(value).__name__}; expected text, a number, true or "
                "false, or a list of texts",
                code="audit-detail",
            )
    record = {
        "event": event.name,
        "event_id": event.event_id.as_json(),
        "event_type": None if event.event_type is None else event.event_type.as_json(),
        "outcome": int(outcome),
        "detail": dict(detail),
        "time": now(),
    }
    try:
        size = len(canonical(record))
    except ValueError as error:  # not a number, infinity
        raise AuditError(f"audit event {event.name}: a number is not finite", code="audit-detail") from error
    if size > MAXIMUM_LINE_BYTES - 256:
        raise AuditError(
            f"audit event {event.name}: the record has {size} bytes, and {MAXIMUM_LINE_BYTES - 256} are allowed",
            code="audit-detail",
        )
    return record


def chain(record: dict[str, Any], after: Link) -> tuple[bytes, Link]:
    """Return `record` as the line that follows `after`, and the link it makes."""
    placed = record | {"sequence": after.sequence + 1, "previous": after.hash}
    digest = hashlib.sha256(canonical(placed)).hexdigest()
    return canonical(placed | {"hash": digest}) + b"\n", Link(after.sequence + 1, digest)


@dataclass(frozen=True)
class Intact:
    """A line that is a record whose content has its hash."""

    record: dict[str, Any]
    link: Link
    previous: str


def parse_line(line: bytes) -> Intact | None:
    """Return the record in `line` (without its line feed), or None if it is no record or was edited.

    A line must be, byte for byte, the canonical JSON of its record: even an added space counts as an edit.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or set(record) != _MEMBERS:
        return None
    sequence, previous, digest = record["sequence"], record["previous"], record["hash"]
    if type(sequence) is not int or not 0 < sequence < 1 << 62:
        return None
    if not isinstance(previous, str) or not isinstance(digest, str):
        return None
    bare = {key: value for key, value in record.items() if key != "hash"}
    try:
        if canonical(record) != line or hashlib.sha256(canonical(bare)).hexdigest() != digest:
            return None
    except ValueError:
        return None
    return Intact(record, Link(sequence, digest), previous)


def read_head(folder: Path) -> Link | None:
    """Return what the head file names, or None if there is no head file.

    Raises
    ------
    AuditError
        If the file can't be read or is not a head.
    """
    try:
        content = (folder / HEAD_NAME).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AuditError(f"the head file {folder / HEAD_NAME} can't be read: {error.strerror}") from error
    found = _HEAD.fullmatch(content)
    if found is None:
        raise AuditError(f"the head file {folder / HEAD_NAME} was damaged or edited: it is not a number and a hash")
    return Link(int(found[1]), found[2].decode())


def read_records(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of the log in `folder`, oldest first, without verifying the chain.

    Raises
    ------
    AuditError
        If a line is no record; `verify` says more.
    """
    path = folder / LOG_NAME
    if not path.is_file():
        return
    with path.open("rb") as log:
        for number, line in enumerate(log, 1):
            if not line.endswith(b"\n"):
                return  # being written now, or torn by a crash
            intact = parse_line(line[:-1])
            if intact is None:
                raise AuditError(f"line {number} of {path} is not a record or was edited; see `limner audit verify`")
            yield intact.record
