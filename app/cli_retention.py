"""`limner retention`: what goes from the disk, and why the rest stays."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any

import typer

from app import bootstrap
from app.errors import JobError
from app.jobs.retention import Retention, ask_for_retention
from app.jobs.retention_plan import STAYS, Plan, Removal
from app.settings import load_settings
from app.terminal import JsonOption, SettingsOption, console, print_json, say, table

_LONGEST_SECONDS = 600.0
_LOOK_SECONDS = 0.2


def retention_command(
    settings: SettingsOption = None,
    now: Annotated[
        bool, typer.Option("--now/--dry-run", help="Have it removed now, or only say what would go.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what may go from the disk by the settings' [retention], and why the rest stays; or have it removed.

    The server removes it, each study after a line in the audit log. It does so by itself every hour, and at once where
    space is wanted.
    """
    loaded = load_settings(settings)
    with bootstrap.open_records(loaded) as records:
        spool, results = bootstrap.make_spool(loaded), bootstrap.make_result_files(loaded)
        plan = Retention(settings=loaded, records=records, audit=None, spool=spool, results=results).plan()
        if as_json:
            print_json(_as_json(plan))
        else:
            _print(plan, is_done=now)
        if not now:
            return
        ask_for_retention(records, is_urgent=True)
        if not records.has_workers():
            say("no worker runs: it is removed when one starts")
            return
        deadline = time.monotonic() + _LONGEST_SECONDS
        while records.retention_is_asked_for():
            if time.monotonic() > deadline:
                raise JobError(
                    f"the server has not removed all of it within {_LONGEST_SECONDS:.0f} s; it goes on with it",
                    code="retention-waiting",
                )
            time.sleep(_LOOK_SECONDS)
    if not as_json:
        say("done")


def _print(plan: Plan, *, is_done: bool) -> None:
    listed = table("what", "study", "job", "why", "files", "bytes")
    for one in plan.removals:
        listed.add_row(
            one.what,
            one.study_instance_uid,
            "" if one.job_id is None else str(one.job_id),
            one.why,
            str(one.count),
            str(one.bytes),
        )
    if plan.removals:
        console.print(listed)
    total = sum(one.bytes for one in plan.removals)
    say(f"{'going' if is_done else 'would go'}: {len(plan.removals)} entries, {total} bytes")
    for what, reasons in plan.stays.items():
        for reason, size_bytes in reasons.items():
            say(f"stays: {size_bytes} bytes of {what}: {STAYS[reason]}")
    if any("decision" in reasons for reasons in plan.stays.values()):
        say("→ `limner jobs --state failed` and `--state dead-letter` list these; `limner jobs replay`, or `withdraw`,")
        say("  decides about them: until then they stay, whatever their age and however full the disk is")
    if plan.lacking_bytes:
        say(("still lacking", "yellow"), f": {plan.lacking_bytes} bytes, and nothing more may go; see to the disk")


def _as_json(plan: Plan) -> dict[str, Any]:
    return {
        "removals": [_removal_as_json(one) for one in plan.removals],
        "stays": plan.stays,
        "lacking_bytes": plan.lacking_bytes,
    }


def _removal_as_json(one: Removal) -> dict[str, Any]:
    named = {key: str(value) if key == "job_id" else value for key, value in asdict(one).items() if value}
    return {**named, "names": list(one.names)} if one.names else named
