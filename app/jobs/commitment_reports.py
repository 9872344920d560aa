"""Reports on requests for storage commitment, kept as they arrive (PS3.4 annex J); `committing` acts on them."""

from __future__ import annotations

from collections.abc import Sequence

from app.delivery.destination import ReportedCommitment
from app.jobs.queue import TaskQueue
from app.jobs.records import Records


class ReportKeeping:
    """Keeps reports on requests for storage commitment, and puts the task behind them into the queue."""

    def __init__(self, records: Records, queue: TaskQueue) -> None:
        self._records = records
        self._queue = queue

    def keep(self, report: ReportedCommitment, destinations: Sequence[str]) -> bool:
        """Keep a report of one of `destinations`; False, and nothing is kept, if that was never asked for it."""
        with self._records.transaction() as connection:
            known = self._records.keep_report(
                connection, report.transaction_uid, report.committed, report.refused, destinations
            )
            if known:
                self._queue.defer_report(connection, report.transaction_uid)
        return known
