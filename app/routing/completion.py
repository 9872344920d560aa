"""When a series or its study is complete: nothing came for the quiet time. Then the rules decide, once a revision."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pydicom
from pydicom.errors import InvalidDicomError

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.errors import AuditError
from app.jobs.records import Records, SeriesState, UndecidedSeries
from app.routing.rules import RuleSet
from app.settings import RuleSettings, Settings
from app.telemetry import get_logger

# What pydicom raises on files that are no DICOM or are broken, by its own account and by fuzzing.
_UNREADABLE = (
    InvalidDicomError,
    FileNotFoundError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    struct.error,
)

_log = get_logger(__name__)

CreateJob = Callable[[UndecidedSeries, RuleSettings], bool]
"""Makes the job that a rule asks for; False if content came since the series was seen."""


@dataclass(frozen=True)
class _Outlook:
    """What the header of a series led to: a rule, no rule, or no header."""

    rule: RuleSettings | None
    readable: bool = True


class CompletionScanner:
    """Looks at the ledger for quiet series and has each decided.

    Parameters
    ----------
    spool_path_of
        The file of a digest.
    create_job
        Makes the job and its first task in one transaction.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        records: Records,
        audit: AuditLog,
        rules: RuleSet,
        spool_path_of: Callable[[str], Path],
        create_job: CreateJob,
    ) -> None:
        self._routing = settings.routing
        self._records = records
        self._audit = audit
        self._rules = rules
        self._spool_path_of = spool_path_of
        self._create_job = create_job
        self._quiet_of = {
            source.ae_title: source.quiet_seconds
            for source in settings.listener.source
            if source.quiet_seconds is not None
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Look every ``scan_seconds`` until `stop` is set. A database that goes away is waited for."""
        while not stop.is_set():
            try:
                await asyncio.to_thread(self.scan)
            except (psycopg.Error, AuditError, OSError) as error:
                _log.warning("completion.scan_failed", error=type(error).__name__)
            try:
                await asyncio.wait_for(stop.wait(), self._routing.scan_seconds)
            except TimeoutError:
                continue

    def scan(self) -> int:
        """Look once; return how many series were decided."""
        return sum(self._look_at(series) for series in self._records.undecided_series())

    def _look_at(self, series: UndecidedSeries) -> bool:
        study_quiet = series.study_quiet_seconds >= self._routing.study_quiet_seconds
        if series.state == "waiting-for-study":
            if not study_quiet:
                return False
        elif series.quiet_seconds < self._quiet_of.get(series.calling_ae_title, self._routing.series_quiet_seconds):
            return False
        outlook = self._decide(self._spool_path_of(series.lowest_digest))
        if outlook.rule is None:
            return self._without_job(series, outlook)
        if outlook.rule.after == "study" and not study_quiet:
            return self._records.conclude_series(series, "waiting-for-study", rule=outlook.rule.name)
        return self._create_job(series, outlook.rule)

    def _decide(self, path: Path) -> _Outlook:
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            return _Outlook(self._rules.decide(header).rule)
        except _UNREADABLE as error:
            _log.warning("completion.unreadable", digest=path.stem, error=type(error).__name__)
            return _Outlook(None, readable=False)

    def _without_job(self, series: UndecidedSeries, outlook: _Outlook) -> bool:
        state: SeriesState = "no-rule" if outlook.readable else "unreadable"
        detail: dict[str, Any] = {
            "study_instance_uid": series.study_instance_uid,
            "series_instance_uid": series.series_instance_uid,
            "state": state,
        }
        reason = None
        outcome = Outcome.SUCCESS
        if not outlook.readable:
            reason = detail["reason"] = "an instance of the series can't be read from the spool; send the series again"
            outcome = Outcome.SERIOUS_FAILURE
        self._audit.append(AuditEvent.NO_RULE_APPLIES, outcome, **detail)
        return self._records.conclude_series(series, state, reason=reason)
