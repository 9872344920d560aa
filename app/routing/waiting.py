"""Whether a series or its study is complete by what the records know; if not, what it waits for, in words and numbers.

The completion scanner decides by this, and the command line shows it: what is shown is why it waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from app.jobs.entries import SeenSeries
from app.settings import Settings

ASKING = "asking"
_LONGEST_AGAIN_SECONDS = 60.0
_LONG_UNDECIDED_SECONDS = 60.0
"""A scan comes to a complete series within seconds, and where many are complete at once within less than this."""

WaitCode = Literal["", "quiet", "association", "answer", "instances", "study", "series", "decision"]


@dataclass(frozen=True)
class Patience:
    """What a series of one source waits for: ``[routing]`` and its ``[[listener.source]]``."""

    quiet_seconds: float
    study_quiet_seconds: float
    incomplete_seconds: float
    archive: str = ""
    """The archive to ask; empty if none is."""
    ask_seconds: float = 10.0
    ask_again_seconds: float = 5.0
    whole_study: bool = False
    on_release: bool = False
    """Whether the release of the association that brought it ends the waiting."""

    @classmethod
    def of(cls, settings: Settings, calling_ae_title: str) -> Patience:
        """Return what the settings say of series that this application entity sends."""
        routing = settings.routing
        source = next((one for one in settings.listener.source if one.ae_title == calling_ae_title), None)
        quiet = routing.series_quiet_seconds
        if source is not None and source.quiet_seconds is not None:
            quiet = source.quiet_seconds
        return cls(
            quiet_seconds=quiet,
            study_quiet_seconds=routing.study_quiet_seconds,
            incomplete_seconds=max(routing.incomplete_seconds, quiet),
            archive=(source.ask if source is not None and source.ask is not None else routing.ask) or "",
            ask_seconds=routing.ask_seconds,
            ask_again_seconds=routing.ask_again_seconds,
            whole_study=routing.ask_whole_study,
            on_release=source is not None and source.complete_on_release,
        )


@dataclass(frozen=True)
class Verdict:
    """Whether something is complete."""

    code: WaitCode = ""
    """What it waits for; empty if it is complete."""
    waits_for: str = ""
    """The same for people."""
    must_ask: bool = False
    """Whether it is time to ask the archive."""
    is_short: bool = False
    """Whether it is complete only because its archive's further instances were waited for long enough."""

    @property
    def complete(self) -> bool:
        """Whether nothing is waited for."""
        return not self.code


def judge_series(series: SeenSeries, patience: Patience) -> Verdict:
    """Return whether a series is complete, whatever its study is."""
    if series.state != "receiving":
        return Verdict()
    arriving = _arriving(series, patience)
    if arriving is not None:
        return arriving
    if not patience.archive:
        return Verdict()
    unanswered = _unanswered(series, patience, series.quiet_seconds)
    if unanswered is not None:
        return unanswered
    if not series.shortfall:
        return Verdict()
    if series.quiet_seconds >= patience.incomplete_seconds:
        return Verdict(is_short=True)
    if not _within(series.answered_seconds, series.quiet_seconds):
        return Verdict()  # the archive said so before the last content came, and does not answer now
    return Verdict("instances", _short_in_words(series, series.shortfall, patience), must_ask=_again(series, patience))


def judge_study(series: SeenSeries, patience: Patience, unfinished: Iterable[SeenSeries] = ()) -> Verdict:
    """Return whether the study of a series is complete.

    Parameters
    ----------
    unfinished
        Series that are not complete by themselves yet; those of the same study count.
    """
    busy = [one for one in unfinished if one.study_instance_uid == series.study_instance_uid]
    others = sorted(one.series_instance_uid for one in busy if one.series_instance_uid != series.series_instance_uid)
    if others:
        named = others[0] if len(others) == 1 else f"{others[0]} and {len(others) - 1} more"
        return Verdict("study", f"waits for its study: series {named} still receiving")
    if busy or series.study_quiet_seconds < patience.study_quiet_seconds:
        return Verdict(
            "study",
            "waits for its study: nothing new in it for "
            f"{_seconds(series.study_quiet_seconds)} of {_seconds(patience.study_quiet_seconds)}",
        )
    if not (patience.archive and patience.whole_study):
        return Verdict()
    unanswered = _unanswered(series, patience, series.study_quiet_seconds)
    if unanswered is not None:
        return unanswered
    if not series.series_missing or series.study_quiet_seconds >= patience.incomplete_seconds:
        return Verdict()
    if not _within(series.answered_seconds, series.study_quiet_seconds):
        return Verdict()
    said = _short_in_words(series, series.study_shortfall, patience)
    return Verdict("series", said, must_ask=_again(series, patience))


def explain_waiting(undecided: Sequence[SeenSeries], settings: Settings) -> dict[tuple[str, str], Verdict]:
    """Return what each undecided series waits for, by its Study and Series Instance UID.

    One that is complete waits for its decision: for what the records say of that, or for the next scan.

    Parameters
    ----------
    undecided
        All of them: what a study waits for are its other series.
    """
    patience = {one: Patience.of(settings, one) for one in {seen.calling_ae_title for seen in undecided}}
    judged = [(one, judge_series(one, patience[one.calling_ae_title])) for one in undecided]
    unfinished = [one for one, verdict in judged if not verdict.complete]
    explained: dict[tuple[str, str], Verdict] = {}
    for series, verdict in judged:
        if verdict.complete and series.state == "waiting-for-study":
            verdict = judge_study(series, patience[series.calling_ae_title], unfinished)
        if verdict.complete:
            verdict = Verdict("decision", series.waits_for or _undecided(series, patience[series.calling_ae_title]))
        explained[series.study_instance_uid, series.series_instance_uid] = verdict
    return explained


def _undecided(series: SeenSeries, patience: Patience) -> str:
    """Say that a complete series is about to be decided; not if that should have been long ago.

    No scan runs then: no server, or it fails before it could say why. Where something may have been waited for beyond
    the quiet time, its longest wait counts.
    """
    is_of_study = series.state == "waiting-for-study"
    quiet = series.study_quiet_seconds if is_of_study else series.quiet_seconds
    waited = patience.study_quiet_seconds if is_of_study else patience.quiet_seconds
    if patience.archive or patience.on_release:
        waited = max(waited, patience.incomplete_seconds)
    if quiet - waited < _LONG_UNDECIDED_SECONDS:
        return "complete: it is about to be decided"
    return (
        f"complete, and no scan has decided it for {_seconds(quiet - waited)}: see whether a server with a listener "
        "runs, and its log"
    )


def _arriving(series: SeenSeries, patience: Patience) -> Verdict | None:
    """What says that instances may still be on their way; None if nothing does."""
    if patience.on_release:
        if series.open_associations and series.quiet_seconds < patience.incomplete_seconds:
            return Verdict("association", f"association open from {series.calling_ae_title}")
        if series.released:
            return None
    if series.quiet_seconds < patience.quiet_seconds:
        return Verdict("quiet", f"quiet for {_seconds(series.quiet_seconds)} of {_seconds(patience.quiet_seconds)}")
    return None


def _unanswered(series: SeenSeries, patience: Patience, quiet_seconds: float) -> Verdict | None:
    """What is to be waited for before the archive's word counts; None if it counts, or there will be none.

    Parameters
    ----------
    quiet_seconds
        Since the last content that the answer must be younger than.
    """
    if series.asked_archive != patience.archive or not _within(series.asked_seconds, quiet_seconds):
        return Verdict("answer", f"the archive {patience.archive} is about to be asked", must_ask=True)
    answered = _within(series.answered_seconds, quiet_seconds)
    if series.asked_code != ASKING or answered:
        return None
    if series.asked_seconds is None or series.asked_seconds >= patience.ask_seconds:
        return None  # the quiet time alone decides
    return Verdict(
        "answer", f"the archive {patience.archive} was asked {_seconds(series.asked_seconds)} ago and has not answered"
    )


def _again(series: SeenSeries, patience: Patience) -> bool:
    wait = min(patience.ask_again_seconds * 2.0 ** min(max(series.asks - 1, 0), 16), _LONGEST_AGAIN_SECONDS)
    wait = max(wait, patience.ask_again_seconds)
    if series.asked_code == ASKING:
        wait = max(wait, patience.ask_seconds)
    return series.asked_seconds is not None and series.asked_seconds >= wait


def _short_in_words(series: SeenSeries, said: str, patience: Patience) -> str:
    asked = _seconds(series.asked_seconds or 0.0)
    return f"{said}, the archive {patience.archive} was asked {asked} ago"


def _within(age: float | None, quiet_seconds: float) -> bool:
    """Whether something happened since the last content came."""
    return age is not None and age <= quiet_seconds


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 or seconds == round(seconds) else f"{seconds:.1f} s"
