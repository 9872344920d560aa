"""Points of a job's way at which a worker stops itself, as a machine does that hangs; somebody else continues it.

A test arms a point by a file; the first worker that comes to it takes the file away and stands still, whatever its
other threads do in that moment.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from app.jobs import recording, segmenting
from app.jobs.attending import Progress
from app.jobs.delivering import Delivering
from app.jobs.outcomes import Outcomes
from app.jobs.records import Records
from app.jobs.segmenting import Segmenting
from tests.job_harness import PlantedDestination, PlantedGraph

Stage = Literal["graph", "recording", "delivering"]

POINTS: Mapping[Stage, Mapping[str, tuple[Any, str, Literal["before", "after"]]]] = {
    "graph": {
        "attempt begun": (Segmenting, "_fresh_folder", "before"),
        "graph started": (PlantedGraph, "run", "before"),
        "progress made": (Progress, "__call__", "before"),
        "about to write": (PlantedGraph, "_found", "before"),
        "graph done": (PlantedGraph, "run", "after"),
    },
    "recording": {
        "verified": (segmenting, "share_patiently", "before"),
        "about to record": (segmenting, "record_verified", "before"),
        "results written, not committed": (recording, "begin_deliveries", "after"),
    },
    "delivering": {
        "task taken": (Delivering, "run", "before"),
        "turn taken": (Records, "take_turn", "after"),
        "association open": (Delivering, "_send_one", "before"),
        "attempt recorded": (Records, "begin_delivery", "after"),
        "about to send": (PlantedDestination, "deliver", "before"),
        "sent": (PlantedDestination, "deliver", "after"),
        "arrival audited": (Outcomes, "_end", "before"),
        "arrival recorded": (Outcomes, "_end", "after"),
        "closing audited": (Records, "close_job", "before"),
    },
}
"""By what the worker is at: what is wrapped, and whether it stops before that or after it."""
_LONGEST_WAIT_SECONDS = 0.2
_stopping = threading.Lock()


def arm(folder: Path, point: str) -> None:
    """Have the next worker that comes to the point stop there."""
    (folder / f"stop.{point}").touch()


class Stop(NamedTuple):
    """Where a worker stopped, and when."""

    point: str
    time: datetime


def stopped(folder: Path) -> dict[int, Stop]:
    """Return where workers stopped, by their process numbers."""
    stops = {}
    for one in folder.glob("stopped.*.*"):
        _, process, point = one.name.split(".")
        stops[int(process)] = Stop(point, datetime.fromtimestamp(one.stat().st_ctime, UTC))  # of the last renaming
    return stops


def forget_stops(folder: Path) -> None:
    """Forget who stopped before."""
    for one in folder.glob("stopped.*.*"):
        one.unlink()


def hold(folder: Path, digest: str, destination: str) -> Path:
    """Have a destination take no end with an object as long as the file is there that is returned.

    It does so for those alone that did not stop.
    """
    held = folder / f"hold.{destination}.{digest}"
    held.touch()
    return held


def plant_stops(folder: Path) -> None:
    """Let this process stop at points that are armed, and let its destinations take no end with what is held."""
    _plant_holds(folder)
    for points in POINTS.values():
        for point, (owner, name, when) in points.items():
            _wrap(folder, point, owner, name, is_after=when == "after")


def _plant_holds(folder: Path) -> None:
    original = PlantedDestination.deliver

    def deliver(destination: PlantedDestination, path: Path) -> None:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        held = folder / f"hold.{destination.name}.{digest}"
        while held.exists() and not any(folder.glob(f"stopped.{os.getpid()}.*")):
            time.sleep(0.02)
        original(destination, path)

    setattr(PlantedDestination, "deliver", deliver)  # noqa: B010 - a method can't be assigned to


def _wrap(folder: Path, point: str, owner: Any, name: str, *, is_after: bool) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    def stop_there(*arguments: Any, **named: Any) -> Any:
        if not is_after:
            _stop(folder, point)
        result = original(*arguments, **named)
        if is_after:
            _stop(folder, point)
        return result

    setattr(owner, name, stop_there)


def _stop(folder: Path, point: str) -> None:
    """Stop this process if the point is armed: after a moment, so that its other threads are anywhere."""
    armed = folder / f"stop.{point}"
    if not armed.exists():
        return
    time.sleep(random.uniform(0, _LONGEST_WAIT_SECONDS))
    with _stopping:  # one stop a process
        if any(folder.glob(f"stopped.{os.getpid()}.*")):
            return
        try:
            armed.rename(folder / f"stopped.{os.getpid()}.{point}")
        except FileNotFoundError:
            return  # another was first
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.01)  # the signal may take this thread a moment later
