"""A lane whose host can't work takes no task for a while: the lanes of other hosts have what waits."""

from __future__ import annotations

import asyncio
from typing import Any

from procrastinate import JobContext
from procrastinate.middleware import AsyncCallNext
from procrastinate.worker import Worker as QueueWorker

from app.errors import AuditError, StorageError
from app.jobs.queue import back_off_seconds
from app.telemetry import get_logger

_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 15.0
"""So much later than it could a lane goes on once its host is mended."""

_log = get_logger(__name__)


class Rest:
    """When a lane rests: from a task that failed for its host's sake on, longer each time until one does not.

    One that went on would win every task, having nothing else to do, only to put it back.

    Parameters
    ----------
    lane
        Its name.
    """

    def __init__(self, lane: str) -> None:
        self._lane = lane
        self._failures = 0
        self._is_due = False

    async def watch(self, call_next: AsyncCallNext, context: JobContext, worker: QueueWorker) -> Any:
        """See how a task ends, and stop the lane's worker where it is to rest: a middleware of that worker."""
        try:
            result = await call_next()
        except (AuditError, StorageError):
            self._failures += 1
            self._is_due = True
            worker.stop()
            raise
        self._failures = 0
        return result

    async def take(self) -> None:
        """Wait until the lane may take tasks."""
        if not self._is_due:
            return
        self._is_due = False
        seconds = back_off_seconds(self._failures, _FIRST_SECONDS, _LONGEST_SECONDS)
        _log.warning("lane.rests", worker=self._lane, seconds=seconds)
        await asyncio.sleep(seconds)
