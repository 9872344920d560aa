"""What goes from the disk, and why the rest stays: decided from what is there, without doing anything."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.jobs.records.retaining import KeptResults, KeptStudy
from app.settings_retention import RetentionSettings

Why = Literal["age", "space"]
STAYS = {
    "receiving": "being received or decided",
    "job": "a job runs, waits or is held",
    "delivery": "an object is on its way",
    "commitment": "a destination has not committed itself yet",
    "decision": "a person is to decide about it: a dead letter, or what a destination did not take",
    "replay": "failed, and may be repeated",
    "young": "not old enough",
    "unrecorded": "not old enough, though no job knows it",
}
"""Why something stays, in words."""


@dataclass(frozen=True)
class Room:
    """What there is on the disk, in bytes."""

    free_bytes: int
    least_free_bytes: int
    spool_bytes: int


@dataclass(frozen=True)
class SizedResults:
    """A job's folder of results and what it takes."""

    results: KeptResults
    files: int
    bytes: int


@dataclass(frozen=True)
class UnrecordedResults:
    """A folder of results of which no job is recorded: who wrote it died before that, or the record is lost."""

    job_id: uuid.UUID
    files: int
    bytes: int
    idle_seconds: float


@dataclass(frozen=True)
class Refused:
    """An object in the quarantine."""

    name: str
    bytes: int
    idle_seconds: float


@dataclass(frozen=True)
class Removal:
    """Something that goes."""

    what: Literal["instances", "results", "unrecorded", "quarantine"]
    why: Why
    count: int
    """Instances or files."""
    bytes: int
    study_instance_uid: str = ""
    job_id: uuid.UUID | None = None
    names: tuple[str, ...] = ()
    """Of what lies in the quarantine."""


@dataclass(frozen=True)
class Plan:
    """What goes, in this order, and what stays."""

    removals: tuple[Removal, ...]
    stays: dict[str, dict[str, int]]
    """Bytes by kind and by the reason, as `STAYS` has them."""
    lacking_bytes: int
    """What will still be missing of the free space, since nothing more may go."""


class _Planner:
    def __init__(self, settings: RetentionSettings, room: Room) -> None:
        self._settings = settings
        self.lack = room.least_free_bytes - room.free_bytes
        largest = settings.largest_spool_bytes
        self.excess = 0 if largest is None else room.spool_bytes - largest
        self.removals: list[Removal] = []
        self.stays: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))

    def may_go(self, idle_seconds: float, longest_seconds: float, needed_by: str = "") -> Why | None:
        if needed_by:
            return None
        if idle_seconds >= longest_seconds:
            return "age"
        return "space" if idle_seconds >= self._settings.least_seconds else None

    def take(self, removal: Removal, *, is_wanted: bool = True) -> None:
        """Let it go if it is old, or if room is wanted."""
        if removal.why == "space" and not is_wanted:
            self.stays[removal.what]["young"] += removal.bytes
            return
        self.removals.append(removal)
        self.lack -= removal.bytes
        if removal.what == "instances":
            self.excess -= removal.bytes

    def stay(self, what: str, needed_by: str, size_bytes: int) -> None:
        self.stays[what][needed_by or "young"] += size_bytes


def make_plan(
    settings: RetentionSettings,
    room: Room,
    studies: Sequence[KeptStudy],
    results: Sequence[SizedResults],
    refused: Sequence[Refused],
    unrecorded: Sequence[UnrecordedResults] = (),
) -> Plan:
    """Decide what goes: first what is too old, then, for want of space, what was left alone longest.

    For room the quarantine goes first, then studies, then results; what something needs never goes. Nor does, for room,
    what no job knows: after a database was restored nobody knows what needs it.
    """
    planner = _Planner(settings, room)
    for each in unrecorded:
        if each.idle_seconds >= settings.results_seconds:
            planner.take(Removal("unrecorded", "age", each.files, each.bytes, job_id=each.job_id))
        else:
            planner.stay("results", "unrecorded", each.bytes)
    ways = [
        (planner.may_go(one.idle_seconds, settings.quarantine_seconds), one)
        for one in sorted(refused, key=lambda one: -one.idle_seconds)
    ]
    for why in ("age", "space"):
        for way, one in ways:
            if way == why:
                removal = Removal("quarantine", way, 1, one.bytes, names=(one.name,))
                planner.take(removal, is_wanted=planner.lack > 0)
            elif way is None and why == "age":
                planner.stay("quarantine", "", one.bytes)
        _studies(planner, settings, studies, why)
        _results(planner, settings, results, why)
    return Plan(
        tuple(planner.removals),
        {what: dict(reasons) for what, reasons in planner.stays.items()},
        max(0, planner.lack, planner.excess),
    )


def _studies(planner: _Planner, settings: RetentionSettings, studies: Sequence[KeptStudy], now: Why) -> None:
    for one in studies:
        why = planner.may_go(one.idle_seconds, settings.spool_seconds, one.needed_by)
        if why == now:
            removal = Removal("instances", why, one.instances, one.bytes, one.study_instance_uid)
            planner.take(removal, is_wanted=planner.lack > 0 or planner.excess > 0)
        elif why is None and now == "age":
            planner.stay("instances", one.needed_by, one.bytes)


def _results(planner: _Planner, settings: RetentionSettings, results: Sequence[SizedResults], now: Why) -> None:
    for one in results:
        kept = one.results
        why = planner.may_go(kept.idle_seconds, settings.results_seconds, kept.needed_by)
        if why == now:
            removal = Removal("results", why, one.files, one.bytes, kept.study_instance_uid, kept.job_id)
            planner.take(removal, is_wanted=planner.lack > 0)
        elif why is None and now == "age":
            planner.stay("results", kept.needed_by, one.bytes)
