"""Does, now and then, what threads and processes left undone: half received files, ends that could not be recorded."""

from __future__ import annotations

import threading
import time

import structlog

from app.listener.spool import Spool
from app.listener.transfers import Transfers

_LOOK_SECONDS = 10.0
_SWEEP_SECONDS = 300.0

_log = structlog.get_logger(__name__)


class Janitor:
    """Sweeps a spool, and records ends of associations after a database was away, in a thread of its own."""

    def __init__(self, spool: Spool, transfers: Transfers | None) -> None:
        self._spool = spool
        self._transfers = transfers
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="spool-janitor", daemon=True).start()

    def stop(self) -> None:
        """End; what is being removed is removed."""
        self._ended.set()

    def _run(self) -> None:
        swept = time.monotonic()
        while not self._ended.wait(_LOOK_SECONDS):
            if self._transfers is not None:
                self._transfers.record_ends()
            if time.monotonic() - swept >= _SWEEP_SECONDS:
                self._sweep()
                swept = time.monotonic()

    def _sweep(self) -> None:
        try:
            removed = self._spool.sweep()
        except OSError as error:
            _log.error("the spool can't be swept", reason=type(error).__name__)
            return
        if removed:
            _log.warning("what was half received and abandoned was removed", files=removed)
