"""What of a job's objects each destination gets, by what it said itself when it was asked.

An archive that refuses a LABELMAP gets a BINARY Segmentation, one that refuses every Segmentation a structure set or a
capture: whichever it takes first of the forms that its settings list. What is refused by all of that is still tried,
and fails where everybody sees it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain

from app.jobs.entries import Delivery, Job, NewJob, Result, Role, Sending
from app.jobs.records import Records
from app.jobs.return_entries import DestinationProfile
from app.settings import DestinationSettings, Settings
from operators.object_kinds import NOTICES, Kind

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
        known = [name for name in job.destinations if self._settings.knows_destination(name)]
        found = (possible_kinds(results, self._settings.destination_named(name)) for name in known)
        return tuple(dict.fromkeys([_ALWAYS, *chain.from_iterable(found)]))

    def sendings(self, job: Job | NewJob, results: Sequence[Result], roles: Collection[Role]) -> list[Sending]:
        """Return the deliveries of `results`, of the models in these `roles`."""
        profiles = self._records.profiles()
        chosen = []
        for destination in job.destinations:
            for role in roles:
                made = _by_kind(results, role)
                for kind in self._chosen(job.rule, destination, profiles.get(destination), made):
                    chosen += [Sending(job.id, one.digest, destination) for one in made[kind]]
        return list(dict.fromkeys(chosen))

    def instead(self, job: Job, delivery: Delivery) -> dict[Kind, list[Result]]:
        """Return the objects that take the place of one that its destination refused, by the kind that they replace.

        A report that refers to the refused object is replaced too. Empty if nothing can take its place.
        """
        refused = next(one for one in job.results if one.digest == delivery.digest)
        if refused.kind in NOTICES or not self._settings.knows_destination(delivery.destination):
            return {}
        made = _by_kind(job.results, refused.role)
        settings, results = self._settings.destination_named(delivery.destination), self._settings.results_of(job.rule)
        profile = self._records.profiles().get(delivery.destination)
        kind = next_form(refused.kind, results, settings, profile, made)
        if kind is None:
            return {}
        replaced = {refused.kind: made[kind]}
        before, after = report_on(refused.kind), report_on(kind)
        if before != after and "report" in (settings.results or results):
            replaced[before] = made.get(after, [])
        return replaced

    def _chosen(
        self, rule: str, destination: str, profile: DestinationProfile | None, made: Collection[Kind]
    ) -> tuple[Kind, ...]:
        if not self._settings.knows_destination(destination):
            return (_ALWAYS,)  # the delivery fails and says why
        settings = self._settings.destination_named(destination)
        return chosen_kinds(self._settings.results_of(rule), settings, profile, made)


def report_on(form: Kind | None) -> Kind:
    """Return the report that goes with a form of a segmentation: one that refers to nothing the receiver lacks."""
    match form:
        case "segmentation":
            return "report"
        case "labelmap":
            return "report-on-labelmap"
        case _:
            return "report-alone"


def possible_kinds(results: Sequence[Kind], destination: DestinationSettings) -> tuple[Kind, ...]:
    """Return every kind that a destination may get.

    Parameters
    ----------
    results
        What the rule sends; the destination's own list comes before it.
    """
    wanted: Sequence[Kind] = destination.results or results
    forms: Sequence[Kind] = destination.segmentation_as if "segmentation" in wanted else ()
    reports = [report_on(form) for form in forms or (None,)] if "report" in wanted else []
    others = [kind for kind in wanted if kind not in ("segmentation", "report")]
    return tuple(dict.fromkeys([*forms, *reports, *others]))


def chosen_kinds(
    results: Sequence[Kind],
    destination: DestinationSettings,
    profile: DestinationProfile | None,
    available: Collection[Kind],
) -> tuple[Kind, ...]:
    """Return the kinds of `available` that a destination gets, a form of the segmentation first.

    Of these forms it is the first that the destination accepts; where it was never asked, or accepts none, the first of
    all. The report is the one that refers to that form.
    """
    wanted: Sequence[Kind] = destination.results or results
    form: Kind | None = None
    if "segmentation" in wanted:
        there: list[Kind] = [kind for kind in destination.segmentation_as if kind in available]
        there = there or [_ALWAYS]
        form = (_accepted(there, destination, profile) or there)[0]
    kinds = [*([form] if form else []), *(kind for kind in wanted if kind != "segmentation")]
    resolved = [report_on(form) if kind == "report" else kind for kind in kinds]
    return tuple(dict.fromkeys(kind for kind in resolved if kind in available))


def next_form(
    refused: Kind,
    results: Sequence[Kind],
    destination: DestinationSettings,
    profile: DestinationProfile | None,
    available: Collection[Kind],
) -> Kind | None:
    """Return the form that takes the place of one that the destination refused; None if there is none."""
    forms: Sequence[Kind] = destination.segmentation_as
    if "segmentation" not in (destination.results or results) or refused not in forms:
        return None
    rest = [kind for kind in forms[forms.index(refused) + 1 :] if kind in available]
    return next(iter(_accepted(rest, destination, profile)), None)


def _accepted(
    kinds: Sequence[Kind], destination: DestinationSettings, profile: DestinationProfile | None
) -> list[Kind]:
    """Those of `kinds` that the destination accepts, all if it was never asked where it is now."""
    if profile is None or profile.address != destination.address:
        return list(kinds)
    return [kind for kind in kinds if kind in profile.accepted]


def _by_kind(results: Sequence[Result], role: Role) -> dict[Kind, list[Result]]:
    made: dict[Kind, list[Result]] = {}
    for one in results:
        if one.role == role:
            made.setdefault(one.kind, []).append(one)
    return made
