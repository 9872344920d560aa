"""`limner destinations`: how each answers, what it takes by its own word, and which form of a segmentation it gets."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from app import bootstrap
from app.jobs.forms import chosen_kinds, possible_kinds
from app.jobs.probing import keep_accepted
from app.jobs.return_entries import DestinationProfile, DestinationWindow
from app.settings import DestinationSettings, Settings, load_settings
from app.terminal import JsonOption, SettingsOption, console, errors, print_json, say, table


def destinations(
    settings: SettingsOption = None,
    ask: Annotated[bool, typer.Option("--ask", help="Ask each of them now; nothing is sent.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the destinations: what each accepts and gets, and of one that is down since when, why, and the next try."""
    loaded = load_settings(settings)
    with bootstrap.open_records(loaded) as records:
        if ask:
            for one in bootstrap.make_destinations(loaded):
                if not keep_accepted(records, loaded, one):
                    say(f"{one.name} can't be asked now; `limner check` tells why", to=errors)
        profiles, windows = records.profiles(), records.windows()
    listed = [_described(one, loaded, profiles.get(one.name), windows.get(one.name)) for one in loaded.destination]
    if as_json:
        print_json(listed)
        return
    shown = table("destination", "address", "answers", "asked", "accepts", "gets")
    for facts in listed:
        accepts = "unknown" if facts["asked_at"] is None else ", ".join(facts["accepts"]) or "nothing"
        gets = "; ".join(f"{rule}: {', '.join(kinds)}" for rule, kinds in facts["gets"].items())
        shown.add_row(
            facts["destination"],
            facts["address"],
            escape(_answers(facts["down"])),
            facts["asked_at"] or "never",
            accepts,
            escape(gets) or "no rule",
        )
    console.print(shown)


def _answers(down: dict[str, Any] | None) -> str:
    if down is None:
        return "yes"
    return (
        f"not since {down['since']}: {down['code']}, {down['attempts']} attempts; next at {down['next_attempt_at']}: "
        f"{down['reason']}"
    )


def _down(one: DestinationSettings, window: DestinationWindow | None) -> dict[str, Any] | None:
    """Since when it is down, why, and when it is tried next; None if it answered last, or was never tried."""
    if window is None or window.down_since is None or window.address != one.address:
        return None
    following = window.next_attempt_at
    return {
        "since": window.down_since.isoformat(timespec="seconds"),
        "code": window.code,
        "reason": window.reason,
        "attempts": window.failures,
        "next_attempt_at": None if following is None else following.isoformat(timespec="seconds"),
    }


def _described(
    one: DestinationSettings, settings: Settings, profile: DestinationProfile | None, window: DestinationWindow | None
) -> dict[str, Any]:
    """A destination, how it answers, and by rule the kinds of objects that it gets."""
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
        "down": _down(one, window),
        "commitment": one.commitment,
    }
