"""`limner account`: the proof that nothing was lost, or what is not accounted for."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from app import bootstrap
from app.errors import SettingsError
from app.jobs.accounting import Account, account
from app.jobs.discrepancies import Discrepancy
from app.settings import load_settings
from app.terminal import JsonOption, SettingsOption, console, print_json, say, table

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_EVER = datetime(1970, 1, 1, tzinfo=UTC)


def account_command(
    settings: SettingsOption = None,
    since: Annotated[
        str | None,
        typer.Option(help="Only what came since: a time as 2026-05-01T08:00, or a duration as 90m, 24h, 7d."),
    ] = None,
    files: Annotated[bool, typer.Option("--files", help="Also read every file and hold it to its digest.")] = False,
    audit: Annotated[
        list[Path] | None,
        typer.Option(help="Another server's audit folder, where several work on the same records.", exists=True),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that records, queue, disk and audit log agree; else name what does not. Exit code 1 then.

    Every received instance, series, job and delivery is in exactly one state, and the sums agree. Nothing is changed;
    a server may be at work meanwhile.
    """
    loaded = load_settings(settings)
    begin = _EVER if since is None else parse_since(since, datetime.now().astimezone())
    spool = bootstrap.make_spool(loaded)
    with bootstrap.open_records(loaded) as records:
        found = account(records, spool, [loaded.audit_folder, *(audit or [])], begin, reads_files=files)
    if as_json:
        print_json(_as_json(found))
    else:
        _print(found)
    if not found.agrees:
        raise typer.Exit(1)


def parse_since(text: str, now: datetime) -> datetime:
    """Return the moment that a time or a duration before `now` names.

    Raises
    ------
    SettingsError
        If it is neither.
    """
    duration = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if duration is not None:
        try:
            return now - timedelta(**{_UNITS[duration[2]]: int(duration[1])})
        except OverflowError:  # before the year 1
            return _EVER
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(
            f"--since is '{text}'; expected a time as 2026-05-01T08:00 or a duration as 90m, 24h, 7d",
            code="since-invalid",
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=now.tzinfo)


def _print(found: Account) -> None:
    listed = table("what", "state", "count")
    for kind, states in found.totals.items():
        for state, count in states.items():
            listed.add_row(kind, state, str(count))
        listed.add_row(kind, "all", str(sum(states.values())), style="bold")
    console.print(listed)
    if found.agrees:
        say(("everything agrees", "green"), ": records, queue, disk and audit log say the same")
        return
    for one in found.discrepancies:
        say((one.code, "red"), f": {one.subject}: {one.meaning.sentence} → {one.meaning.advice}")
    say((f"{len(found.discrepancies)} things do not agree", "red"))


def _as_json(found: Account) -> dict[str, Any]:
    return {
        "agrees": found.agrees,
        "since": None if found.since == _EVER else found.since.isoformat(),
        "totals": found.totals,
        "discrepancies": [_discrepancy_as_json(one) for one in found.discrepancies],
    }


def _discrepancy_as_json(one: Discrepancy) -> dict[str, str]:
    named = {key: value for key, value in asdict(one).items() if value}
    return {**named, "sentence": one.meaning.sentence, "advice": one.meaning.advice}
