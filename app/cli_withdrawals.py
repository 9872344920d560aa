"""Withdrawn results on the command line: asking for it, and telling what came of it."""

from __future__ import annotations

import time
import uuid
from dataclasses import asdict
from typing import Any

from app.errors import JobError
from app.jobs.entries import Job
from app.jobs.records import Records
from app.jobs.return_entries import Withdrawal
from app.jobs.withdrawing import BY_HAND, Order, ask_to_withdraw, objects_at
from app.terminal import say

_LONGEST_SECONDS = 30.0
_LOOK_SECONDS = 0.2


def withdraw_job(records: Records, job_id: uuid.UUID, order: Order) -> None:
    """Have a job's results withdrawn, and tell what came of it once the server did it, if one runs.

    Raises
    ------
    JobError
        As `ask_to_withdraw`; ``decision-waiting``; ``removal-by-hand``.
    """
    meant = ask_to_withdraw(records, job_id, order)
    if not records.has_workers():
        say("no worker runs: the results are withdrawn when one starts")
        return
    done = _wait(records, job_id, meant)
    job = records.job(job_id)
    assert job is not None  # noqa: S101 - its withdrawals are there
    for one in done:
        print_withdrawal(job, one)
    by_hand = [one.destination for one in done if one.code]
    if by_hand:
        raise JobError(
            f"the results are withdrawn, and {', '.join(by_hand)} can't be told: remove the objects there by hand, as "
            "said above",
            code="removal-by-hand",
        )


def _wait(records: Records, job_id: uuid.UUID, destinations: list[str]) -> list[Withdrawal]:
    deadline = time.monotonic() + _LONGEST_SECONDS
    while time.monotonic() < deadline:
        done = [one for one in records.withdrawals(job_id) if one.destination in destinations]
        if len(done) == len(destinations):
            return done
        time.sleep(_LOOK_SECONDS)
    raise JobError(
        f"the server did not carry the decision out within {_LONGEST_SECONDS:.0f} s; it is in the queue still",
        code="decision-waiting",
    )


def print_withdrawal(job: Job, one: Withdrawal) -> None:
    """Say from where, why, by whom and when; and where no note can say it there, what to remove by hand."""
    when = one.withdrawn_at.astimezone().isoformat(sep=" ", timespec="seconds")
    said = f"withdrawn from {one.destination}: {one.reason}, by {one.person}, {when}, {one.objects} objects"
    say("  ", (said, "yellow"))
    refused = [
        sent
        for sent in job.deliveries
        if (sent.digest, sent.destination, sent.state) == (one.digest, one.destination, "failed")
    ]
    for sent in refused:
        say(f"  → it did not take the rejection note ({sent.code}): {BY_HAND}")
    if one.message:
        say(f"  → {one.message}")
    if refused or one.code:
        objects = objects_at(job, one.destination)
        for series in sorted({each.series_instance_uid for each in objects}):
            kinds = sorted({each.kind for each in objects if each.series_instance_uid == series})
            say(f"      series {series} ({', '.join(kinds)})")


def withdrawal_as_json(one: Withdrawal) -> dict[str, Any]:
    """Return a withdrawal as ``--json`` shows it."""
    return {**asdict(one), "job_id": str(one.job_id), "withdrawn_at": one.withdrawn_at.isoformat()}
