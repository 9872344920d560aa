"""What the records, the results' folder and the audit logs say of jobs at a moment, and who wrote to rows since."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from app.audit.log import read_records

_TABLES = ("jobs", "results", "steps", "findings", "deliveries")
_NOTE_WRITES = """
CREATE TABLE written (number bigserial, at timestamptz DEFAULT clock_timestamp(),
                      who text DEFAULT current_setting('application_name'), what text, row jsonb);
CREATE FUNCTION note_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO written (what, row) VALUES (TG_TABLE_NAME, to_jsonb(coalesce(NEW, OLD)));
    RETURN NULL;
END $$;
"""


def note_writes(url: str) -> None:
    """Have the database note every write to what it keeps of jobs, with the name that the writer gave itself."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_NOTE_WRITES)
        for table in _TABLES:
            connection.execute(
                f"CREATE TRIGGER note_write AFTER INSERT OR UPDATE OR DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION note_write()"
            )


class Write(NamedTuple):
    """A write to one row."""

    number: int
    at: datetime
    who: str
    what: str
    row: dict[str, Any]

    @property
    def is_of_delivery(self) -> bool:
        """Whether it is about sending, and not about making."""
        return self.what == "deliveries"

    @property
    def subject(self) -> tuple[str, ...]:
        """What the attempt is an attempt of: a job, or an object and its destination."""
        if self.is_of_delivery:
            return self.row["job_id"], self.row["digest"], self.row["destination"]
        return (self.row["id" if self.what == "jobs" else "job_id"],)

    @property
    def attempt(self) -> int:
        """The number that fences it."""
        return int(self.row["attempts" if self.is_of_delivery else "attempt"])


@dataclass(frozen=True)
class Written:
    """What there is at a moment."""

    rows: frozenset[tuple[str, str]]
    """Table and row."""
    files: frozenset[tuple[str, str]]
    """Path, and for a file its content's digest and its time."""
    audit: dict[str, int]
    """How many entries each worker's log has."""
    attempts: dict[tuple[str, ...], int]
    """The newest attempt of each subject."""
    numbers: frozenset[int]
    """The writes until then."""

    @classmethod
    def now(cls, url: str, results: Path, logs: Sequence[Path]) -> Written:
        """Look at everything."""
        with psycopg.connect(url) as connection:
            rows = {
                (table, row[0])
                for table in _TABLES
                for row in connection.execute(f"SELECT to_jsonb({table})::text FROM {table}")  # noqa: S608 - of the list above
            }
        writes = list(read_writes(url))
        attempts: dict[tuple[str, ...], int] = {}
        for one in writes:
            if one.what in ("jobs", "deliveries"):
                attempts[one.subject] = max(one.attempt, attempts.get(one.subject, 0))
        return cls(
            frozenset(rows),
            frozenset(_files(results)),
            {one.name: len(list(read_records(one))) for one in logs},
            attempts,
            frozenset(one.number for one in writes),
        )

    def late_writes(self, url: str, names: Collection[str]) -> list[Write]:
        """Return what these have written since of attempts that had begun before.

        Whoever ends a job whose deliveries have ended needs no attempt for that: the first one does it.
        """
        return [
            one
            for one in read_writes(url)
            if one.number not in self.numbers and one.who in names and self._had_begun(one.subject, one.attempt)
            if not (one.what == "jobs" and one.row["state"] == "closed")
        ]

    def late_entries(self, log: Path) -> list[dict[str, Any]]:
        """Return the entries since of a worker's log about attempts of jobs that had begun before."""
        return [
            one
            for one in list(read_records(log))[self.audit[log.name] :]
            if "job_key" in one["detail"] and "attempt" in one["detail"]
            if self._had_begun((one["detail"]["job_id"],), one["detail"]["attempt"])
        ]

    def _had_begun(self, subject: tuple[str, ...], attempt: int) -> bool:
        return attempt <= self.attempts.get(subject, 0)


def read_writes(url: str) -> Iterator[Write]:
    """Yield what was written, in its order."""
    with psycopg.connect(url) as connection:
        for row in connection.execute("SELECT number, at, who, what, row FROM written ORDER BY number"):
            if row[3] != "findings":  # of no attempt: they come with their results
                yield Write(*row)


def sending(url: str, names: Collection[str]) -> list[tuple[str, ...]]:
    """Return what these are sending by what is on record: job, object and destination."""
    newest = {one.subject: one for one in read_writes(url) if one.is_of_delivery}
    return [one.subject for one in newest.values() if one.row["state"] == "sending" and one.who in names]


def sent_by_others(url: str, stops: Mapping[str, datetime]) -> list[float]:
    """Return after how many seconds others began to send what workers, by their names, were sending as they stopped."""
    newest: dict[tuple[str, ...], Write] = {}
    waited = []
    for one in read_writes(url):
        if not one.is_of_delivery:
            continue
        before = newest.get(one.subject)
        if before is not None and before.who in stops and before.row["state"] == one.row["state"] == "sending":
            stop = stops[before.who]
            if one.who != before.who and before.at <= stop < one.at:
                waited.append((one.at - stop).total_seconds())
        newest[one.subject] = one
    return waited


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    for path in folder.rglob("*"):
        said = ""
        if path.is_file():
            said = f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}"
        yield str(path.relative_to(folder)), said
