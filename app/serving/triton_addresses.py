"""Several Tritons that serve the same models: which of them the next run goes to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from app.telemetry import get_logger
from operators.triton import is_ready

_ANSWER_SECONDS = 2.0

_log = get_logger(__name__)


class TritonAddresses:
    """Goes round a list of addresses. Thread-safe.

    Parameters
    ----------
    addresses
        One or more.
    answers
        Whether the Triton at an address is ready.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        answers: Callable[[str], bool] = lambda address: is_ready(address, deadline_seconds=_ANSWER_SECONDS),
    ) -> None:
        self._addresses = tuple(addresses)
        self._answers = answers
        self._next = 0
        self._lock = threading.Lock()

    def next(self) -> str:
        """Return the next address that answers; where none does, the next: the run's failure then says so.

        An only address is not asked: who uses it waits for it.
        """
        with self._lock:
            first, self._next = self._next, (self._next + 1) % len(self._addresses)
        turn = self._addresses[first:] + self._addresses[:first]
        if len(turn) == 1:
            return turn[0]
        for address in turn:
            if self._answers(address):
                return address
            _log.warning("triton.skipped", address=address)
        return turn[0]
