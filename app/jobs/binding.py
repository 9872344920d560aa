"""Which series of a study feed which channel of a model, and what is wrong where they are not one each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.jobs.entries import SeenSeries
from app.settings_pipeline import RuleSettings
from operators.errors import SeriesRefused


@dataclass(frozen=True)
class TakenSeries:
    """A series that a rule took, and the channels whose conditions it fits."""

    series: SeenSeries
    channels: tuple[str, ...]


@dataclass(frozen=True)
class StudyBinding:
    """A complete study as one rule with channels sees it."""

    rule: RuleSettings
    study: tuple[SeenSeries, ...]
    """All its series as they were when their headers were read."""
    taken: tuple[TakenSeries, ...]
    """Those of them that the rule took, at least one."""
    expected: Mapping[str, str]
    """What the rule looks for in each channel, in words."""

    def candidates(self, channel: str) -> list[SeenSeries]:
        """Return the series that fit a channel."""
        return [one.series for one in self.taken if channel in one.channels]

    def inputs(self, channels: Sequence[str]) -> list[tuple[str, SeenSeries]]:
        """Return each channel, in the order of `channels`, with each series that fits it."""
        return [(channel, series) for channel in channels for series in self.candidates(channel)]

    def carrier(self, channels: Sequence[str]) -> SeenSeries:
        """Return the series whose UIDs the job has: the primary channel's, or the next best where there is none."""
        bound = self.inputs(channels)
        return bound[0][1] if bound else self.taken[0].series

    def problem(self, channels: Sequence[str]) -> SeriesRefused | None:
        """Return why the study is refused; None if each channel has exactly one series, and no two the same one.

        ``channel-missing`` if a channel has none, ``channel-ambiguous`` otherwise.
        """
        missing = [channel for channel in channels if not self.candidates(channel)]
        doubled = [channel for channel in channels if len(self.candidates(channel)) > 1]
        several = [one.channels for one in self.taken if len(one.channels) > 1]
        found = [f"no series for the channel {one} ({self.expected[one]})" for one in missing]
        found += [f"{len(self.candidates(one))} series for the channel {one} ({self.expected[one]})" for one in doubled]
        found += [f"one series that fits the channels {', '.join(fitting)} at once" for fitting in several]
        if not found:
            return None
        message = (
            f"rule '{self.rule.name}' expected one series a channel; the study has {'; '.join(found)}. "
            "Send what is missing, or change the channels' conditions"
        )
        if missing:
            return SeriesRefused(message, code="channel-missing")
        return SeriesRefused(message, code="channel-ambiguous")
