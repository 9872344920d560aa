"""Archives are asked how much a study has, in threads of their own: nothing waits for an archive but what it is about.

What they answer lies in the records. What is under way is in memory alone: after a restart quiet times begin anew, and
so do the questions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

import psycopg

from app.audit.events import AuditEvent
from app.audit.log import AuditLog
from app.errors import DeliveryError
from app.jobs.records import Records
from app.telemetry import get_logger

TROUBLE_SECONDS = 30.0
"""For how long an archive that did not answer is not asked again: others' questions would only wait as long."""
_AT_ONCE = 2
"""Questions to one archive."""

_log = get_logger(__name__)


class Countable(Protocol):
    """What can be asked: `app.delivery.query.DimseQuery`."""

    def count_series_instances(self, study_instance_uid: str, series_instance_uid: str = "") -> dict[str, int]:
        """Return how many instances each series of a study has; DeliveryError if that can't be told."""
        ...


class ArchiveQuestions:
    """Asks each study's question once at a time. Called by the completion scanner alone.

    Parameters
    ----------
    archives
        By their names in the settings.
    clock
        Seconds that never go back.
    """

    def __init__(
        self,
        archives: Mapping[str, Countable],
        records: Records,
        audit: AuditLog,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._archives = archives
        self._records = records
        self._audit = audit
        self._clock = clock
        self._turns = {name: threading.Semaphore(_AT_ONCE) for name in archives}
        self._trouble: dict[str, tuple[float, str]] = {}
        self._asking: set[str] = set()
        self._lock = threading.Lock()

    def ask(self, archive: str, study_instance_uid: str) -> None:
        """Begin to ask an archive about a study, unless it is being asked; the answer comes into the records."""
        with self._lock:
            if study_instance_uid in self._asking:
                return
            self._asking.add(study_instance_uid)
        try:
            asked_at = self._records.begin_question(study_instance_uid, archive)
            since, code = self._trouble.get(archive, (0.0, ""))
            if code and self._clock() - since < TROUBLE_SECONDS:
                self._records.fail_question(study_instance_uid, asked_at, code)
                self._done(study_instance_uid)
                return
            self._audit.append(AuditEvent.ARCHIVE_ASKED, archive=archive, study_instance_uid=study_instance_uid)
            question = (archive, study_instance_uid, asked_at)
            # a daemon: the end of the server does not wait for an archive
            threading.Thread(target=self._question, args=question, name="ask", daemon=True).start()
        except BaseException:
            self._done(study_instance_uid)
            raise

    def _question(self, archive: str, study_instance_uid: str, asked_at: datetime) -> None:
        try:
            with self._turns[archive]:
                self._put(archive, study_instance_uid, asked_at)
        except psycopg.Error as error:  # the question stays open in the records, and is not waited for for long
            _log.warning("ask.not_recorded", archive=archive, error=type(error).__name__)
        finally:
            self._done(study_instance_uid)

    def _put(self, archive: str, study_instance_uid: str, asked_at: datetime) -> None:
        try:
            told = self._archives[archive].count_series_instances(study_instance_uid)
        except Exception as error:  # noqa: BLE001 - the thread's border: what it is must reach the records
            code = error.code if isinstance(error, DeliveryError) else type(error).__name__
            self._trouble[archive] = (self._clock(), code)
            self._records.fail_question(study_instance_uid, asked_at, code)
            _log.warning("ask.failed", archive=archive, code=code)
            return
        self._trouble.pop(archive, None)
        self._records.answer_question(study_instance_uid, asked_at, told)
        _log.info("ask.answered", archive=archive, series=len(told))

    def _done(self, study_instance_uid: str) -> None:
        with self._lock:
            self._asking.discard(study_instance_uid)
