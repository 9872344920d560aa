"""What others hold: studies that should have come and never did, and results that were sent and are not there.

An archive is asked by C-FIND, or by QIDO-RS where it is a destination with a ``url``. A destination is asked for its
results as it is before one is sent again: by C-FIND or QIDO-RS, itself or whom the settings name. What an archive does
not tell of a series counts neither for nor against a rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pydicom import DataElement, Dataset
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR

from app.delivery.destination import TellsWhatItHolds
from app.delivery.qido import WebQuery
from app.delivery.query import Answer, DimseQuery, QueryLevel
from app.delivery.web_service import WebService
from app.errors import DeliveryError, SettingsError
from app.jobs.discrepancies import Discrepancy
from app.jobs.records import Records
from app.routing.rules import RuleSet
from app.settings import Settings

_OF_STUDIES = ("StudyDescription",)
_OF_SERIES = (
    "BodyPartExamined",
    "Laterality",
    "Manufacturer",
    "ManufacturerModelName",
    "Modality",
    "PatientPosition",
    "PerformedProcedureStepDescription",
    "ProtocolName",
    "SequenceName",
    "SeriesDescription",
    "SeriesNumber",
    "StationName",
    "SOPClassUID",
)
"""What archives may tell of a series, without anything of the patient (PS3.4 section C.6.2.1)."""


class Asked(Protocol):
    """An archive: `app.delivery.query.DimseQuery`, `app.delivery.qido.WebQuery`."""

    def find(
        self, level: QueryLevel, keys: Mapping[str, str | Sequence[str]], wanted: Sequence[str] = ()
    ) -> tuple[Answer, ...]:
        """Return what it holds that matches; DeliveryError if it does not tell."""
        ...


@dataclass(frozen=True)
class Sweep:
    """What was found, and who could not be asked."""

    discrepancies: tuple[Discrepancy, ...]
    unasked: dict[str, str]
    """Destinations, and the archive, that did not tell, and why."""


def sweep(
    settings: Settings, records: Records, destinations: Mapping[str, object], archive: str, since: datetime
) -> Sweep:
    """Ask an archive for the studies since a day, and the destinations for the results of the jobs since a moment.

    Parameters
    ----------
    destinations
        Those of the settings, by name.
    archive
        The name of the ``[[archive]]``, or of a ``[[destination]]`` with a ``url``.

    Raises
    ------
    SettingsError
        If none has that name, or is to be asked.
    """
    asked = asked_archive(settings, archive)
    held = not_held(destinations, records.delivered(since))
    try:
        found = tuple(never_seen(asked, RuleSet(settings.rule), records, since))
    except DeliveryError as error:  # what is known without it is told all the same
        return Sweep(held.discrepancies, {f"archive {archive}": f"{error.code}: {error}", **held.unasked})
    return Sweep((*found, *held.discrepancies), held.unasked)


def asked_archive(settings: Settings, name: str) -> Asked:
    """Return how to ask whoever the settings call so.

    Raises
    ------
    SettingsError
        ``archive-unknown`` if it is neither an ``[[archive]]`` nor a ``[[destination]]`` that is asked over the web.
    """
    named = {one.name: one for one in settings.archive}
    if name in named:
        return DimseQuery.of_archive(named[name], settings.listener.ae_title)
    over_the_web = {one.name: one for one in settings.destination if one.url is not None and one.ask != "never"}
    if name in over_the_web:
        return WebQuery(WebService(over_the_web[name]))
    known = ", ".join([*named, *over_the_web]) or "there is none"
    raise SettingsError(
        f"'{name}' can't be asked for its studies; expected an [[archive]], or a [[destination]] with a url that does "
        f'not say ask = "never": {known}',
        code="archive-unknown",
    )


def never_seen(archive: Asked, rules: RuleSet, records: Records, since: datetime) -> Iterator[Discrepancy]:
    """Yield the studies and series that a rule may take and that never came here."""
    known = rules.keywords
    of_studies = [name for name in _OF_STUDIES if name in known]
    of_series = [name for name in _OF_SERIES if name in known]
    days = {"StudyDate": f"{since:%Y%m%d}-"}
    for study in archive.find("STUDY", days, ["StudyInstanceUID", *of_studies]):
        uid = study["StudyInstanceUID"]
        if not uid:
            continue
        seen = records.seen_series(uid)
        told = {name: study[name] for name in of_studies}
        wanted = ["SeriesInstanceUID", *of_series]
        eligible = [
            one["SeriesInstanceUID"]
            for one in archive.find("SERIES", {"StudyInstanceUID": uid}, wanted)
            if one["SeriesInstanceUID"] not in seen
            if may_be_taken(rules, {**told, **{name: one[name] for name in of_series}})
        ]
        if eligible and not seen:
            yield Discrepancy("study-never-seen", study_instance_uid=uid)
        elif seen:
            for series in eligible:
                yield Discrepancy("series-never-seen", study_instance_uid=uid, series_instance_uid=series)


def may_be_taken(rules: RuleSet, told: Mapping[str, str]) -> bool:
    """Whether some rule may take a series of which this much is told: "" is nothing told."""
    dataset, known = Dataset(), set()
    for name, value in told.items():
        try:
            dataset.add(DataElement(name, dictionary_VR(name), value, validation_mode=IGNORE))
        except (ValueError, TypeError, OverflowError):  # an archive's answer may be anything
            continue
        if value:
            known.add(name)
    explanations = rules.decide(dataset).explanations
    return any(all(one.holds or one.keyword not in known for one in rule.conditions) for rule in explanations)


def not_held(destinations: Mapping[str, object], delivered: Sequence[Mapping[str, Any]]) -> Sweep:
    """Return the delivered results that their destinations do not hold; one that does not tell is no discrepancy."""
    found: list[Discrepancy] = []
    unasked: dict[str, str] = {}
    for row in delivered:
        name = row["destination"]
        destination = destinations.get(name)
        if name in unasked:
            continue
        if destination is None:
            unasked[name] = "the settings name it no more"
        elif not isinstance(destination, TellsWhatItHolds) or not destination.can_be_asked:
            unasked[name] = "the settings say that it is not asked"
        else:
            try:
                is_held = destination.holds(
                    row["study_instance_uid"], row["series_instance_uid"], row["sop_instance_uid"]
                )
            except DeliveryError as error:
                unasked[name] = f"{error.code}: {error}"
                continue
            if not is_held:
                found.append(Discrepancy.about("result-not-held", row))
    return Sweep(tuple(found), unasked)
