"""`limner jobs`: what became of the series, and a person's decision about a job that is held."""

from __future__ import annotations

import getpass
import os
import time
import uuid
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.markup import escape

from app import bootstrap
from app.errors import JobError
from app.jobs import holding, queue
from app.jobs.entries import Agreement, Finding, Job, JobInput, describe_way
from app.jobs.records import Records
from app.settings import load_settings
from app.terminal import JsonOption, SettingsOption, console, print_json, say, table

commands = typer.Typer(help="The jobs: what became of each series that a rule took.", invoke_without_command=True)

_DECISION_SECONDS = 20.0
_LOOK_SECONDS = 0.2

JobArgument = Annotated[str, typer.Argument(help="The job's number, as `limner jobs` lists it; its beginning will do.")]


@commands.callback()
def jobs(
    context: typer.Context,
    settings: SettingsOption = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the jobs, newest first: state, progress, flag, reason, deliveries. JSON adds each step and its time."""
    if context.invoked_subcommand is not None:
        return
    with bootstrap.open_records(load_settings(settings)) as records:
        found = records.jobs(limit)
        inputs = {job.id: records.job_inputs(job.id) for job in found}
    if as_json:
        print_json([_job_as_json(job, inputs[job.id]) for job in found])
        return
    listed = table("job", "state", "flag", "pipeline", "rule", "attempt", "progress", "deliveries", "reason")
    for job in found:
        progress = f"{job.progress_step} {job.progress_done}/{job.progress_total}" if job.progress_total else ""
        deliveries = ", ".join(f"{one.destination}: {one.state}" for one in job.deliveries)
        reason = f"{job.code}: {job.reason}" if job.code else job.flag_reason
        listed.add_row(
            str(job.id),
            job.state,
            job.flag,
            job.pipeline,
            job.rule,
            str(job.attempt),
            progress,
            deliveries,
            escape(reason),
        )
    console.print(listed)


@commands.command()
def show(job: JobArgument, settings: SettingsOption = None, as_json: JsonOption = False) -> None:
    """Show one job: its way, notes on its input, deliveries, segments, and how far its two models agree on each."""
    with bootstrap.open_records(load_settings(settings)) as records:
        found = _job(records, job)
        inputs, findings = records.job_inputs(found.id), records.findings(found.id)
        agreement, notes = records.agreement(found.id), records.notes(found.id)
    if as_json:
        segments = [_finding_as_json(one) for one in findings]
        compared = [_agreement_as_json(one) for one in agreement]
        noted = [asdict(one) for one in notes]
        print_json({**_job_as_json(found, inputs), "notes": noted, "segments": segments, "agreement": compared})
        return
    _print_job(found)
    for note in notes:
        say(("  input: ", "yellow"), f"{note.code} ({note.policy}): {note.message}")
    _print_segments(findings)
    _print_agreement(agreement)


@commands.command()
def release(job: JobArgument, settings: SettingsOption = None) -> None:
    """Have the results of a held job sent. Exit code 2 if it is not held."""
    _decide(job, queue.RELEASE, "the job is released: its results are being sent", settings)


@commands.command()
def discard(job: JobArgument, settings: SettingsOption = None) -> None:
    """End a held job without sending its results; they stay on disk. Exit code 2 if it is not held."""
    _decide(job, queue.DISCARD, "the job is discarded: its results are not sent", settings)


def _decide(text: str, decision: str, done: str, settings: SettingsOption) -> None:
    """Put a decision into the queue, and wait until the server has carried it out if one runs."""
    loaded = load_settings(settings)
    with bootstrap.open_records(loaded) as records:
        found = _job(records, text)
        holding.ask_for_decision(records, decision, found.id, _person())
        if bootstrap.running_server(loaded) is None:
            say("no server runs here: the decision is carried out when one starts")
            return
        deadline = time.monotonic() + _DECISION_SECONDS
        while time.monotonic() < deadline:
            now = records.job(found.id)
            if now is not None and now.state != "held":
                say(done)
                return
            time.sleep(_LOOK_SECONDS)
    raise JobError(
        f"the server did not carry the decision out within {_DECISION_SECONDS:.0f} s; it is in the queue still",
        code="decision-waiting",
    )


def _person() -> str:
    """The name of the user who gave the command; the number where it has none, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _job(records: Records, text: str) -> Job:
    """The job whose number begins with `text`."""
    try:
        found = records.job(uuid.UUID(text))
    except ValueError:
        matching = [one for one in records.jobs(10_000) if text and str(one.id).startswith(text.lower())]
        if len(matching) > 1:
            raise JobError(f"{len(matching)} jobs begin with '{text}'; give more of it", code="job-ambiguous") from None
        found = matching[0] if matching else None
    if found is None:
        raise JobError(f"there is no job '{text}'; `limner jobs` lists them", code="job-unknown")
    return found


def _print_job(job: Job) -> None:
    say(("job ", "bold"), str(job.id), ": ", (job.state, "bold"))
    say(f"  rule {job.rule}, pipeline {job.pipeline}, attempt {job.attempt}, {job.instances} instances")
    say(f"  specialist {job.model_name} {job.model_version}, weights {job.weights_digest[:12]}…")
    if job.generalist_name:
        said = f"weights {job.generalist_digest[:12]}…, on disagreement {job.on_disagreement}"
        say(f"  generalist {job.generalist_name} {job.generalist_version}, {said}")
    if job.code:
        say(f"  {job.code}: {job.reason}")
    if job.flag:
        say(("  flagged: ", "yellow"), f"{job.flag}: {job.flag_reason}")
    if job.state == "held":
        say(f"  → `limner jobs release {job.id}` sends its results, `limner jobs discard {job.id}` never does")
    way = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in describe_way(job))
    say(f"  way: {way or 'none yet'}")
    objects = {one.digest: f"{one.role}'s {one.kind}" for one in job.results}
    for one in job.deliveries:
        reason = f", {one.code}: {one.reason}" if one.code else ""
        asked = f", asked {one.commitment_rounds} times to keep it" if one.commitment_rounds else ""
        say(f"  {objects[one.digest]} to {one.destination}: {one.state}, attempts {one.attempts}{asked}{reason}")


def _print_segments(findings: list[Finding]) -> None:
    if not findings:
        return
    listed = table("found by", "segment", "code", "volume, ml")
    for one in findings:
        listed.add_row(one.role, escape(f"{one.number} {one.label}"), escape(one.code), f"{one.volume_ml:.1f}")
    console.print(listed)


def _print_agreement(agreement: list[Agreement]) -> None:
    if not agreement:
        return
    listed = table("segment", "Dice", "distance, mm", "difference, ml", "%", "beyond the limits")
    for one in agreement:
        listed.add_row(
            escape(f"{one.number} {one.label}"),
            f"{one.dice:.3f}",
            "none" if one.distance_mm is None else f"{one.distance_mm:.1f}",
            f"{one.difference_ml:+.1f}",
            "none" if one.difference_percent is None else f"{one.difference_percent:+.1f}",
            ", ".join(one.beyond) or "no",
        )
    console.print(listed)


def _generalist_as_json(job: Job) -> dict[str, str] | None:
    if not job.generalist_name:
        return None
    return {"name": job.generalist_name, "version": job.generalist_version, "weights_digest": job.generalist_digest}


def _finding_as_json(one: Finding) -> dict[str, Any]:
    return {
        "role": one.role,
        "number": one.number,
        "label": one.label,
        "code": one.code,
        "volume_ml": one.volume_ml,
    }


def _agreement_as_json(one: Agreement) -> dict[str, Any]:
    return {
        "number": one.number,
        "label": one.label,
        "dice": one.dice,
        "distance_mm": one.distance_mm,
        "difference_ml": one.difference_ml,
        "difference_percent": one.difference_percent,
        "beyond": list(one.beyond),
    }


def _job_as_json(job: Job, inputs: list[JobInput]) -> dict[str, Any]:
    return {
        "id": str(job.id),
        "key": job.key,
        "state": job.state,
        "code": job.code,
        "reason": job.reason,
        "rule": job.rule,
        "pipeline": job.pipeline,
        "model": {"name": job.model_name, "version": job.model_version, "weights_digest": job.weights_digest},
        "generalist": _generalist_as_json(job),
        "flag": job.flag,
        "flag_reason": job.flag_reason,
        "study_instance_uid": job.study_instance_uid,
        "series_instance_uid": job.series_instance_uid,
        "attempt": job.attempt,
        "progress_step": job.progress_step,
        "progress_done": job.progress_done,
        "progress_total": job.progress_total,
        "inputs": [one.digest for one in inputs],
        "channels": _by_channel(inputs),
        "results": [
            {
                "path": one.path,
                "digest": one.digest,
                "sop_instance_uid": one.sop_instance_uid,
                "role": one.role,
                "kind": one.kind,
            }
            for one in job.results
        ],
        "deliveries": [
            {
                "destination": one.destination,
                "digest": one.digest,
                "state": one.state,
                "attempts": one.attempts,
                "commitment_rounds": one.commitment_rounds,
                "committed_at": None if one.committed_at is None else one.committed_at.isoformat(),
                "code": one.code,
                "reason": one.reason,
            }
            for one in job.deliveries
        ],
        "way": [{"step": step, "seconds": round(seconds, 3)} for step, seconds in describe_way(job)],
    }


def _by_channel(inputs: list[JobInput]) -> dict[str, list[str]]:
    """The digests that each channel reads; nothing where the rule binds none."""
    channels: dict[str, list[str]] = {}
    for one in inputs:
        if one.channel:
            channels.setdefault(one.channel, []).append(one.digest)
    return channels
