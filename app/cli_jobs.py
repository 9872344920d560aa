"""`limner jobs`: what became of the series, and a person's decision about a job that is held."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.markup import escape

from app import bootstrap
from app.cli_decisions import person, wait_until
from app.cli_withdrawals import print_withdrawal, withdraw_job, withdrawal_as_json
from app.errors import JobError
from app.jobs import holding, queue, steering
from app.jobs.entries import Agreement, Finding, Job, JobInput, JobState, describe_way
from app.jobs.explaining import job_waits_for
from app.jobs.records import Records
from app.jobs.records.pausing import Pause
from app.jobs.return_entries import Withdrawal
from app.jobs.withdrawing import Order
from app.settings import Settings, load_settings
from app.settings_pipeline import URGENT_PRIORITY
from app.terminal import JsonOption, SettingsOption, console, print_json, say, table
from operators.rejection_reasons import RejectionReason

commands = typer.Typer(help="The jobs: what became of each series that a rule took.", invoke_without_command=True)


JobArgument = Annotated[str, typer.Argument(help="The job's number, as `limner jobs` lists it; its beginning will do.")]


@commands.callback()
def jobs(
    context: typer.Context,
    settings: SettingsOption = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 50,
    state: Annotated[JobState | None, typer.Option(help="Those in this state alone.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the jobs, newest first: state, progress, flag, reason, deliveries. JSON adds each step and its time."""
    if context.invoked_subcommand is not None:
        return
    loaded = load_settings(settings)
    with bootstrap.open_records(loaded) as records:
        found = records.jobs(limit, state)
        inputs = {job.id: records.job_inputs(job.id) for job in found}
        paused = records.pauses()
        withdrawn = {job.id: records.withdrawals(job.id) for job in found}
        waits = _waits(records, loaded, found, paused)
    if as_json:
        listing = [_job_as_json(job, inputs[job.id], withdrawn[job.id]) for job in found]
        print_json([one | {"waits_for": waits[job.id] or None} for job, one in zip(found, listing, strict=True)])
        return
    for pause in paused:
        say(("paused: ", "yellow"), f"{pause.what}; `limner status` says more")
    listed = table(
        "job",
        "state",
        "priority",
        "flag",
        "pipeline",
        "rule",
        "attempt",
        "progress",
        "deliveries",
        "waits for, or reason",
    )
    for job in found:
        progress = f"{job.progress_step} {job.progress_done}/{job.progress_total}" if job.progress_total else ""
        deliveries = ", ".join(f"{one.destination}: {one.state}" for one in job.deliveries)
        reason = waits[job.id] or (f"{job.code}: {job.reason}" if job.code else job.flag_reason)
        listed.add_row(
            str(job.id),
            f"{job.state}, withdrawn" if withdrawn[job.id] else job.state,
            priority_in_words(job.priority),
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
    loaded = load_settings(settings)
    with bootstrap.open_records(loaded) as records:
        found = _job(records, job)
        inputs, findings = records.job_inputs(found.id), records.findings(found.id)
        agreement, notes = records.agreement(found.id), records.notes(found.id)
        withdrawals = records.withdrawals(found.id)
        waits = _waits(records, loaded, [found], records.pauses())[found.id]
        replaced = records.superseded_jobs(found.id)
    if as_json:
        segments = [_finding_as_json(one) for one in findings]
        compared = [_agreement_as_json(one) for one in agreement]
        noted = [asdict(one) for one in notes]
        others = {"waits_for": waits or None, "supersedes": [str(one) for one in replaced]}
        more = {"notes": noted, "segments": segments, "agreement": compared}
        print_json({**_job_as_json(found, inputs, withdrawals), **others, **more})
        return
    _print_job(found)
    for each in withdrawals:
        print_withdrawal(found, each)
    if waits:
        say(f"  {waits}")
    if found.superseded_by is not None:
        say(("  superseded: ", "yellow"), f"more of its series came; job {found.superseded_by} takes its place")
    for one in replaced:
        say(f"  takes the place of job {one}")
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


@commands.command()
def cancel(job: JobArgument, settings: SettingsOption = None) -> None:
    """End a job that has not ended: its graph is stopped, its results are not sent. Exit code 2 if it has ended."""
    _say_word(job, "cancel", "the job is cancelled", settings)


@commands.command()
def urgent(job: JobArgument, settings: SettingsOption = None) -> None:
    """Put a job and its deliveries before every routine one. Exit code 2 if it has ended."""
    _say_word(job, "urgent", "the job goes before every routine job", settings)


@commands.command()
def replay(
    job: Annotated[str | None, typer.Argument(help="The job's number, or its beginning.")] = None,
    settings: SettingsOption = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every dead letter, and every job with a failed delivery.")
    ] = False,
) -> None:
    """Start a dead letter, a failed or a cancelled job again, with a fresh count of tries and the same UIDs."""
    if every == (job is not None):
        raise JobError("expected either a job's number or --all", code="job-unknown")
    if job is not None:
        _say_word(job, "replay", "the job is started again", settings)
        return
    loaded = load_settings(settings)
    with bootstrap.open_records(loaded) as records:
        waiting = records.replayable_jobs()
        jobs = [found for found in map(records.job, waiting) if found is not None]
        for one in jobs:
            steering.ask(records, "replay", one, person())
        say(f"{len(jobs)} jobs are started again" if jobs else "no job waits for a replay")
        if jobs and not records.has_workers():
            say("no worker runs: they are when one starts")


def _say_word(text: str, word: steering.Word, done: str, settings: SettingsOption) -> None:
    loaded = load_settings(settings)
    with bootstrap.open_records(loaded) as records:
        found = _job(records, text)
        steering.ask(records, word, found, person())
        wait_until(lambda: steering.is_done(word, found, records.job(found.id)), done, records)


@commands.command()
def withdraw(
    job: JobArgument,
    reason: Annotated[RejectionReason, typer.Option(help="Why; it decides the title of the rejection note.")],
    destination: Annotated[str, typer.Option(help="The only destination to withdraw them from; else all.")] = "",
    settings: SettingsOption = None,
) -> None:
    """Withdraw results: cancel what was not sent, and send a rejection note where something was.

    Exit code 2 if nothing was sent, it was withdrawn before, or a destination takes no such notes and somebody has to
    remove the results there by hand.
    """
    loaded = load_settings(settings)
    with bootstrap.open_records(loaded) as records:
        found = _job(records, job)
        order = Order(reason, person(), datetime.now(UTC), destination)
        withdraw_job(records, found.id, order)


def _decide(text: str, decision: str, done: str, settings: SettingsOption) -> None:
    """Put a decision into the queue, and wait until the server has carried it out if one runs."""
    loaded = load_settings(settings)
    with bootstrap.open_records(loaded) as records:
        found = _job(records, text)
        holding.ask_for_decision(records, decision, found.id, person())

        def decided() -> bool:
            now = records.job(found.id)
            return now is not None and now.state != "held"

        wait_until(decided, done, records)


def _waits(records: Records, settings: Settings, jobs: Sequence[Job], pauses: Sequence[Pause]) -> dict[uuid.UUID, str]:
    """Return what each job waits for; empty where it has ended."""
    places = records.queue_places([job.id for job in jobs])
    addresses = {one.name: one.address for one in settings.destination}
    windows = {name: one for name, one in records.windows().items() if one.address == addresses.get(name)}
    return {job.id: job_waits_for(job, places.get(job.id), pauses=pauses, windows=windows) for job in jobs}


def priority_in_words(priority: int) -> str:
    """Return how a list shows a job's priority."""
    return "urgent" if priority >= URGENT_PRIORITY else str(priority or "")


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
    if job.state in ("dead-letter", "failed") and steering.is_replayable(job.state, job.code):
        say(f"  → `limner jobs replay {job.id}` starts it again")
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


def _job_as_json(job: Job, inputs: list[JobInput], withdrawals: list[Withdrawal]) -> dict[str, Any]:
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
        "superseded_by": None if job.superseded_by is None else str(job.superseded_by),
        "superseded_at": None if job.superseded_at is None else job.superseded_at.isoformat(),
        "study_instance_uid": job.study_instance_uid,
        "series_instance_uid": job.series_instance_uid,
        "priority": job.priority,
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
        "withdrawals": [withdrawal_as_json(one) for one in withdrawals],
        "way": [{"step": step, "seconds": round(seconds, 3)} for step, seconds in describe_way(job)],
    }


def _by_channel(inputs: list[JobInput]) -> dict[str, list[str]]:
    """The digests that each channel reads; nothing where the rule binds none."""
    channels: dict[str, list[str]] = {}
    for one in filter(lambda read: read.channel, inputs):
        channels.setdefault(one.channel, []).append(one.digest)
    return channels
