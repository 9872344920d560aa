"""`limner destinations`: what each destination takes, as it said itself, and which form of a segmentation it gets."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from app import bootstrap
from app.jobs.entries import DestinationProfile
from app.jobs.forms import chosen_kinds, possible_kinds
from app.jobs.probing import keep_accepted
from app.settings import DestinationSettings, Settings, load_settings
from app.terminal import JsonOption, SettingsOption, console, errors, print_json, say, table


def destinations(
    settings: SettingsOption = None,
    ask: Annotated[bool, typer.Option("--ask", help="Ask each of them now; nothing is sent.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the destinations: what each accepts, and what of a result it gets. The server asks them now and then."""
    loaded = load_settings(settings)
    with bootstrap.open_records(loaded) as records:
        if ask:
            for one in bootstrap.make_destinations(loaded):
                if not keep_accepted(records, loaded, one):
                    say(f"{one.name} can't be asked now; `limner check` tells why", to=errors)
        profiles = records.profiles()
    listed = [_described(one, loaded, profiles.get(one.name)) for one in loaded.destination]
    if as_json:
        print_json(listed)
        return
    shown = table("destination", "address", "asked", "accepts", "gets")
    for facts in listed:
        accepts = "unknown" if facts["asked_at"] is None else ", ".join(facts["accepts"]) or "nothing"
        gets = "; ".join(f"{rule}: {', '.join(kinds)}" for rule, kinds in facts["gets"].items())
        shown.add_row(
            facts["destination"], facts["address"], facts["asked_at"] or "never", accepts, escape(gets) or "no rule"
        )
    console.print(shown)


def _described(one: DestinationSettings, settings: Settings, profile: DestinationProfile | None) -> dict[str, Any]:
    """A destination, and by rule the kinds of objects that it gets."""
    known = profile if profile is not None and profile.address == one.address else None
    gets = {}
    for rule in settings.rule:
        if one.name in rule.destinations:
            gets[rule.name] = list(chosen_kinds(rule.results, one, known, possible_kinds(rule.results, one)))
    return {
        "destination": one.name,
        "address": one.address,
        "asked_at": None if known is None else known.asked_at.isoformat(timespec="seconds"),
        "accepts": [] if known is None else list(known.accepted),
        "gets": gets,
    }
