"""The proof that nothing was lost: records, queue, disk and audit log say the same, or what they disagree on.

The records are read in one snapshot. Files and the audit log change meanwhile on a busy server, so what looks wrong
there is asked of the records once more before it is said.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from app.jobs.audited import RecordedWork, hold_to_logs
from app.jobs.discrepancies import Discrepancy
from app.jobs.records import Records
from app.jobs.records.accounting import RULES, LedgerEntry, Snapshot, batches
from app.jobs.result_files import ResultFiles

_SETTLE_SECONDS = 60.0
"""Between an instance's file and its record are syncs of the disk and of the database, on a busy server."""
_LOOK_SECONDS = 0.2
_FOLLOWS: Mapping[str, Sequence[tuple[str, ...]]] = MappingProxyType(
    {
        "delivery-missing": [("job-missing", "job_id")],
        "deliveries-lost": [("delivery-missing", "job_id", "destination"), ("job-held-without-delivery", "job_id")],
        "instance-missing": [("file-unrecorded", "digest")],
        "job-held-without-delivery": [("delivery-missing", "job_id")],
        "job-not-closed": [("delivery-missing", "job_id"), ("deliveries-lost", "job_id")],
        "series-without-job": [("job-missing", "job_id"), ("job-missing", "study_instance_uid", "series_instance_uid")],
        "study-missing": [("instance-missing", "study_instance_uid"), ("series-empty", "study_instance_uid")],
    }
)
"""What each code follows from: another code that is about the same by what is named after it."""


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
        recorded, results = RecordedWork(snapshot.jobs(), snapshot.deliveries()), snapshot.results()
    found += _still_missing(records, spool, missing)
    found += _still_unrecorded(records, spool, listed, settle_seconds)
    found += _results(records, results, result_files, reads_files=reads_files)
    found += hold_to_logs(records, audit_folders, recorded, since)
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
    for batch in batches(missing):
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
    unknown = {one for batch in batches(listed) for one in set(batch) - records.known_of(batch)}
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


def _settled(found: Iterable[Discrepancy]) -> tuple[Discrepancy, ...]:
    """Each once, and not what follows from another: a job whose delivery is gone does not close either."""
    once = dict.fromkeys(found)
    causes: dict[tuple[str, str, str], list[Discrepancy]] = {}
    for one in once:
        for name in ("job_id", "study_instance_uid", "digest"):
            causes.setdefault((one.code, name, getattr(one, name)), []).append(one)
    left = [one for one in once if not _follows(one, causes)]
    return tuple(sorted(left, key=lambda one: (one.code, one.subject)))


def _follows(one: Discrepancy, causes: Mapping[tuple[str, str, str], Sequence[Discrepancy]]) -> bool:
    """Whether one need not be named, since its cause is. What it does not say itself can't tell the two apart."""
    return any(
        getattr(one, first) and all(getattr(one, name) in ("", getattr(cause, name)) for name in rest)
        for code, first, *rest in _FOLLOWS.get(one.code, ())
        for cause in causes.get((code, first, getattr(one, first)), ())
    )
