"""Looks for series that are complete (`app.routing.waiting`) and has the rules decide on them, once a revision."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.errors import AuditError, StorageError
from app.jobs.binding import StudyBinding, TakenSeries
from app.jobs.host_faults import host_failed
from app.jobs.queue import GROUND
from app.jobs.records import ClockReading, Records, SeenSeries, SeriesState
from app.routing.asking import ArchiveQuestions
from app.routing.defects import DefectiveDecisions
from app.routing.rules import Decision, RuleSet
from app.routing.values import read_values
from app.routing.waiting import Patience, Verdict, judge_series, judge_study
from app.settings import Settings
from app.settings_pipeline import RuleSettings
from app.telemetry import get_logger
from operators.headers import read_before_pixels
from operators.object_kinds import MANUFACTURER

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
    "incomplete": (AuditEvent.SERIES_INCOMPLETE, Outcome.SERIOUS_FAILURE, None),
}
"""How a series ends for which no job is made."""

_MAKER = "Manufacturer"
_SILENT_SECONDS = 3600.0
"""An association that brings nothing for so long, and for ten of its network timeouts, has lost its listener."""
_LEFT_OPEN_LOOK_SECONDS = 60.0
_Found = TypeVar("_Found")
_Judged = tuple[SeenSeries, Verdict]

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
    questions
        Asks the archives that the settings name how much they have.
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
        questions: ArchiveQuestions | None = None,
    ) -> None:
        self._routing = settings.routing
        self._records = records
        self._audit = audit
        self._rules = rules
        self._spool_path_of = spool_path_of
        self._create_job = create_job
        self._create_study_job = create_study_job
        self._questions = questions
        self._settings = settings
        self._patience: dict[str, Patience] = {}
        self._silent_seconds = max(_SILENT_SECONDS, 10 * settings.listener.network_timeout_seconds)
        self._looked_for_open = -math.inf
        self._clock: ClockReading | None = None
        self._defects = DefectiveDecisions()

    async def run(self, stop: asyncio.Event) -> None:
        """Look every ``scan_seconds`` until `stop` is set. A database that goes away is waited for."""
        while not stop.is_set():
            try:
                await asyncio.to_thread(self.scan)
            except (*GROUND, OSError) as error:
                _log.warning("completion.scan_failed", error=type(error).__name__)
            try:
                await asyncio.wait_for(stop.wait(), self._routing.scan_seconds)
            except TimeoutError:
                continue

    def _end_left_open(self) -> None:
        """Have associations end, now and then, whose listener vanished and never came back."""
        if time.monotonic() - self._looked_for_open < _LEFT_OPEN_LOOK_SECONDS:
            return
        self._looked_for_open = time.monotonic()
        ended = self._records.end_left_open(self._silent_seconds)
        if ended:
            _log.warning("transfers.left_open", count=ended)

    def _clock_was_set_ahead(self) -> bool:
        self._clock, is_ahead = self._records.follow_clock(self._clock)
        if is_ahead:
            _log.warning("completion.clock_set_ahead")
        return is_ahead

    def scan(self) -> int:
        """Look once; return how many series were decided."""
        undecided = self._records.undecided_series()
        while self._clock_was_set_ahead():  # before they were read
            undecided = self._records.undecided_series()
        self._end_left_open()
        self._defects.forget_others(undecided)
        judged = [(one, judge_series(one, self._patience_of(one))) for one in undecided]
        try:
            return self._decide_complete(judged)
        except AuditError as error:
            self._explain_unaudited(judged, error)
            raise

    def _explain_unaudited(self, judged: Sequence[_Judged], error: AuditError) -> None:
        """Say of each complete series that it waits for the audit log: none is decided that can't be told."""
        why = f"it can't be decided: {error}"
        for series, verdict in judged:
            if verdict.complete and series.waits_for != why and not self._defects.must_wait(series):
                self._records.explain_waiting(series, why)

    def _decide_complete(self, judged: Sequence[_Judged]) -> int:
        """Have those decided that are complete, and archives asked about others; return how many were decided."""
        unfinished: dict[str, list[SeenSeries]] = {}
        for series, verdict in judged:
            if not verdict.complete:
                unfinished.setdefault(series.study_instance_uid, []).append(series)
            if verdict.must_ask:
                self._ask(series)
        decided = 0
        for series, verdict in judged:
            if not verdict.complete or self._defects.must_wait(series):
                continue
            study = judge_study(series, self._patience_of(series), unfinished.get(series.study_instance_uid, ()))
            try:
                count = self._look_at(series, verdict, study)
            except (StorageError, OSError, MemoryError) as error:
                self._put_off(series, error)
                continue
            except GROUND:
                raise  # of the database or the audit log: no other series can be decided either
            except Exception as error:  # noqa: BLE001 - one series must not keep all others waiting
                self._records.explain_waiting(series, self._defects.put_off(series, error))
                continue
            if count:  # what came may be the images that prompts lacked
                self._records.reopen_prompts(series.study_instance_uid)
            decided += count
        return decided

    def _put_off(self, series: SeenSeries, error: StorageError | OSError | MemoryError) -> None:
        """Say of a series whose file can't be had now why it waits; the others are decided meanwhile."""
        why = str(error if isinstance(error, StorageError) else host_failed(error))
        if series.waits_for != why:
            _log.error("completion.put_off", digest=series.header_digest, error=type(error).__name__)
            self._records.explain_waiting(series, why)

    def _patience_of(self, series: SeenSeries) -> Patience:
        title = series.calling_ae_title
        if title not in self._patience:
            patience = Patience.of(self._settings, title)
            self._patience[title] = patience if self._questions is not None else replace(patience, archive="")
        return self._patience[title]

    def _ask(self, series: SeenSeries) -> None:
        if self._questions is not None:
            self._questions.ask(self._patience_of(series).archive, series.study_instance_uid)

    def _look_at(self, series: SeenSeries, verdict: Verdict, study: Verdict) -> int:
        """Decide a complete series, or with it its study; return how many were decided."""
        if series.state == "waiting-for-study" and not study.complete:
            if study.must_ask:
                self._ask(series)
            return 0
        decision = self._decide(series)
        if decision is None:
            return self._without_job(series, "unreadable")
        if decision.rule is None:
            return self._without_job(series, "no-rule")
        if not decision.rule.own_results and self._is_own(series):
            return self._without_job(series, "own-result")
        if verdict.is_short and self._settings.routing.incomplete == "refuse":
            return self._without_job(series, "incomplete", _incomplete(series))
        if decision.rule.after == "study" and not study.complete:
            return self._records.conclude_series(series, "waiting-for-study", rule=decision.rule.name)
        if decision.rule.channels:
            return self._bind_study(series, decision.rule)
        return self._create_job(series, decision.rule)

    def _bind_study(self, series: SeenSeries, rule: RuleSettings) -> int:
        """Bind all series of the study that the rule takes, those that were decided before too."""
        study = self._records.series_of_study(series.study_instance_uid)
        now = {one.series_instance_uid: one for one in study}.get(series.series_instance_uid)
        if now is None or not (now.undecided and judge_study(now, self._patience_of(now)).complete):
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
        return self._read(series, self._rules.decide_file)

    def _is_own(self, series: SeenSeries) -> bool:
        """Whether the series is a result that came back, of this server or of another one like it.

        A result of a result, and its result, would go round for ever. Without the records the manufacturer tells.
        """
        if self._records.has_own_results(series):
            return True
        return self._read(series, _maker) == (MANUFACTURER,)

    def _read(self, series: SeenSeries, look: Callable[[Path], _Found]) -> _Found | None:
        """What is found in a series' first file; None if it is none that can be read, whatever is wrong with it."""
        path = self._spool_path_of(series.header_digest)
        try:
            return look(path)
        except FileNotFoundError as error:
            unreadable: Exception = error
        except (OSError, MemoryError):
            raise  # of the disk or the host, and not of the file
        except Exception as error:  # noqa: BLE001 - a stranger's bytes: one series must not keep all others waiting
            unreadable = error
        _log.warning("completion.unreadable", digest=path.stem, error=type(unreadable).__name__)
        return None

    def _without_job(self, series: SeenSeries, state: SeriesState, why: str | None = None) -> bool:
        event, outcome, reason = _ENDS[state]
        reason = why or reason
        self._audit.append(
            event,
            outcome,
            study_instance_uid=series.study_instance_uid,
            series_instance_uid=series.series_instance_uid,
            state=state,
            **({"reason": reason} if reason else {}),
        )
        return self._records.conclude_series(series, state, reason=reason)


def _maker(path: Path) -> tuple[str, ...]:
    """The manufacturer that a file names; nobody where it can't be read as text."""
    return read_values(read_before_pixels(path, [_MAKER]), _MAKER).texts


def _incomplete(series: SeenSeries) -> str:
    return (
        f"{series.shortfall}, and the archive {series.asked_archive} has more; send what is missing, and the series is "
        "decided then"
    )
