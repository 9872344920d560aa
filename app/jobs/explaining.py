"""What a job waits for that has not ended, in words and numbers, by the records alone."""

from __future__ import annotations

from datetime import datetime

from app.jobs.arrival_entries import QueuePlace
from app.jobs.entries import Delivery, Job


def job_waits_for(job: Job, place: QueuePlace | None = None) -> str:
    """Return what a job waits for; empty if it has ended.

    Parameters
    ----------
    place
        Where it stands in the queue; None if it does not stand there.
    """
    match job.state:
        case "queued":
            return _turn(job, place)
        case "running":
            done = f" {job.progress_done} of {job.progress_total}" if job.progress_total else ""
            return f"runs: {job.progress_step or 'starts'}{done}, attempt {job.attempt}"
        case "held":
            return "held for a person's decision: `limner jobs release` or `limner jobs discard`"
        case "delivering":
            waiting = [_sending(one) for one in job.deliveries if one.finished_at is None]
            return "; ".join(dict.fromkeys(waiting)) or "its deliveries have ended: it is about to be closed"
        case _:
            return ""


def _turn(job: Job, place: QueuePlace | None) -> str:
    before = "" if place is None else f"{place.before} before it"
    if place is not None and place.not_before is not None:
        return f"the next attempt begins at {_moment(place.not_before)}, after {job.code or 'a lost one'}"
    return f"waits for its turn: {before}" if before else "waits for its turn"


def _sending(delivery: Delivery) -> str:
    where = delivery.destination
    if delivery.state == "sending":
        return f"being sent to {where}, attempt {delivery.attempts}"
    if delivery.next_attempt_at is not None:
        at = _moment(delivery.next_attempt_at)
        return f"the next attempt for {where} begins at {at}, after {delivery.attempts} ({delivery.code})"
    if delivery.state == "waiting":
        return f"waits for its turn for {where}"
    return f"{where}: {delivery.state}"


def _moment(moment: datetime) -> str:
    """By the server's own time zone, as the records' times are shown."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
