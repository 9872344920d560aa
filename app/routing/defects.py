"""Series whose decision fails by an error of this server: each is put off by itself, visibly, and tried again.

They are never decided for that: the error is none of theirs, and whoever mends it must not have to send them again.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from app.jobs.entries import SeenSeries
from app.telemetry import get_logger

DECISION_FAILED = "decision-failed"
_AGAIN_SECONDS = 60.0
"""A try can write to the audit log before it fails, so that it isn't repeated with each look."""

_Content = tuple[str, str, datetime]

_log = get_logger(__name__)


@dataclass(frozen=True)
class _Defect:
    error: str
    log_id: str
    again: float
    """When the series may be tried again, on the monotonic clock."""


class DefectiveDecisions:
    """What is remembered of them while the process runs."""

    def __init__(self) -> None:
        self._defects: dict[_Content, _Defect] = {}

    def must_wait(self, series: SeenSeries) -> bool:
        """Whether a series, with the content that it has, failed so lately that it isn't tried again yet."""
        defect = self._defects.get(_content(series))
        return defect is not None and time.monotonic() < defect.again

    def put_off(self, series: SeenSeries, error: Exception) -> str:
        """Log the error that is being handled, once as long as it is the same, and return why the series waits."""
        name, before = type(error).__name__, self._defects.get(_content(series))
        if before is not None and before.error == name:
            log_id = before.log_id
        else:
            log_id = uuid.uuid4().hex[:12]
            _log.error(
                "completion.defect", code=DECISION_FAILED, digest=series.header_digest, log_id=log_id, exc_info=error
            )
        self._defects[_content(series)] = _Defect(name, log_id, time.monotonic() + _AGAIN_SECONDS)
        return (
            f"its decision failed by an error of this server ({DECISION_FAILED}, see log entry {log_id}); report it: "
            "the series is tried again each minute, and need not be sent again"
        )

    def forget_others(self, undecided: Iterable[SeenSeries]) -> None:
        """Forget what was decided meanwhile, or got more content."""
        left = {_content(one) for one in undecided}
        self._defects = {content: defect for content, defect in self._defects.items() if content in left}


def _content(series: SeenSeries) -> _Content:
    return series.study_instance_uid, series.series_instance_uid, series.last_received_at
