"""The command line `limner`. It prints through `app.terminal` alone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pydicom
import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from app import bootstrap, cli_account, cli_destinations, cli_jobs, cli_models, cli_pause, cli_retention
from app.audit.chains import verify_chains
from app.audit.verification import AuditReport
from app.bootstrap.roles import Role
from app.delivery.sending import send_folder
from app.delivery.tls import tls_to_own_listener
from app.errors import LimnerError, SettingsError
from app.health import check_listener
from app.jobs.entries import SeenSeries, Series
from app.routing.rules import ConditionExplanation, Decision, RuleSet
from app.routing.waiting import Verdict, explain_waiting
from app.settings import Settings, load_settings
from app.terminal import JsonOption, SettingsOption, console, errors, print_json, say, table

app = typer.Typer(
    name="limner",
    help="A clinical inference server beside a PACS: studies in by DICOM, segmentations out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback with local values could show a patient's data
)
rules_commands = typer.Typer(help="The rules that decide what happens to a series.", no_args_is_help=True)
audit_commands = typer.Typer(help="The audit log.", no_args_is_help=True)
app.add_typer(cli_models.commands, name="models")
app.add_typer(cli_jobs.commands, name="jobs")
app.add_typer(rules_commands, name="rules")
app.command()(cli_destinations.destinations)
app.command("account")(cli_account.account_command)
app.command("retention")(cli_retention.retention_command)
app.add_typer(audit_commands, name="audit")
for _command in (cli_pause.pause, cli_pause.resume, cli_pause.drain, cli_pause.status):
    app.command()(_command)


@app.command()
def serve(
    settings: SettingsOption = None,
    role: Annotated[
        list[Role] | None,
        typer.Option(help="What this process does; may be given again. All of it if not given, in one process."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Its own name among several processes; its host and roles by default, if it has roles."),
    ] = None,
) -> None:
    """Run the server until SIGTERM or SIGINT; what is in flight then is finished first."""
    from app.bootstrap.serving import serve as run_server  # what computes: no other command waits for its import

    asyncio.run(run_server(load_settings(settings), role or (), name))


@app.command()
def check(
    settings: SettingsOption = None,
    listener: Annotated[
        bool, typer.Option("--listener", help="Only ask the running listener by C-ECHO (a container's health check).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check settings, folders, models, Triton and destinations; say for each what to do. Exit code 1 if any fails."""
    loaded = load_settings(settings)
    if listener:
        results = [check_listener(loaded)]
    else:
        from app.checks import check_all  # reads models: no other command waits for the import of what computes

        results = check_all(loaded)
    if as_json:
        print_json([{"check": one.name, "ok": one.ok, "detail": one.detail, "advice": one.advice} for one in results])
    else:
        for one in results:
            say(("✓", "green") if one.ok else ("✗", "red"), f" {one.name}: {one.detail}")
            if not one.ok and one.advice:
                say(f"  → {one.advice}")
    if not all(one.ok for one in results):
        raise typer.Exit(1)


@app.command()
def submit(
    folder: Annotated[Path, typer.Argument(help="A folder with DICOM files, or one file.", exists=True)],
    settings: SettingsOption = None,
    to: Annotated[str | None, typer.Option(help="HOST:PORT of the receiver; the settings' own listener else.")] = None,
    called: Annotated[str | None, typer.Option(help="The called AE title; the settings' listener's else.")] = None,
    calling: Annotated[str, typer.Option(help="The calling AE title.")] = "LIMNER-SUBMIT",
    as_json: JsonOption = False,
) -> None:
    """Send a folder by C-STORE, as a modality does. Exit code 1 if any file was not accepted."""
    loaded = load_settings(settings)
    host, port = _address(to, loaded)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("sending", total=None)
        report = send_folder(
            folder,
            host=host,
            port=port,
            called_ae_title=called or loaded.listener.ae_title,
            calling_ae_title=calling,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
            tls=tls_to_own_listener(loaded.listener.tls) if to is None else None,
        )
    if as_json:
        print_json([{"file": str(one.path), "status": one.status, "accepted": one.accepted} for one in report.files])
    else:
        for one in report.files:
            if not one.accepted:
                say(f"{one.path}: {one.message}", to=errors)
        accepted = sum(one.accepted for one in report.files)
        say(f"{accepted} of {len(report.files)} files accepted by {host}:{port}")
    if not report.files or not all(one.accepted for one in report.files):
        raise typer.Exit(1)


@app.command()
def series(settings: SettingsOption = None, as_json: JsonOption = False) -> None:
    """List the series that came in: what was decided about each, or what it waits for."""
    loaded = load_settings(settings)
    with bootstrap.open_records(loaded) as records:
        found, waiting = records.series(), records.waiting_series()
    waits = explain_waiting(waiting, loaded)
    if as_json:
        seen: dict[tuple[str, str], SeenSeries] = {
            (one.study_instance_uid, one.series_instance_uid): one for one in waiting
        }
        print_json([{**_series_as_json(one), **_waiting_as_json(one, seen, waits)} for one in found])
        return
    listed = table("series", "state", "rule", "waits for, or reason", "revision", "from")
    for one in found:
        verdict = waits.get((one.study_instance_uid, one.series_instance_uid))
        listed.add_row(
            one.series_instance_uid,
            one.state,
            one.rule or "",
            escape(verdict.waits_for if verdict is not None else one.reason or ""),
            str(one.revision),
            one.calling_ae_title,
        )
    console.print(listed)


@rules_commands.command()
def explain(
    file: Annotated[Path, typer.Argument(help="A DICOM file.", exists=True, dir_okay=False)],
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which rule takes a file and why the others don't. Shows values of the file: mind who looks on."""
    loaded = load_settings(settings)
    try:
        decision = RuleSet(loaded.rule).decide_file(file)
    except (pydicom.errors.InvalidDicomError, OSError, ValueError) as error:
        raise LimnerError(
            f"{file} can't be read as DICOM: {type(error).__name__}", code="unreadable-instance"
        ) from error
    if as_json:
        print_json(_decision_as_json(decision))
    else:
        _print_decision(decision)


@audit_commands.command("verify")
def audit_verify(settings: SettingsOption = None, as_json: JsonOption = False) -> None:
    """Check each chain; name each record that was edited, deleted, reordered or cut off: exit code 1 then."""
    folder = load_settings(settings).audit_folder
    reports = verify_chains(folder)
    if as_json:
        chains = {name: _report_as_json(one) for name, one in reports.items()}
        whole = AuditReport(
            ok=all(one.ok for one in reports.values()),
            records=sum(one.records for one in reports.values()),
            problems=tuple(
                f"{name}: {text}" if name else text for name, one in reports.items() for text in one.problems
            ),
        )
        print_json({**_report_as_json(whole), "chains": chains})
    for name, report in {} if as_json else reports.items():
        _print_report(folder / name, report)
    if not all(one.ok for one in reports.values()):
        raise typer.Exit(1)


def _report_as_json(report: AuditReport) -> dict[str, Any]:
    return {"ok": report.ok, "records": report.records, "problems": list(report.problems)}


def _print_report(folder: Path, report: AuditReport) -> None:
    if report.ok:
        say(("audit chain verified", "green"), f": {report.records} records in {folder}")
        return
    say(("the audit log does not verify", "red"), f": {len(report.problems)} problems in {folder}")
    for problem in report.problems:
        say(f"  {problem}")


def main() -> None:
    """Run the command line; errors that people can act on are one line, not a traceback."""
    try:
        app()
    except LimnerError as error:
        say((error.code, "red"), f": {error}", to=errors)
        sys.exit(2)


def _address(to: str | None, settings: Settings) -> tuple[str, int]:
    if to is None:
        host = settings.listener.host
        return ("127.0.0.1" if host == "0.0.0.0" else host), settings.listener.port  # noqa: S104 - compared, not bound
    host, _, port = to.rpartition(":")
    if not host or not port.isdigit():
        raise SettingsError(f"--to is '{to}'; expected HOST:PORT, as in --to 127.0.0.1:11112")
    return host, int(port)


def _series_as_json(series: Series) -> dict[str, Any]:
    return {
        "study_instance_uid": series.study_instance_uid,
        "series_instance_uid": series.series_instance_uid,
        "state": series.state,
        "rule": series.rule,
        "reason": series.reason,
        "revision": series.revision,
        "calling_ae_title": series.calling_ae_title,
    }


def _waiting_as_json(
    series: Series, seen: Mapping[tuple[str, str], SeenSeries], waits: Mapping[tuple[str, str], Verdict]
) -> dict[str, Any]:
    """What it waits for, and the numbers; nothing of a series that is decided."""
    key = (series.study_instance_uid, series.series_instance_uid)
    if key not in seen or key not in waits:
        return {"waits_for": None, "wait": None}
    one = seen[key]
    numbers = {
        "code": waits[key].code,
        "quiet_seconds": round(one.quiet_seconds, 1),
        "study_quiet_seconds": round(one.study_quiet_seconds, 1),
        "open_associations": one.open_associations,
        "archive": one.asked_archive or None,
        "archive_code": one.asked_code or None,
        "asked_seconds": None if one.asked_seconds is None else round(one.asked_seconds, 1),
        "asks": one.asks,
        "instances": one.instances,
        "expected": one.expected,
    }
    return {"waits_for": waits[key].waits_for, "wait": numbers}


def _decision_as_json(decision: Decision) -> dict[str, Any]:
    return {
        "rule": None if decision.rule is None else decision.rule.name,
        "urgent": decision.urgent,
        "channels": list(decision.channels),
        "rules": [
            {
                "rule": one.rule,
                "taken": one.taken,
                "conditions": _conditions_as_json(one.conditions),
                "urgent": _conditions_as_json(one.urgent_conditions),
                "channels": [
                    {"channel": c.channel, "holds": c.holds, "conditions": _conditions_as_json(c.conditions)}
                    for c in one.channels
                ],
            }
            for one in decision.explanations
        ],
    }


def _conditions_as_json(conditions: Sequence[ConditionExplanation]) -> list[dict[str, Any]]:
    return [
        {"keyword": one.keyword, "expected": one.expected, "found": one.found, "holds": one.holds} for one in conditions
    ]


def _print_decision(decision: Decision) -> None:
    if decision.rule is None:
        say(("no rule applies", "yellow"))
    else:
        destinations = ", ".join(decision.rule.destinations) or "nowhere"
        first = ", before every routine job" if decision.urgent else ""
        say(
            "rule ",
            (decision.rule.name, "bold"),
            f" takes it: pipeline {decision.rule.pipeline}, to {destinations}{first}",
        )
        if decision.rule.channels:
            say(_binding_in_words(decision.channels))
    for one in decision.explanations:
        say(f"{'✓' if one.taken else '✗'} {one.rule}")
        _print_conditions(one.conditions, "    ")
        if one.urgent_conditions:
            say(f"    {'✓' if one.urgent else '✗'} urgent")
            _print_conditions(one.urgent_conditions, "        ")
        for channel in one.channels:
            say(f"    {'✓' if channel.holds else '✗'} channel {channel.channel}")
            _print_conditions(channel.conditions, "        ")


def _binding_in_words(channels: tuple[str, ...]) -> str:
    if len(channels) == 1:
        return f"it is bound to the channel {channels[0]}"
    if channels:
        return f"it fits the channels {', '.join(channels)} at once: the job would be refused as channel-ambiguous"
    return "it fits none of the rule's channels: the model does not get it"


def _print_conditions(conditions: Sequence[ConditionExplanation], indent: str) -> None:
    for condition in conditions:
        mark = "✓" if condition.holds else "✗"
        say(f"{indent}{mark} {condition.keyword}: expected {condition.expected}, found {condition.found}")


if __name__ == "__main__":
    main()
