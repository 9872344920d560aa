"""Whoever has the turn to send says so while it waits for the destination, so that nobody takes it meanwhile.

One object may take longer than the turn's lease. A thread renews that beside the send, which ends with its process, and
stands still with it. It ends as well where the send takes longer than its own limits let it: then it hangs for good,
and whoever comes next may take the turn.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from app.jobs.records import Records, Turn
from app.telemetry import get_logger

_RENEWALS = 4
"""Of a lease: three may fail."""

_log = get_logger(__name__)


class Overtaken(Exception):
    """Another holder has the turn."""


class TurnKeeper:
    """Keeps a turn.

    Parameters
    ----------
    turn
        Just taken.
    """

    def __init__(self, records: Records, turn: Turn) -> None:
        self._records = records
        self._turn = turn
        self._until = time.monotonic() + turn.lease_seconds

    def __call__(self, seconds: float) -> None:
        """Say that the holder is there, and for so long more at most while it says nothing.

        Raises
        ------
        Overtaken
            If another has the turn.
        """
        self._until = time.monotonic() + seconds
        if not self._renewed():
            raise Overtaken

    def renew_until(self, over: threading.Event) -> None:
        """Renew the lease, as long as the holder may take, until `over` is set or the turn is another's."""
        while not over.wait(self._turn.lease_seconds / _RENEWALS):
            if time.monotonic() > self._until:
                continue  # it hangs, or is about to say more
            try:
                if not self._renewed():
                    return
            except psycopg.Error as error:
                _log.warning("turn.not_renewed", destination=self._turn.destination, error=type(error).__name__)

    def _renewed(self) -> bool:
        with self._records.transaction() as connection:
            return self._records.keep_turn(connection, self._turn)


@contextmanager
def kept(records: Records, turn: Turn) -> Iterator[TurnKeeper]:
    """Keep a turn within the context, also while the holder waits for the destination."""
    keeper, over = TurnKeeper(records, turn), threading.Event()
    renewing = threading.Thread(
        target=keeper.renew_until, args=(over,), name=f"keep turn at {turn.destination}", daemon=True
    )
    renewing.start()
    try:
        yield keeper
    finally:
        over.set()
        renewing.join()
