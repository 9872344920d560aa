"""Whether an audit log is as it was written, and if not, which records are not.

The chain shows every change by somebody who does not rewrite all that follows and the head file too. Against one
who can write both files, only a copy of the head kept elsewhere helps.
"""

from __future__ import annotations

import os
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.audit.chain import GENESIS, HEAD_NAME, LOG_NAME, Link, parse_line, read_head
from app.errors import AuditError

_WRITER_SECONDS = 1.0
"""How long the end of a log may look unfinished because a server is writing it just now."""
_PAUSE_SECONDS = 0.02
_PROBLEMS_SHOWN = 100


@dataclass(frozen=True)
class AuditReport:
    """What was found; `problems` are sentences for people that name the record."""

    ok: bool
    records: int
    problems: tuple[str, ...]


@dataclass
class _Reading:
    """What a log's lines say, in file order."""

    sequences: array[int] = field(default_factory=lambda: array("q"))
    """A line's sequence number, or 0 where the line is no record or was edited."""
    loose: set[int] = field(default_factory=set)
    """Indices of records whose `previous` is not the hash of the record in the line before."""
    torn_bytes: int = 0
    """Bytes after the last line feed."""
    head_found: bool = False
    """Whether the record that the head names is among them."""


def verify(folder: Path) -> AuditReport:
    """Check the whole audit log in `folder`: every record's hash, its place in the chain, and the head.

    A server may be writing it meanwhile. Nothing is changed.

    Raises
    ------
    AuditError
        If there is no log or it can't be read; never for what it holds.
    """
    problems = []
    try:
        head = _retried_head(folder)
    except AuditError as error:
        head = None
        problems.append(str(error))
    else:
        if head is None:
            problems.append(f"the head file is missing from {folder}")
    path = folder / LOG_NAME
    if not path.exists():
        if head is None and len(problems) == 1 and not (folder / HEAD_NAME).exists():
            raise AuditError(f"there is no audit log in {folder}")
        return AuditReport(ok=False, records=0, problems=(*problems, f"the log file {path} is missing"))
    try:
        reading = _read(path, head)
    except OSError as error:
        raise AuditError(f"the audit log {path} can't be read: {error.strerror}") from error
    problems += _structure_problems(reading, head)
    problems += _ending_problems(reading, head, folder)
    count = len(problems)
    if count > _PROBLEMS_SHOWN:
        problems[_PROBLEMS_SHOWN:] = [f"and {count - _PROBLEMS_SHOWN} problems more"]
    return AuditReport(ok=not problems, records=len(reading.sequences), problems=tuple(problems))


def _retried_head(folder: Path) -> Link | None:
    """Read the head; once more if it was met while being written."""
    try:
        return read_head(folder)
    except AuditError:
        time.sleep(_PAUSE_SECONDS)
        return read_head(folder)


def _read(path: Path, head: Link | None) -> _Reading:
    reading = _Reading()
    previous: str | None = GENESIS.hash
    for line in _lines(path):
        if not line.endswith(b"\n"):
            reading.torn_bytes = len(line)
            break
        intact = parse_line(line[:-1])
        if intact is None:
            reading.sequences.append(0)
            previous = None
            continue
        if previous is not None and intact.previous != previous:
            reading.loose.add(len(reading.sequences))
        reading.sequences.append(intact.link.sequence)
        reading.head_found = reading.head_found or intact.link == head
        previous = intact.link.hash
    return reading


def _lines(path: Path) -> Iterator[bytes]:
    """Yield lines; wait a moment for the rest of a last one that a server may be writing."""
    deadline = 0.0
    with path.open("rb") as log:
        while line := log.readline():
            if not line.endswith(b"\n"):
                deadline = deadline or time.monotonic() + _WRITER_SECONDS
                if time.monotonic() < deadline:
                    time.sleep(_PAUSE_SECONDS)
                    log.seek(-len(line), os.SEEK_CUR)
                    continue
            yield line


def _structure_problems(reading: _Reading, head: Link | None) -> list[str]:
    """Say what was edited, deleted, moved or inserted, going by the records that stand in order."""
    sequences = reading.sequences
    if all(sequence == index for index, sequence in enumerate(sequences, 1)):
        in_order: Sequence[int] = range(len(sequences))
        misplaced = []
    else:
        in_order = _longest_increasing(sequences)
        kept = set(in_order)
        misplaced = [index for index, sequence in enumerate(sequences) if sequence and index not in kept]
    last = max(head.sequence if head else 0, sequences[in_order[-1]] if in_order else 0)
    moved = sorted({sequences[index] for index in misplaced} - {sequences[index] for index in in_order})
    problems = [_misplaced_problem(sequences, index, moved, last) for index in misplaced]
    problems += _gap_problems(reading, in_order, moved, last)
    return problems + _replaced_problems(reading, in_order, head)


def _longest_increasing(sequences: Sequence[int]) -> list[int]:
    """Return the indices of a longest strictly increasing run of non-zero numbers, gaps allowed."""
    lowest: list[int] = []  # the lowest number that ends a run of each length
    ends: list[int] = []  # and its index
    before = array("q", bytes(8 * len(sequences)))
    for index, sequence in enumerate(sequences):
        if sequence == 0:
            continue
        length = bisect_left(lowest, sequence)
        before[index] = ends[length - 1] if length else -1
        lowest[length : length + 1] = [sequence]
        ends[length : length + 1] = [index]
    run = []
    index = ends[-1] if ends else -1
    while index >= 0:
        run.append(index)
        index = before[index]
    return run[::-1]


def _misplaced_problem(sequences: Sequence[int], index: int, moved: Sequence[int], last: int) -> str:
    sequence, line = sequences[index], index + 1
    if sequence > last:
        return f"line {line} was inserted: it says it is record {sequence}, and there are {last}"
    if sequence not in moved:
        return f"record {sequence} stands twice, once in line {line}: a record was inserted"
    return f"record {sequence} stands in the wrong place (line {line}): records were reordered"


def _gap_problems(reading: _Reading, in_order: Sequence[int], moved: Sequence[int], last: int) -> list[str]:
    """Say, for each gap in the numbers, which records were edited (a damaged line is there) and which are missing."""
    problems = []
    sequences, end = reading.sequences, len(reading.sequences)
    before, line_before = 0, -1
    for line in [*in_order, end]:
        sequence = sequences[line] if line < end else last + 1
        if line == line_before + 1 and sequence == before + 1:
            before, line_before = sequence, line
            continue
        damaged = [index for index in range(line_before + 1, line) if sequences[index] == 0]
        for first, past in _without(before + 1, sequence, moved):
            edited = damaged[: past - first]
            damaged = damaged[len(edited) :]
            problems += [
                f"record {number} (line {index + 1}) was edited: it no longer has its hash"
                for number, index in enumerate(edited, first)
            ]
            if first + len(edited) < past:
                problems.append(_missing(first + len(edited), past - 1, at_end=line == end))
        problems += [f"line {index + 1} was inserted: it is not a record of this log" for index in damaged]
        before, line_before = sequence, line
    return problems


def _without(first: int, past: int, moved: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the ranges that are left of `first` to `past` (excluded) without the numbers in `moved`."""
    for number in moved[bisect_left(moved, first) : bisect_left(moved, past)]:
        if first < number:
            yield first, number
        first = number + 1
    if first < past:
        yield first, past


def _missing(first: int, last: int, *, at_end: bool) -> str:
    records = f"record {first} is" if first == last else f"records {first} to {last} are"
    return f"{records} missing: " + ("the end of the log was cut off" if at_end else "deleted")


def _replaced_problems(reading: _Reading, in_order: Sequence[int], head: Link | None) -> list[str]:
    """Say which records have a hash of their own that is not the one their successor, or the head, names."""
    sequences = reading.sequences
    lines = set(in_order)
    breaks = {
        line
        for line in reading.loose & lines
        if (line - 1 in lines or line == 0) and sequences[line] == (sequences[line - 1] if line else 0) + 1
    }
    if head is not None and head.sequence and not reading.head_found:
        breaks |= {line + 1 for line in in_order if sequences[line] == head.sequence}
    problems, told = [], -1
    for line in sorted(breaks):
        # a replaced record breaks the chain on one side or on both; on both, it is named once
        if line == told:
            continue
        culprit = line if line + 1 in breaks else line - 1
        told = culprit + 1
        if culprit < 0:
            problems.append("record 1 was replaced: it does not begin the chain")
        else:
            number = sequences[culprit]
            problems.append(f"record {number} (line {culprit + 1}) was replaced: it is not the one the chain names")
    return problems


def _ending_problems(reading: _Reading, head: Link | None, folder: Path) -> list[str]:
    problems = []
    last = max(reading.sequences, default=0)
    if reading.torn_bytes:
        problems.append(
            f"the line after record {last} is incomplete ({reading.torn_bytes} bytes): a crash while it was written, "
            "or the end was cut; the server's next start tells which"
        )
    deadline = time.monotonic() + _WRITER_SECONDS
    while head is not None and head.sequence < last <= len(reading.sequences):
        if time.monotonic() > deadline:
            problems.append(
                f"the records after {head.sequence}, up to {last}, are not named by the head file: a crash just after "
                "they were written, or added by somebody else; the server's next start records it"
            )
            break
        time.sleep(_PAUSE_SECONDS)
        head = _retried_head(folder)
    return problems
