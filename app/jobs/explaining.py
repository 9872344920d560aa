"""What a job waits for that has not ended, in words and numbers, by the records alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from types import MappingProxyType

from app.jobs.arrival_entries import QueuePlace
from app.jobs.entries import Delivery, Job
from app.jobs.records.pausing import Pause
from app.jobs.return_entries import DestinationWindow

_NO_WINDOWS: Mapping[str, DestinationWindow] = MappingProxyType({})


def job_waits_for(
    job: Job,
    place: QueuePlace | None = None,
    *,
    pauses: Collection[Pause] = (),
    windows: Mapping[str, DestinationWindow] = _NO_WINDOWS,
) -> str:
    """Return what a job waits for; empty if it has ended.

    Parameters
    ----------
    place
        Where it stands in the queue; None if it does not stand there.
    pauses
        All that is paused.
    windows
        How destinations answer, as they are in the settings now, by name.
    """
    match job.state:
        case "queued":
            return _turn(job, place, pauses)
        case "running":
            done = f" {job.progress_done} of {job.progress_total}" if job.progress_total else ""
            return f"runs: {job.progress_step or 'starts'}{done}, attempt {job.attempt}"
        case "held":
            return "held for a person's decision: `limner jobs release` or `limner jobs discard`"
        case "delivering":
            waiting = [_sending(one, pauses, windows) for one in job.deliveries if one.finished_at is None]
            return "; ".join(dict.fromkeys(waiting)) or "its deliveries have ended: it is about to be closed"
        case _:
            return ""


def _turn(job: Job, place: QueuePlace | None, pauses: Collection[Pause]) -> str:
    before = "" if place is None else f"{place.before} before it"
    paused = _paused(pauses, ("everything", ""), ("pipeline", job.pipeline))
    if paused:
        return f"{paused}; {before}" if before else paused
    if place is not None and place.not_before is not None:
        return f"the next attempt begins at {_moment(place.not_before)}, after {job.code or 'a lost one'}"
    return f"waits for its turn: {before}" if before else "waits for its turn"


def _sending(delivery: Delivery, pauses: Collection[Pause], windows: Mapping[str, DestinationWindow]) -> str:
    where = delivery.destination
    if delivery.state == "sending":
        return f"being sent to {where}, attempt {delivery.attempts}"
    paused = _paused(pauses, ("everything", ""), ("destination", where)) if delivery.state == "waiting" else ""
    if paused:
        return f"waits for {where}: {paused}"
    if delivery.next_attempt_at is not None:
        at = _moment(delivery.next_attempt_at)
        return f"the next attempt for {where} begins at {at}, after {delivery.attempts} ({delivery.code})"
    if delivery.state != "waiting":
        return f"{where}: {delivery.state}"
    window = windows.get(where)
    if window is not None and window.down_since is not None:
        following = window.next_attempt_at
        tried = "about to be tried" if following is None else f"tried next at {_moment(following)}"
        return (
            f"waits for {where}, which has been down since {_moment(window.down_since)} ({window.code}): it is {tried}"
        )
    return f"waits for its turn for {where}"


def _paused(pauses: Collection[Pause], *of: tuple[str, str]) -> str:
    """Say which of these kinds and names is paused, since when and by whom; empty if none is."""
    said = [
        f"{one.what} was paused at {_moment(one.paused_at)} by {one.person}"
        for one in pauses
        if (one.kind, one.name) in of
    ]
    return " and ".join(said)


def _moment(moment: datetime) -> str:
    """By the server's own time zone, as the records' times are shown."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
