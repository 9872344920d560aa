"""Removes, now and then, what a thread or a process that died left half received in the spool."""

from __future__ import annotations

import threading

import structlog

from app.listener.spool import Spool

_EVERY_SECONDS = 300.0

_log = structlog.get_logger(__name__)


class Janitor:
    """Sweeps a spool in a thread of its own."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="spool-janitor", daemon=True).start()

    def stop(self) -> None:
        """End; what is being removed is removed."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            try:
                removed = self._spool.sweep()
            except OSError as error:
                _log.error("the spool can't be swept", reason=type(error).__name__)
                continue
            if removed:
                _log.warning("what was half received and abandoned was removed", files=removed)
