"""Which associations bring which series: of sources that end a series by releasing its association."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Collection
from typing import Protocol

import psycopg
import structlog

from app.identifiers import UID
from app.jobs.records import Transfer
from app.listener.sessions import Session

_log = structlog.get_logger(__name__)


class TransferRecords(Protocol):
    """Where it is kept: `app.jobs.records.Records`."""

    def begin_transfer(self, transfer: Transfer) -> None:
        """Record that an association is about to bring a series."""

    def end_transfers(self, association: uuid.UUID, *, released: bool) -> None:
        """Record that an association has ended."""

    def break_left_open(self, listener: str) -> None:
        """Have associations count as broken that a listener left open."""


class Transfers:
    """Remembers the associations of some sources from their first instance of a series to their end.

    Parameters
    ----------
    records
        Where completion looks.
    listener
        What tells this listener from others on the same records, the same after a restart.
    calling_ae_titles
        Those of the sources whose associations count.
    """

    def __init__(self, records: TransferRecords, *, listener: str, calling_ae_titles: Collection[str]) -> None:
        self._records = records
        self._listener = listener
        self._titles = frozenset(calling_ae_titles)
        self._ended: dict[Session, bool] = {}
        self._lock = threading.Lock()
        self._recording = threading.Lock()
        """Held by the thread that records ends."""

    def start(self) -> None:
        """Have what a killed listener left open count as broken; called before listening."""
        self._records.break_left_open(self._listener)

    def begin(self, session: Session, study_instance_uid: UID, series_instance_uid: UID) -> None:
        """Record that an association brings a series, before its first instance is recorded. Its lock is held.

        Raises
        ------
        OutOfResources
            If the records can't be written.
        """
        if session.calling_ae_title not in self._titles or session.has_ended:
            return
        if session.is_new_series(study_instance_uid, series_instance_uid):
            session.may_be_recorded = True
            self._records.begin_transfer(
                Transfer(
                    session.number, study_instance_uid, series_instance_uid, session.calling_ae_title, self._listener
                )
            )
            session.begin_series(study_instance_uid, series_instance_uid)

    def end(self, session: Session, *, released: bool) -> None:
        """Record that an association has ended, as soon as the records can be written."""
        with session.lock:
            if session.has_ended:
                return
            session.has_ended = True
            if not session.may_be_recorded:
                return
        with self._lock:
            self._ended[session] = released
        self.record_ends()

    def record_ends(self) -> None:
        """Record the ends that are not recorded yet; called at each end, and now and then.

        If another thread is at it, that one does it all: an association that waited for it, while the database is away,
        would keep its connection, and count, for as long.
        """
        while self._waiting() and self._recording.acquire(blocking=False):
            try:
                for one, was_released in self._waiting():
                    self._records.end_transfers(one.number, released=was_released)
                    with self._lock:
                        del self._ended[one]
            except psycopg.Error as error:  # its series wait for their quiet time
                _log.warning("the end of an association could not be recorded", error=type(error).__name__)
                return
            finally:
                self._recording.release()

    def _waiting(self) -> list[tuple[Session, bool]]:
        with self._lock:
            return list(self._ended.items())
