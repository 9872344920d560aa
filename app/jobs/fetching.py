"""Images that prompts lack are fetched from an archive, each series once, while the prompt waits for its decision.

What is under way is kept in memory alone: after a restart the prompt is looked at again, and its images are asked for
again. Nothing is lost or doubled by that.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Protocol

from app.audit.events import AuditEvent
from app.audit.log import AuditLog
from app.errors import DeliveryError
from app.telemetry import get_logger
from operators.errors import PromptRefused

IMAGES_NOT_FOUND = "images-not-found"
_turns = threading.Semaphore(2)
"""Series that are fetched at once."""

_log = get_logger(__name__)


class Archive(Protocol):
    """What images are fetched from: `app.delivery.archive.DimseArchive`."""

    def fetch(self, study_instance_uid: str, series_instance_uid: str) -> None:
        """Have a series sent to the listener; DeliveryError if it could not be."""
        ...


class _Fetch(threading.Thread):
    """One series on its way. A daemon: the end of the server does not wait for an archive."""

    def __init__(self, archive: Archive, study_instance_uid: str, series_instance_uid: str) -> None:
        super().__init__(name="fetch", daemon=True)
        self._archive = archive
        self._series = (study_instance_uid, series_instance_uid)
        self.error: Exception | None = None

    def run(self) -> None:
        """Fetch, and keep why it failed."""
        try:
            with _turns:
                self._archive.fetch(*self._series)
        except Exception as error:  # noqa: BLE001 - the thread's border: what it is must reach the scanner
            self.error = error


class ImageFetching:
    """Fetches in threads of its own."""

    def __init__(self, archives: Mapping[str, Archive], audit: AuditLog) -> None:
        self._archives = archives
        self._audit = audit
        self._fetches: dict[tuple[str, str], _Fetch] = {}

    def fetch(self, archive: str, study_instance_uid: str, series_instance_uid: str) -> PromptRefused | None:
        """Begin to fetch a series that is not held, or tell how that ended. Called by the completion scanner alone.

        Returns None while it is under way, and why the images are not there once it has ended. The next call then
        begins anew.
        """
        key = (study_instance_uid, series_instance_uid)
        if key not in self._fetches:
            self._audit.append(
                AuditEvent.IMAGES_REQUESTED,
                archive=archive,
                study_instance_uid=study_instance_uid,
                series_instance_uid=series_instance_uid,
            )
            self._fetches[key] = _Fetch(self._archives[archive], *key)
            self._fetches[key].start()
            _log.info("fetch.began", archive=archive)
            return None
        if not self.is_settled(*key, keep=True):
            return None
        error = self._fetches.pop(key).error
        reason = "they could not be fetched" if error is not None else "it says that they were sent, and none came"
        told = f": {error}" if isinstance(error, DeliveryError) else ""
        code = getattr(error, "code", "not-received" if error is None else type(error).__name__)
        _log.warning("fetch.failed", archive=archive, code=code)
        return PromptRefused(
            f"the images that the prompt refers to are not held, and of the archive {archive} {reason}{told}",
            code=IMAGES_NOT_FOUND,
        )

    def is_settled(self, study_instance_uid: str, series_instance_uid: str, *, keep: bool = False) -> bool:
        """Whether a series is not being fetched; how its fetch ended is forgotten unless `keep`."""
        fetch = self._fetches.get((study_instance_uid, series_instance_uid))
        if fetch is not None and fetch.is_alive():
            return False
        if not keep:
            self._fetches.pop((study_instance_uid, series_instance_uid), None)
        return True
