"""The proof that nothing was lost: records, queue, disk and audit log say the same, or what they disagree on.

The records are read in one snapshot. Files and the audit log change meanwhile on a busy server, so what looks wrong
there is asked of the records once more before it is said.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from app.audit.chain import read_records
from app.audit.events import AuditEvent
from app.jobs.discrepancies import Discrepancy
from app.jobs.records import Records
from app.jobs.records.accounting import RULES, LedgerEntry, Snapshot
from app.jobs.result_files import ResultFiles

_SETTLE_SECONDS = 60.0
"""Between an instance's file and its record are syncs of the disk and of the database, on a busy server."""
_LOOK_SECONDS = 0.2
_BATCH = 10_000
_ENDS = {
    "closed": {AuditEvent.JOB_CLOSED.name},
    "failed": {AuditEvent.JOB_FAILED.name},
    "refused": {AuditEvent.JOB_REFUSED.name},
    "discarded": {AuditEvent.JOB_DISCARDED.name},
    "cancelled": {"JOB_CANCELLED"},
    "dead-letter": {"JOB_GIVEN_UP"},
}
"""The audit line of each way to end; of any other, a line that is not among `_NO_ENDS`."""
_NO_ENDS = {"JOB_CREATED", "JOB_HELD", "JOB_RELEASED", "JOB_REPLAYED", "JOB_PUT_FIRST"}
_LIVE = ("queued", "running", "held", "delivering")
_FOLLOWS_FROM_DELIVERY = ("job-not-closed", "job-held-without-delivery")


class SpoolFiles(Protocol):
    """The spool: `app.listener.spool.Spool`."""

    def all_files(self) -> Iterator[tuple[str, int]]:
        """Yield digest and size of every kept file."""
        ...

    def size_of(self, digest: str) -> int | None:
        """Return the size of a kept file; None if there is none."""
        ...

    def age_of(self, digest: str) -> float:
        """Return the seconds since a kept file was written; 0 if it is not there any more."""
        ...

    def read_digest(self, digest: str) -> str | None:
        """Read a kept file and return its SHA-256; None if there is none."""
        ...

    def quarantined(self) -> Counter[str]:
        """Count what was refused and kept, by code."""
        ...


@dataclass(frozen=True)
class Account:
    """What there is, and what does not agree."""

    since: datetime
    totals: dict[str, dict[str, int]]
    """By kind and state."""
    discrepancies: tuple[Discrepancy, ...]

    @property
    def agrees(self) -> bool:
        """Whether everything is accounted for."""
        return not self.discrepancies


def account(
    records: Records,
    spool: SpoolFiles,
    result_files: ResultFiles,
    audit_folders: Sequence[Path],
    since: datetime,
    *,
    reads_files: bool = False,
    settle_seconds: float = _SETTLE_SECONDS,
) -> Account:
    """Look at everything since a moment, and say what disagrees; nothing is changed.

    Parameters
    ----------
    result_files
        Where the files of results are.
    audit_folders
        The audit logs of every server on these records.
    reads_files
        Whether the files' bytes are held to their digests; else their being there and, of instances, their size.
    settle_seconds
        How long a file may lie in the spool before its record; one that has none is waited for until it is so old.

    Raises
    ------
    AuditError
        If an audit log can't be read.
    StorageError
        If the storage that hosts share does not answer.
    """
    listed = dict(spool.all_files())  # before the snapshot: what comes later has its record later too
    with records.snapshot(since) as snapshot:
        totals = snapshot.totals()
        found = _broken_rules(snapshot)
        missing = _missing(snapshot, listed)
        jobs, deliveries, results = snapshot.jobs(), snapshot.deliveries(), snapshot.results()
    found += _still_missing(records, spool, missing)
    found += _still_unrecorded(records, spool, listed, settle_seconds)
    found += _results(records, results, result_files, reads_files=reads_files)
    found += _audit(records, audit_folders, jobs, deliveries)
    if reads_files:
        named = {one.digest for one in found if one.code == "file-changed"}
        found += _changed(records, spool, listed.keys() - named)
    totals["quarantine"] = dict(sorted(spool.quarantined().items()))
    return Account(since, totals, _settled(found))


def _broken_rules(snapshot: Snapshot) -> list[Discrepancy]:
    return [Discrepancy.about(rule.replace("_", "-"), row) for rule in RULES for row in snapshot.broken(rule)]


def _missing(snapshot: Snapshot, listed: dict[str, int]) -> list[LedgerEntry]:
    """The recorded instances that were not listed; the listing keeps what is not recorded."""
    missing = []
    for entry in snapshot.ledger():
        size = listed.get(entry.digest)
        if size != entry.size_bytes:
            missing.append(entry)
    return missing


def _still_missing(records: Records, spool: SpoolFiles, missing: Iterable[LedgerEntry]) -> list[Discrepancy]:
    """Those that are missing still: not received, nor removed by retention, since the listing."""
    found = []
    for batch in _batches(missing):
        sizes = {one.digest: spool.size_of(one.digest) for one in batch}
        absent = [one for one in batch if sizes[one.digest] != one.size_bytes]
        kept = records.kept_of(one.digest for one in absent) if absent else set()
        for one in absent:
            if one.digest in kept:
                code = "file-missing" if sizes[one.digest] is None else "file-changed"
                found.append(Discrepancy.about(code, one._asdict()))
    return found


def _still_unrecorded(
    records: Records, spool: SpoolFiles, listed: Iterable[str], settle_seconds: float
) -> list[Discrepancy]:
    unknown = {one for batch in _batches(listed) for one in set(batch) - records.known_of(batch)}
    ends = time.monotonic() + settle_seconds  # whatever a clock that was set back says of their age
    while unknown:
        youngest = min(spool.age_of(one) for one in unknown)
        unknown = {one for one in unknown if spool.size_of(one) is not None}
        unknown -= records.known_of(unknown)
        if youngest >= settle_seconds or time.monotonic() > ends:
            break
        time.sleep(_LOOK_SECONDS)  # an instance that is being received gets its record meanwhile
    return [Discrepancy("file-unrecorded", digest=digest) for digest in sorted(unknown)]


def _changed(records: Records, spool: SpoolFiles, listed: Iterable[str]) -> list[Discrepancy]:
    """The spool's files that are not what their names say."""
    changed = {digest for digest in listed if spool.read_digest(digest) not in (digest, None)}
    return [Discrepancy("file-changed", digest=digest) for digest in sorted(records.kept_of(changed))]


def _results(
    records: Records, results: Iterable[dict[str, Any]], files: ResultFiles, *, reads_files: bool
) -> list[Discrepancy]:
    found = []
    for one in results:
        place = one["job_id"], one["digest"], Path(one["path"])
        if not files.exists(*place):
            code = "result-missing"
        elif reads_files and files.read_digest(*place) != one["digest"]:
            code = "result-changed"
        else:
            continue
        if records.result_is_kept(one["job_id"], one["digest"]):
            found.append(Discrepancy.about(code, one))
    return found


def _audit(
    records: Records, folders: Sequence[Path], jobs: Sequence[dict[str, Any]], deliveries: set[tuple[str, str, str]]
) -> list[Discrepancy]:
    """Hold the jobs to the audit logs, and what the logs say was sent to the records."""
    if not jobs:
        return []
    lines = _Lines.of(folders)
    if lines.begin is None:
        return [Discrepancy("audit-log-missing")]
    found = []
    for job in jobs:
        name, state = str(job["id"]), job["state"]
        if job["created_at"] < lines.begin:  # its lines are in a log that was moved away
            continue
        if name not in lines.created:
            found.append(Discrepancy.about("audit-job-not-created", {**job, "job_id": name}))
        ends = lines.ends.get(name, set())
        if state not in _LIVE and not (ends & _ENDS[state] if state in _ENDS else ends):
            found.append(Discrepancy.about("audit-job-not-ended", {**job, "job_id": name}))
    studies = {str(job["id"]): job["study_instance_uid"] for job in jobs}
    unknown = {one for one in lines.begun - deliveries if one[0] in studies}
    if unknown:  # the log was read after the snapshot: deliveries may have come since
        unknown -= records.deliveries_of({one[0] for one in unknown})
    for job_id, digest, destination in sorted(unknown):
        row = {"job_id": job_id, "digest": digest, "destination": destination}
        found.append(Discrepancy.about("delivery-missing", {**row, "study_instance_uid": studies[job_id]}))
    return found


@dataclass(frozen=True)
class _Lines:
    """What audit logs say of jobs and deliveries."""

    begin: datetime | None
    """When the oldest of the logs begins; None if there is no line."""
    created: set[str]
    ends: dict[str, set[str]]
    begun: set[tuple[str, str, str]]

    @classmethod
    def of(cls, folders: Sequence[Path]) -> _Lines:
        created: set[str] = set()
        ends: dict[str, set[str]] = {}
        begun: set[tuple[str, str, str]] = set()
        begins = []
        for folder in folders:
            first = True
            for line in read_records(folder):
                if first:
                    begins.append(datetime.fromisoformat(line["time"]))
                    first = False
                event, detail = line["event"], line["detail"]
                if event == AuditEvent.JOB_CREATED.name:
                    created.add(detail["job_id"])
                elif event == AuditEvent.DELIVERY_BEGAN.name:
                    begun.add((detail["job_id"], detail["object_digest"], detail["destination"]))
                elif event.startswith("JOB_") and event not in _NO_ENDS:
                    ends.setdefault(detail["job_id"], set()).add(event)
        return cls(min(begins, default=None), created, ends, begun)


def _settled(found: Iterable[Discrepancy]) -> tuple[Discrepancy, ...]:
    """Each once, and not what follows from another: a job whose delivery is gone does not close either."""
    once = dict.fromkeys(found)
    causes = {one.job_id for one in once if one.code == "delivery-missing"}
    left = [one for one in once if not (one.code in _FOLLOWS_FROM_DELIVERY and one.job_id in causes)]
    return tuple(sorted(left, key=lambda one: (one.code, one.subject)))


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch
