"""Old instances and results go from the disk, and the oldest before their time where space is wanted.

In this order, so that a crash between any two steps loses nothing and the next run mends it: the audit line, the record
that the files are gone, the files, the record that this is done. An instance that comes again meanwhile waits for the
last record; if its file went in that moment, its sender is told to send it once more. Where something of a job came
meanwhile, such as a rejection note, its files stay until they are old again.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

from procrastinate.exceptions import AlreadyEnqueued

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.jobs.presence import RETENTION, own_turn
from app.jobs.queue import GROUND, TaskQueue
from app.jobs.records import Connection, Records
from app.jobs.result_files import ResultFiles
from app.jobs.retention_plan import Plan, Refused, Removal, Room, SizedResults, UnrecordedResults, make_plan
from app.settings import Settings
from app.telemetry import get_logger

_BATCH = 500
_AT_ONCE = 50
"""Instances whose senders wait until their files are gone."""
_PATIENT_SECONDS = 120.0
"""A transaction that removes files may be silent for so long, and for the shared storage's own limits besides."""
_SECONDS = 5.0
"""One run, once it is planned; other tasks of its queue wait so long."""
_REASONS = {"age": "older than the settings keep it", "space": "the oldest, for want of space"}
_UNRECORDED = f"{_REASONS['age']}, and no job knows it"

_log = get_logger(__name__)


class RetainedSpool(Protocol):
    """The spool: `app.listener.spool.Spool`."""

    def free_bytes(self) -> int:
        """Return the free space of its disk."""
        ...

    def remove_all(self, digests: Collection[str], check: Callable[[], None]) -> None:
        """Remove files for good; those that are not there do no harm. `check` raises when no more may go."""
        ...

    def refused_files(self) -> Iterator[tuple[str, int, float]]:
        """Yield name, size and age in seconds of what lies in the quarantine."""
        ...

    def remove_refused(self, name: str) -> None:
        """Remove one of these."""
        ...


class Retention:
    """Removes what the settings say."""

    def __init__(
        self,
        *,
        settings: Settings,
        records: Records,
        audit: AuditLog | None,
        spool: RetainedSpool,
        results: ResultFiles,
    ) -> None:
        self._settings = settings
        self._records = records
        self._audit = audit
        self._spool = spool
        self._results = results
        self._silent_seconds = _PATIENT_SECONDS + 4 * settings.shared_storage.timeout_seconds
        self._committing = tuple(one.name for one in settings.destination if one.commitment != "none")

    def plan(self) -> Plan:
        """Say what would go now, and why the rest stays; nothing is changed."""
        replay = self._settings.retention.replay_seconds
        results, unrecorded = self._sized_results()
        return make_plan(
            self._settings.retention,
            Room(self._spool.free_bytes(), self._settings.least_free_bytes, self._records.kept_bytes()),
            self._records.kept_studies(self._committing, replay),
            results,
            [Refused(*one) for one in self._spool.refused_files()],
            unrecorded,
        )

    def is_short_of_room(self) -> bool:
        """Whether less space is free than the settings want; cheap."""
        return self._spool.free_bytes() < self._settings.least_free_bytes

    def run(self, seconds: float = _SECONDS) -> bool:
        """Remove what may go, for some seconds, those of planning aside; True if there is more to do.

        One process does so at a time.

        Raises
        ------
        AuditError
            If a removal can't be written to the audit log; then it does not happen.
        """
        with own_turn(self._records.url, RETENTION) as has_turn:
            if not has_turn:
                return False
            if not self._finish(time.monotonic() + seconds):
                return True
            removals = self.plan().removals
            ends = time.monotonic() + seconds  # only now: of very many results a plan alone may take longer
            for number, removal in enumerate(removals, start=1):
                self._remove(removal)
                if number % 20 == 0 or removal.bytes > 1 << 24:  # room soon, and few syncs
                    self._finish(ends)
                if time.monotonic() > ends and number < len(removals):
                    return True
            return not self._finish(ends)

    def remove_refused(self) -> None:
        """Remove what lay in this host's quarantine for too long: where hosts share the rest, each has its own."""
        for name, size_bytes, idle_seconds in self._spool.refused_files():
            if idle_seconds >= self._settings.retention.quarantine_seconds:
                self._remove_refused(Removal("quarantine", "age", 1, size_bytes, names=(name,)))

    def remove_refused_for_room(self, has_room: Callable[[], bool]) -> None:
        """Remove what lies in this host's quarantine, what was refused longest ago first, until its disk `has_room`."""
        for name, size_bytes, idle_seconds in sorted(self._spool.refused_files(), key=lambda one: one[2], reverse=True):
            if has_room() or idle_seconds < self._settings.retention.least_seconds:
                return
            self._remove_refused(Removal("quarantine", "space", 1, size_bytes, names=(name,)))

    def run_and_go_on(self) -> None:
        """Do what a task of the queue does: run, and have the next task do what is left, after what waits by now."""
        if self.run():
            ask_for_retention(self._records, is_urgent=self.is_short_of_room(), gives_way=True)

    def _remove(self, removal: Removal) -> None:
        if removal.what == "quarantine":
            self._remove_refused(removal)
            return
        with self._records.transaction() as connection:
            if removal.job_id is None:
                self._record_study(connection, removal)
            elif removal.what == "unrecorded":
                self._record_unrecorded(connection, removal, removal.job_id)
            else:
                self._record_results(connection, removal, removal.job_id)

    def _record_study(self, connection: Connection, removal: Removal) -> None:
        """Look once more, with the study held, then write that its instances are gone."""
        study, replay = removal.study_instance_uid, self._settings.retention.replay_seconds
        if not self._records.lock_kept_study(connection, study):
            return
        for now in self._records.kept_studies(self._committing, replay, study, connection):
            if self._is_still_so(removal, now.idle_seconds, now.needed_by):
                self._tell(AuditEvent.INSTANCES_REMOVED, removal, now.instances, now.bytes)
                self._records.mark_instances(connection, study)

    def _record_results(self, connection: Connection, removal: Removal, job_id: uuid.UUID) -> None:
        if not self._records.lock_results(connection, job_id):
            return
        replay = self._settings.retention.replay_seconds
        for now in self._records.kept_results(self._committing, replay, [job_id], connection):
            if self._is_still_so(removal, now.idle_seconds, now.needed_by):
                self._tell(AuditEvent.RESULTS_REMOVED, removal, removal.count, removal.bytes)
                self._records.mark_results(connection, job_id)

    def _record_unrecorded(self, connection: Connection, removal: Removal, job_id: uuid.UUID) -> None:
        """The same of a folder that no job knows; what is accepted once more in the API has its job's folder again."""
        idle = self._results.idle_seconds(job_id)
        if idle is None or idle < self._settings.retention.results_seconds:
            return
        if not self._records.lock_job(connection, job_id):
            self._tell(AuditEvent.RESULTS_REMOVED, removal, removal.count, removal.bytes)
            self._records.mark_results(connection, job_id)

    def _is_still_so(self, removal: Removal, idle_seconds: float, needed_by: str) -> bool:
        rules = self._settings.retention
        longest = rules.spool_seconds if removal.what == "instances" else rules.results_seconds
        return not needed_by and idle_seconds >= (longest if removal.why == "age" else rules.least_seconds)

    def _tell(self, event: AuditEvent, removal: Removal, count: int, size_bytes: int) -> None:
        detail: dict[str, str] = {} if removal.job_id is None else {"job_id": str(removal.job_id)}
        if removal.study_instance_uid:
            detail["study_instance_uid"] = removal.study_instance_uid
        reason = _UNRECORDED if removal.what == "unrecorded" else _REASONS[removal.why]
        self._log_of_audit().append(event, Outcome.SUCCESS, instances=count, bytes=size_bytes, reason=reason, **detail)
        _log.info("retention.removed", what=removal.what, why=removal.why, count=count, bytes=size_bytes)

    def _remove_refused(self, removal: Removal) -> None:
        self._tell(AuditEvent.REFUSED_REMOVED, removal, removal.count, removal.bytes)
        for name in removal.names:
            self._spool.remove_refused(name)

    def _finish(self, ends: float) -> bool:
        """Remove the files that are recorded as removed, of this run or of one that was killed; False if some are left.

        At least one batch is done however late it is.
        """
        while digests := self._records.instances_to_remove(_BATCH):
            for start in range(0, len(digests), _AT_ONCE):
                self._remove_files(digests[start : start + _AT_ONCE])
            if time.monotonic() > ends and len(digests) == _BATCH:
                return False
        while jobs := self._records.results_to_remove(_BATCH):
            for job_id in jobs:
                self._remove_folder(job_id)
            if time.monotonic() > ends and len(jobs) == _BATCH:
                return False
        return True

    def _remove_files(self, digests: Sequence[str]) -> None:
        """Remove instances' files while none of them can come back: no more of them once the lock is lost."""
        with self._records.transaction() as connection:
            self._records.allow_silence(connection, self._silent_seconds)
            removed = self._records.lock_removed(connection, digests)
            self._spool.remove_all(removed, lambda: self._records.say_something(connection))
            self._records.removed_instances(connection, digests)

    def _remove_folder(self, job_id: uuid.UUID) -> None:
        """Remove a job's files while nothing can be written beside them."""
        with self._records.transaction() as connection:
            self._records.allow_silence(connection, self._silent_seconds)
            if self._records.lock_removed_results(connection, job_id):
                self._results.remove(job_id)
            self._records.removed_results(connection, job_id)

    def _sized_results(self) -> tuple[Sequence[SizedResults], Sequence[UnrecordedResults]]:
        """The results of jobs, and those that no job knows."""
        sizes = self._results.sizes()  # before the records: what is written later has its job later too
        kept = self._records.kept_results(self._committing, self._settings.retention.replay_seconds, list(sizes))
        unknown = sizes.keys() - {one.job_id for one in kept}
        ages = ((one, self._results.idle_seconds(one)) for one in sorted(unknown))
        return (
            [SizedResults(one, *sizes[one.job_id]) for one in kept],
            [UnrecordedResults(one, *sizes[one], idle) for one, idle in ages if idle is not None],
        )

    def _log_of_audit(self) -> AuditLog:
        assert self._audit is not None, "only the server, which writes the audit log, removes"  # noqa: S101
        return self._audit


class RetentionWatch:
    """Has the oldest removed as soon as space is wanted: a service of the server.

    While it stays wanted, what waits in the queue has its turn before each further removal: planning one may take long.
    """

    def __init__(self, *, settings: Settings, records: Records, retention: Retention) -> None:
        self._seconds = settings.retention.look_seconds
        self._records = records
        self._retention = retention
        self._was_short = False

    async def run(self, stop: asyncio.Event) -> None:
        """Look every ``look_seconds`` until `stop` is set. A database that goes away is waited for."""
        while not stop.is_set():
            try:
                await asyncio.to_thread(self.look)
            except (*GROUND, OSError) as error:
                _log.warning("retention.not_looked", error=type(error).__name__)
            try:
                await asyncio.wait_for(stop.wait(), self._seconds)
            except TimeoutError:
                continue

    def look(self) -> None:
        """Look once."""
        is_short = self._retention.is_short_of_room()
        if is_short:
            ask_for_retention(self._records, is_urgent=True, gives_way=self._was_short)
        self._was_short = is_short


def ask_for_retention(records: Records, *, is_urgent: bool = False, gives_way: bool = False) -> None:
    """Have the server remove what may go; nothing happens if the same was asked already.

    Parameters
    ----------
    is_urgent, gives_way
        As `TaskQueue.defer_retain` has them.
    """
    try:
        with records.transaction() as connection:
            TaskQueue().defer_retain(connection, is_urgent=is_urgent, gives_way=gives_way)
    except AlreadyEnqueued:
        return
