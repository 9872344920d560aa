"""`limner pause`, `resume`, `drain` and `status`: what stands still, and how much is under way."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from app import bootstrap
from app.cli_decisions import person, wait_until
from app.errors import JobError
from app.jobs.pausing import ask_for_pause
from app.jobs.records import Records
from app.jobs.records.pausing import PauseKind
from app.settings import load_settings
from app.terminal import JsonOption, SettingsOption, print_json, say

_LOOK_SECONDS = 1.0

PipelineOption = Annotated[str | None, typer.Option(help="The graphs of this pipeline alone.")]
DestinationOption = Annotated[str | None, typer.Option(help="The deliveries to this destination alone.")]


def pause(
    pipeline: PipelineOption = None, destination: DestinationOption = None, settings: SettingsOption = None
) -> None:
    """Let no new graph or delivery start; what runs ends, and studies are received as ever."""
    _pause(pipeline, destination, settings, resume=False)


def resume(
    pipeline: PipelineOption = None, destination: DestinationOption = None, settings: SettingsOption = None
) -> None:
    """Let what was paused go on, in its order. A pause of one pipeline or destination ends by its own name."""
    _pause(pipeline, destination, settings, resume=True)


def drain(
    settings: SettingsOption = None,
    seconds: Annotated[float, typer.Option(help="How long to wait at most.")] = 3600.0,
) -> None:
    """Pause everything and wait until nothing runs, as before an upgrade. Exit code 2 if something still does."""
    _pause(None, None, settings, resume=False)
    shown = None
    with bootstrap.open_records(load_settings(settings)) as records:
        deadline = time.monotonic() + seconds
        while True:
            work = records.work()
            if not (work.graphs or work.sendings):
                break
            if time.monotonic() >= deadline:
                raise JobError(
                    f"{work.graphs} graphs and {work.sendings} deliveries still run after {seconds:g} s; everything "
                    "stays paused",
                    code="not-drained",
                )
            if shown != work[:2]:
                say(f"{work.graphs} graphs and {work.sendings} deliveries run still")
                shown = work[:2]
            time.sleep(_LOOK_SECONDS)
        say(f"drained: nothing runs; {work.graphs_waiting} graphs and {work.sendings_waiting} deliveries wait")
        say("→ `limner resume` lets them go on")


def status(settings: SettingsOption = None, as_json: JsonOption = False) -> None:
    """Show what is paused, how much is under way and waits, and how many jobs are in each state."""
    loaded = load_settings(settings)
    with bootstrap.open_records(loaded) as records:
        paused, work, counts = records.pauses(), records.work(), records.job_counts()
        serving = bootstrap.running_server(loaded) is not None
        if as_json:
            pauses = [asdict(one) | {"paused_at": one.paused_at.isoformat()} for one in paused]
            print_json({"serving": serving, "paused": pauses, "work": work._asdict(), "jobs": counts})
            return
        say(("a server runs here", "green") if serving else ("no server runs here", "yellow"))
        say_pauses(records)
    say(f"graphs: {work.graphs} run, {work.graphs_waiting} wait")
    say(f"deliveries: {work.sendings} run, {work.sendings_waiting} wait")
    for state, number in sorted(counts.items()):
        say(f"jobs {state}: {number}")


def say_pauses(records: Records) -> None:
    """Say what is paused, a line each; nothing if nothing is."""
    for one in records.pauses():
        say(("paused: ", "yellow"), f"{one.what}, by {one.person} since {one.paused_at:%Y-%m-%d %H:%M}")


def _pause(pipeline: str | None, destination: str | None, settings: SettingsOption, *, resume: bool) -> None:
    loaded = load_settings(settings)
    if pipeline is not None and destination is not None:
        raise JobError("expected --pipeline or --destination, not both; give two commands", code="pause-unknown")
    kind: PauseKind = "pipeline" if pipeline is not None else "destination" if destination is not None else "everything"
    name = pipeline or destination or ""
    with bootstrap.open_records(loaded) as records:

        def is_so() -> bool:
            return any((one.kind, one.name) == (kind, name) for one in records.pauses())

        known = {"pipeline": {one.name for one in loaded.pipeline}, "everything": {""}}
        if name not in known.get(kind, {one.name for one in loaded.destination}) and not is_so():
            raise JobError(f"the settings name no {kind} '{name}'", code="pause-unknown")
        ask_for_pause(records, kind, name, person(), resume=resume)
        done = f"{kind} {name}".strip() + (" goes on" if resume else " is paused")
        wait_until(lambda: is_so() is not resume, done, records)
