"""A worker and listener that kill themselves at a named point between "graph done" and "committed".

Run as a program it is a parent that has loaded everything: for each line of JSON on its standard input it forks a child
that works until every job has ended, or dies at the point. It answers with the child's exit status.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pynetdicom.transport import AssociationSocket

from app.delivery import storage
from app.jobs import recording, segmenting
from app.jobs.commitment_reports import ReportKeeping
from app.jobs.committing import Committing
from app.jobs.delivering import Delivering
from app.jobs.outcomes import Outcomes
from app.jobs.queue import TaskQueue
from app.jobs.records import Records
from app.listener.association import Listener
from app.listener.commitment import CommitmentReports
from app.listener.spool import Spool
from app.settings_listener import ListenerSettings
from tests.dicom_results import ARCHIVE, connect, delivering_bench
from tests.job_harness import Bench, instance

When = Literal["before", "after", "half"]

POINTS: dict[str, tuple[Any, str, When]] = {
    "graph done": (segmenting, "record_verified", "before"),
    "results written, not committed": (recording, "begin_deliveries", "after"),
    "results recorded": (Delivering, "run", "before"),
    "turn taken": (Records, "take_turn", "after"),
    "association open": (Delivering, "_send_one", "before"),
    "attempt recorded": (Records, "begin_delivery", "after"),
    "about to send": (storage, "send_file", "before"),
    "half of it sent": (AssociationSocket, "send", "half"),
    "sent": (storage, "send_file", "after"),
    "arrival audited": (Outcomes, "_end", "before"),
    "arrival recorded": (Outcomes, "_end", "after"),
    "request written down": (storage, "request_commitment", "before"),
    "request sent": (storage, "request_commitment", "after"),
    "report arrived": (ReportKeeping, "keep", "before"),
    "report kept, not answered": (ReportKeeping, "keep", "after"),
    "report about to be acted on": (Committing, "report", "before"),
    "report acted on, not committed": (Records, "applied_report", "after"),
    "committed": (Committing, "report", "after"),
    "closing audited": (Records, "close_job", "before"),
}
"""What is wrapped, and where the process dies: before it, after it, or with half of an object on its way."""
_OBJECT_BYTES = 1500
"""A PDU longer than this holds the object's pixels."""


@dataclass(frozen=True)
class Round:
    """What a child is to do."""

    folder: str
    url: str
    host: str
    port: int
    ae_title: str
    listener_host: str
    listener_port: int
    series: int = -1
    """Makes a job of an instance of this series first; none if negative."""
    point: str = ""
    """Where it dies; nowhere if empty."""


def main() -> None:
    """Fork a child for each round."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work(Round(**json.loads(line)))
                status = 0
            except BaseException:  # noqa: BLE001 - a border: the child must not go on as its parent
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def work(round_: Round) -> None:
    """Work until every job has ended."""
    if round_.point:
        _plant_death(*POINTS[round_.point])
    options = {
        "commitment": "storage-commitment",
        "commitment_seconds": 3,
        "commitment_rounds": 20,
        "retry_first_seconds": 0.3,
        "retry_longest_seconds": 1,
    }
    with (
        delivering_bench(Path(round_.folder), round_.url, round_.host, round_.port, round_.ae_title, **options) as made,
        _listening(made, round_),
    ):
        connect(made)
        if round_.series >= 0:
            made.receive(instance(1, series=round_.series))
            made.create_jobs()
        made.work(made.all_ended, seconds=60)


@contextlib.contextmanager
def _listening(made: Bench, round_: Round) -> Any:
    spool = Spool(Path(round_.folder) / "listener", 0)
    spool.prepare()
    reports = CommitmentReports({round_.ae_title: [ARCHIVE]}, ReportKeeping(made.records, TaskQueue()).keep, made.audit)
    settings = ListenerSettings(host=round_.listener_host, port=round_.listener_port, shutdown_seconds=1)
    listener = Listener(settings, spool, lambda _, **__: False, made.audit, reports=reports)
    listener.start()
    try:
        yield
    finally:
        listener.stop()


def _plant_death(owner: Any, name: str, when: When) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    def die(*arguments: Any, **named: Any) -> Any:
        if when == "half":
            connection, data = arguments
            if len(data) < _OBJECT_BYTES:
                return original(*arguments, **named)
            connection.socket.sendall(data[: len(data) // 2])
        elif when == "after":
            original(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it lives")

    setattr(owner, name, die)


def as_line(round_: Round) -> str:
    """A round as the parent reads it."""
    return json.dumps(asdict(round_)) + "\n"


if __name__ == "__main__":
    main()
