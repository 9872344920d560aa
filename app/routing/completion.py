"""When a series or its study is complete: nothing came for the quiet time. Then the rules decide, once a revision."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Container, Mapping
from pathlib import Path

import psycopg
import pydicom
from pydicom.errors import InvalidDicomError

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.errors import AuditError
from app.jobs.binding import StudyBinding, TakenSeries
from app.jobs.records import Records, SeenSeries, SeriesState
from app.routing.rules import Decision, RuleSet
from app.settings import Settings
from app.settings_pipeline import RuleSettings
from app.telemetry import get_logger
from operators.object_kinds import MANUFACTURER

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

_ENDS: Mapping[SeriesState, tuple[AuditEvent, Outcome, str | None]] = {
    "no-rule": (AuditEvent.NO_RULE_APPLIES, Outcome.SUCCESS, None),
    "own-result": (
        AuditEvent.OWN_RESULT_RETURNED,
        Outcome.SUCCESS,
        "a result that was made here came back; the archive need not send it",
    ),
    "unreadable": (
        AuditEvent.NO_RULE_APPLIES,
        Outcome.SERIOUS_FAILURE,
        "an instance of the series can't be read from the spool; send the series again",
    ),
}
"""How a series ends for which no job is made."""

_log = get_logger(__name__)

CreateJob = Callable[[SeenSeries, RuleSettings], bool]
"""Makes the job that a rule asks for; False if content came since the series was seen."""
CreateStudyJob = Callable[[StudyBinding], int]
"""Makes the job of a study whose series feed a model's channels; how many series that decided."""


class CompletionScanner:
    """Looks at the ledger for quiet series and has each decided.

    Parameters
    ----------
    spool_path_of
        The file of a digest.
    create_job
        Makes the job and its first task in one transaction.
    create_study_job
        The same for a rule with channels.
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
        create_study_job: CreateStudyJob,
    ) -> None:
        self._routing = settings.routing
        self._records = records
        self._audit = audit
        self._rules = rules
        self._spool_path_of = spool_path_of
        self._create_job = create_job
        self._create_study_job = create_study_job
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
        undecided = self._records.undecided_series()
        busy = {one.study_instance_uid for one in undecided if not self._is_quiet(one)}
        decided = 0
        for series in undecided:
            count = self._look_at(series, busy)
            if count:  # what came may be the images that prompts lacked
                self._records.reopen_prompts(series.study_instance_uid)
            decided += count
        return decided

    def _is_quiet(self, series: SeenSeries) -> bool:
        quiet = self._quiet_of.get(series.calling_ae_title, self._routing.series_quiet_seconds)
        return series.state == "waiting-for-study" or series.quiet_seconds >= quiet

    def _look_at(self, series: SeenSeries, busy: Container[str]) -> int:
        """Decide one series, or with it its study; return how many were decided.

        Parameters
        ----------
        busy
            Studies of which a series is not quiet yet: one source's quiet time may be longer than a study's.
        """
        complete = self._is_complete(series) and series.study_instance_uid not in busy
        if not self._is_quiet(series) or (series.state == "waiting-for-study" and not complete):
            return 0
        decision = self._decide(series)
        if decision is None:
            return self._without_job(series, "unreadable")
        if decision.rule is None:
            return self._without_job(series, "no-rule")
        if not decision.rule.own_results and self._is_own(series):
            return self._without_job(series, "own-result")
        if decision.rule.after == "study" and not complete:
            return self._records.conclude_series(series, "waiting-for-study", rule=decision.rule.name)
        if decision.rule.channels:
            return self._bind_study(series, decision.rule)
        return self._create_job(series, decision.rule)

    def _is_complete(self, series: SeenSeries) -> bool:
        return series.study_quiet_seconds >= self._routing.study_quiet_seconds

    def _bind_study(self, series: SeenSeries, rule: RuleSettings) -> int:
        """Bind all series of the study that the rule takes, those that were decided before too."""
        study = self._records.series_of_study(series.study_instance_uid)
        now = {one.series_instance_uid: one for one in study}.get(series.series_instance_uid)
        if now is None or not (now.undecided and self._is_complete(now)):
            return 0  # decided together with another of its series, or content came
        decisions = [(one, self._decide(one)) for one in study]
        taken = [
            TakenSeries(one, decision.channels)
            for one, decision in decisions
            if decision is not None and decision.rule is not None and decision.rule.name == rule.name
            if rule.own_results or not self._is_own(one)
        ]
        # one urgent series makes the study urgent
        rules = [
            one.rule for _, one in decisions if one is not None and one.rule is not None and one.rule.name == rule.name
        ]
        rule = max(rules, key=lambda one: one.priority, default=rule)
        return self._create_study_job(StudyBinding(rule, tuple(study), tuple(taken), self._rules.expected(rule)))

    def _decide(self, series: SeenSeries) -> Decision | None:
        """What the rules say of a series' header; None if it can't be read."""
        path = self._spool_path_of(series.lowest_digest)
        try:
            return self._rules.decide(pydicom.dcmread(path, stop_before_pixels=True))
        except _UNREADABLE as error:
            _log.warning("completion.unreadable", digest=path.stem, error=type(error).__name__)
            return None

    def _is_own(self, series: SeenSeries) -> bool:
        """Whether the series is a result that came back, of this server or of another one like it.

        A result of a result, and its result, would go round for ever. Without the records the manufacturer tells.
        """
        if self._records.has_own_results(series):
            return True
        path = self._spool_path_of(series.lowest_digest)
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Manufacturer"])
            return str(header.get("Manufacturer", "")) == MANUFACTURER
        except _UNREADABLE:
            return False

    def _without_job(self, series: SeenSeries, state: SeriesState) -> bool:
        event, outcome, reason = _ENDS[state]
        self._audit.append(
            event,
            outcome,
            study_instance_uid=series.study_instance_uid,
            series_instance_uid=series.series_instance_uid,
            state=state,
            **({"reason": reason} if reason else {}),
        )
        return self._records.conclude_series(series, state, reason=reason)
