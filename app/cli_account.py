"""`limner account`: the proof that nothing was lost, or what is not accounted for."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from app import bootstrap
from app.audit.chain import LOG_NAME
from app.errors import CannotUnderstand, SettingsError, StorageError
from app.jobs.accounting import Account, account
from app.jobs.discrepancies import Discrepancy
from app.listener.spool import Spool, read_instance_header
from app.settings import load_settings
from app.sweeping import sweep
from app.terminal import JsonOption, SettingsOption, console, print_json, say, table

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_EVER = datetime(1970, 1, 1, tzinfo=UTC)
_SWEPT = timedelta(days=7)
_DISAGREES, _NOT_PROVEN = 1, 3
"""Exit codes; 2 is that of every command that can't do what it was asked (`app.cli.main`)."""


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
    ask: Annotated[
        str | None,
        typer.Option(
            help="Also ask this [[archive]], or [[destination]] with a url, for studies that never came, and the "
            "destinations for results that they do not hold: of these days, or of the last 7 without --since."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that records, queue, disk and audit log agree; else name what does not. Exit code 1 then.

    Exit code 3 where nothing disagrees, and somebody whom --ask concerns could not be asked: then that is not proven.

    Every received instance, series, job and delivery is in exactly one state, and the sums agree. Nothing is changed;
    a server may be at work meanwhile.
    """
    loaded = load_settings(settings)
    now = datetime.now().astimezone()
    begin = _EVER if since is None else parse_since(since, now)
    unasked: dict[str, str] = {}
    with bootstrap.open_records(loaded) as records:
        spool = bootstrap.make_spool(loaded)
        logs = [log for folder in (loaded.audit_folder, *(audit or [])) for log in audit_folders(folder)]
        results = bootstrap.make_result_files(loaded)
        found = account(records, spool, results, logs, begin, reads_files=files)
        found = replace(found, discrepancies=tuple(_identified(one, spool) for one in found.discrepancies))
        if ask is not None:
            destinations = {one.name: one for one in bootstrap.make_destinations(loaded)}
            swept = sweep(loaded, records, destinations, ask, now - _SWEPT if since is None else begin)
            found = replace(found, discrepancies=(*found.discrepancies, *swept.discrepancies))
            unasked = swept.unasked
    if as_json:
        print_json({**_as_json(found), "unasked": unasked})
    else:
        _print(found)
        for name, reason in unasked.items():
            say((f"{name} can't be asked", "yellow"), f": {reason}")
    if not found.agrees:
        raise typer.Exit(_DISAGREES)
    if unasked:
        raise typer.Exit(_NOT_PROVEN)


def audit_folders(folder: Path) -> list[Path]:
    """Return the folder, and those in it that hold a log of their own: processes of one host may have one each."""
    return [folder, *sorted(path.parent for path in folder.glob(f"*/{LOG_NAME}"))]


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


def _identified(one: Discrepancy, spool: Spool) -> Discrepancy:
    """Say of a file without a record what is in it."""
    if one.code != "file-unrecorded":
        return one
    try:
        header = read_instance_header(spool.file_of(one.digest))
    except (CannotUnderstand, OSError, StorageError):
        return one
    return replace(
        one,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        sop_instance_uid=header.sop_instance_uid,
    )


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
