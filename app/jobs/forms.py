"""What of a job's objects each destination gets, by what it said itself when it was asked.

An archive that refuses a LABELMAP gets a BINARY Segmentation, one that refuses every Segmentation a structure set or a
capture: whichever it takes first of the forms that its settings list. What is refused by all of that is still tried,
and fails where everybody sees it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain

from app.jobs.entries import Delivery, DestinationProfile, Job, NewJob, Result, Role, Sending
from app.jobs.records import Records
from app.settings import DestinationSettings, Settings
from operators.object_kinds import NOTICES, SEGMENTATIONS, Kind

_ALWAYS: Kind = "segmentation"
"""Written of every finding: what the proofs and the records begin with."""


class Forms:
    """Chooses among the objects of a job.

    Parameters
    ----------
    settings
        What rules send, and what destinations want.
    records
        Where the destinations' own words are kept.
    """

    def __init__(self, settings: Settings, records: Records) -> None:
        self._settings = settings
        self._records = records

    def kinds(self, job: Job | NewJob) -> tuple[Kind, ...]:
        """Return every kind that may be sent to any of the job's destinations, the BINARY Segmentation first."""
        results = self._settings.results_of(job.rule)
        found = chain.from_iterable(
            forms for one in self._destinations(job.destinations) for forms in slots(results, one)
        )
        return tuple(dict.fromkeys([_ALWAYS, *found]))

    def sendings(self, job: Job | NewJob, results: Sequence[Result], roles: Collection[Role]) -> list[Sending]:
        """Return the deliveries of `results`, of the models in these `roles`."""
        profiles = self._records.profiles()
        chosen = []
        for destination in job.destinations:
            for role in roles:
                made = {one.kind: one for one in results if one.role == role}
                for kind in self._chosen(job.rule, destination, profiles.get(destination), made):
                    chosen.append(Sending(job.id, made[kind].digest, destination))
        return list(dict.fromkeys(chosen))

    def instead(self, job: Job, delivery: Delivery) -> Result | None:
        """Return the object that takes the place of one that its destination refused; None if there is none."""
        refused = next(one for one in job.results if one.digest == delivery.digest)
        made = {one.kind: one for one in job.results if one.role == refused.role}
        known = self._settings.knows_destination(delivery.destination)
        destination = self._settings.destination_named(delivery.destination) if known else None
        if destination is None or refused.kind in NOTICES:
            return None
        profile = self._records.profiles().get(delivery.destination)
        kind = next_form(refused.kind, self._settings.results_of(job.rule), destination, profile, made)
        return None if kind is None else made[kind]

    def _chosen(
        self, rule: str, destination: str, profile: DestinationProfile | None, made: Collection[Kind]
    ) -> tuple[Kind, ...]:
        if not self._settings.knows_destination(destination):
            return (_ALWAYS,)  # the delivery fails and says why
        settings = self._settings.destination_named(destination)
        return chosen_kinds(self._settings.results_of(rule), settings, profile, made)

    def _destinations(self, names: Sequence[str]) -> list[DestinationSettings]:
        return [self._settings.destination_named(name) for name in names if self._settings.knows_destination(name)]


def slots(results: Sequence[Kind], destination: DestinationSettings) -> tuple[tuple[Kind, ...], ...]:
    """Return what a destination is to get: for each result the forms that will do, the best first.

    Parameters
    ----------
    results
        What the rule sends; the destination's own list comes before it.
    """
    wanted: Sequence[Kind] = destination.results or results
    return tuple(destination.segmentation_as if kind == "segmentation" else (kind,) for kind in wanted)


def chosen_kinds(
    results: Sequence[Kind],
    destination: DestinationSettings,
    profile: DestinationProfile | None,
    available: Collection[Kind],
) -> tuple[Kind, ...]:
    """Return the kinds of `available` that a destination gets.

    Of a segmentation's forms it is the first that the destination accepts; where it was never asked, or accepts none,
    the first of all.
    """
    chosen: list[Kind] = []
    for forms in slots(results, destination):
        there = [kind for kind in forms if kind in available]
        if not there and set(forms) & set(SEGMENTATIONS):
            there = [kind for kind in (_ALWAYS,) if kind in available]
        chosen += (_accepted(there, destination, profile) or there)[:1]
    return tuple(dict.fromkeys(chosen))


def next_form(
    refused: Kind,
    results: Sequence[Kind],
    destination: DestinationSettings,
    profile: DestinationProfile | None,
    available: Collection[Kind],
) -> Kind | None:
    """Return the form that takes the place of one that the destination refused; None if there is none."""
    for forms in slots(results, destination):
        if refused in forms:
            rest = [kind for kind in forms[forms.index(refused) + 1 :] if kind in available]
            return next(iter(_accepted(rest, destination, profile)), None)
    return None


def _accepted(
    kinds: Sequence[Kind], destination: DestinationSettings, profile: DestinationProfile | None
) -> list[Kind]:
    """Those of `kinds` that the destination accepts, all if it was never asked where it is now."""
    if profile is None or profile.address != destination.address:
        return list(kinds)
    return [kind for kind in kinds if kind in profile.accepted]
