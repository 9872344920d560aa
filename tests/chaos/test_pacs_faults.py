"""Promise 8: an archive that is down, refuses, hangs, breaks off, flaps or is full: nothing lost, nothing doubled.

The archive is DCMTK's storescp, told to misbehave, or an Orthanc that is killed; the other destination never notices.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pynetdicom import AE

from app.delivery.storage import DimseDestination
from app.jobs.queue import back_off_seconds
from app.jobs.records import Job
from tests import peers
from tests.chaos.delivering import (
    arrived,
    held_by,
    jobs_of,
    queue_jobs,
    show_held,
    show_received,
    show_results,
    wait_until,
    working,
)
from tests.chaos.figures import Figures
from tests.chaos.small_disks import disk_without_room
from tests.database_fixture import fresh_database
from tests.dicom_results import ARCHIVE, DicomGraph, read_back
from tests.job_harness import Bench, bench

PROMISE = "8. A PACS that misbehaves"
PORT = 11113
TITLE = "ARCHIVE"
VIEWER = "viewer"
FIRST_SECONDS, LONGEST_SECONDS = 0.1, 4.0
"""Of an archive that is down. By default its windows grow from 5 to 600 s, so half a minute here is an hour there."""
UNDISTURBED = 2
"""Rounds without a fault, before those with one."""
WINDOWS = f"windows of {FIRST_SECONDS:g} s, doubled up to {LONGEST_SECONDS:g} s (by default 5 s and 600 s)"
OPTIONS = {
    "ae_title": TITLE, "port": PORT, "timeout_seconds": 2.0, "retry_first_seconds": FIRST_SECONDS,
    "retry_longest_seconds": LONGEST_SECONDS, "maximum_attempts": 200, "ask": "never",
}  # fmt: skip

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]
"""The toolkit drops the sockets of what did not connect, and its thread can stumble over an abort of what was cut."""


class Attempts:
    """Counts the connections to the archive that were tried, and keeps the time of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, host: str, port: int) -> None:
        self.times: list[float] = []
        associate = AE.associate

        def counted(entity: AE, address: str, to: int, *arguments: Any, **named: Any) -> Any:
            if (address, to) == (host, port):
                self.times.append(time.monotonic())
            return associate(entity, address, to, *arguments, **named)

        monkeypatch.setattr(AE, "associate", counted)

    def too_soon(self, since: float, until: float) -> int:
        """How many of an outage's came before the window was over that the failure of the one before had closed."""
        found = [one for one in self.times if since <= one < until]
        windows = (back_off_seconds(number, FIRST_SECONDS, LONGEST_SECONDS) for number in range(1, len(found)))
        return sum(
            later - before < window * 0.95 for before, later, window in zip(found, found[1:], windows, strict=False)
        )


class Codes:
    """Why the attempts failed that ended since this was made.

    Each is asked for while the fault lasts: one that hangs in the middle of an object soon takes no associations.
    """

    def __init__(self, made: Bench) -> None:
        self._made = made
        self._before = made.records.windows().get(ARCHIVE)
        self._seen: set[str] = set()

    def have(self, code: str) -> bool:
        self._look()
        return code in self._seen

    def seen_until_arrived(self, count: int) -> bool:
        """Keep what is seen while the other destination waits; whether that has so many."""
        self._look()
        return arrived(self._made, VIEWER) == count

    def _look(self) -> None:
        window = self._made.records.windows().get(ARCHIVE)
        if window is not None and window != self._before:
            self._seen.add(window.code)


@contextmanager
def _two_destinations(
    folder: Path, url: str, host: str, port: int, viewer_port: int, **options: Any
) -> Iterator[Bench]:
    destination = {**OPTIONS, "host": host, "port": port, **options}
    with bench(folder, url, graph=DicomGraph(), verify=read_back, destination=destination) as made:
        for name, at, title in ((ARCHIVE, port, destination["ae_title"]), (VIEWER, viewer_port, "VIEWER")):
            settings = made.settings.destination_named(name).model_copy(update={"port": at, "ae_title": title})
            made.destinations[name] = DimseDestination(settings, "LIMNER")
        yield made


@contextmanager
def _storescp(network: peers.PeerNetwork, folder: Path, *options: str) -> Iterator[None]:
    """A storescp that puts what comes into `folder`, each time under another name: what comes twice is there twice."""
    storing = ("--accept-all", "--unique-filenames", "-od", str(folder))
    command = network.command(peers.program("storescp"), "-aet", TITLE, *storing, *options, str(PORT))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=peers.ENVIRONMENT) as one:
        try:
            time.sleep(0.2)
            assert one.poll() is None
            yield
        finally:
            one.kill()


@dataclass
class Seen:
    """What was seen in faults of the archive, the worst of all of them."""

    drained: float = 0.0
    """Slowest seconds until all had gone to the archive after a fault."""
    too_soon: int = 0
    closed: int = 1 << 30
    """Fewest windows in a row that a fault closed."""
    waiting: int = 0


@pytest.mark.timeout(1800)
def test_faults_of_a_receiver(
    tmp_path: Path, postgres: str, network: peers.PeerNetwork, figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers.require("storescp", "root")
    seconds, each = figures.of(short=2, full=35), figures.of(short=3, full=25)
    received = tmp_path / "kept"
    received.mkdir()
    attempts, seen = Attempts(monkeypatch, network.peer_address, PORT), Seen()
    faults: dict[str, tuple[tuple[str, ...] | None, str]] = {
        "down": (None, "unreachable"),
        "refusing": (("--refuse",), "association-rejected"),
        "hanging": (("--sleep-during", "60"), "no-answer"),
        "breaking off": (("--abort-after",), "no-answer"),
        "out of resources": ((), "status-a700"),
    }
    with (
        fresh_database(postgres) as url,
        peers.running_storescp(network, tmp_path / "viewer", ae_title="VIEWER", port=PORT + 1),
        _two_destinations(tmp_path, url, network.peer_address, PORT, PORT + 1) as made,
        disk_without_room(tmp_path / "full") as full,
        working(made, ARCHIVE, VIEWER),
    ):
        with _storescp(network, received):
            _work_undisturbed(made, each)
        for number, (fault, (options, code)) in enumerate(faults.items(), start=UNDISTURBED):
            with contextlib.ExitStack() as stack:
                if options is not None:
                    folder = full if fault == "out of resources" else received
                    stack.enter_context(_storescp(network, folder, *options))
                began, codes = time.monotonic(), Codes(made)
                queue_jobs(made, number * each, each)
                wait_until(partial(codes.seen_until_arrived, (number + 1) * each), 120)
                wait_until(partial(codes.have, code), 30)
                time.sleep(max(0.0, seconds - (time.monotonic() - began)))
                seen.too_soon += attempts.too_soon(began, time.monotonic())
                seen.closed = min(seen.closed, made.records.windows()[ARCHIVE].failures)
            seen.waiting += (number + 1) * each - arrived(made, ARCHIVE)
            # none of the faults leaves an object behind: each was kept from storing, so nothing may come twice
            assert len(list(received.iterdir())) == number * each
            with _storescp(network, received):
                seen.drained = max(seen.drained, wait_until(made.all_ended, 120))
        jobs = jobs_of(made)
    copies = [(_uid(path), path) for path in received.iterdir()]
    show_held(figures, PROMISE, show_results(figures, PROMISE, jobs, "storescp: "), copies, "storescp: ")
    again = len(copies) - len({uid for uid, _ in copies})
    figures.show(PROMISE, "storescp: objects that came again", seen=again, exactly=0)
    figures.show(PROMISE, "storescp: results that waited as the faults ended", seen=seen.waiting, least=5 * each - 1)
    figures.show(
        PROMISE,
        f"storescp: {WINDOWS}: closed in a row by each fault",
        seen=seen.closed,
        least=figures.of(short=1, full=7),
    )
    figures.show(PROMISE, "storescp: connections before the window was over", seen=seen.too_soon, exactly=0)
    _show_times(figures, "storescp", seen.drained, jobs, each)


def _work_undisturbed(made: Bench, each: int) -> None:
    """Have the archive take some rounds without a fault, the first of which warms up."""
    for number in range(UNDISTURBED):
        queue_jobs(made, number * each, each)
        wait_until(made.all_ended, 120)


def _viewer_seconds(jobs: Sequence[Job], each: int) -> list[float]:
    """Of each round, from when its first job was made until the other destination had what they all made."""
    made = sorted(jobs, key=lambda job: job.created_at)
    took = []
    for first in range(0, len(made), each):
        some = made[first : first + each]
        arrivals = [one.finished_at for job in some for one in job.deliveries if one.destination == VIEWER]
        took.append((max(at for at in arrivals if at is not None) - some[0].created_at).total_seconds())
    return took


def _show_times(
    figures: Figures, archive: str, seconds: float, jobs: Sequence[Job], each: int, until: str = "all had gone"
) -> None:
    """Show how soon the archive was noticed to be back, and that the other destination noticed nothing of any fault.

    What waits for minutes is too much to be sent at once: of that the first object counts.
    """
    figures.show(
        PROMISE,
        f"{archive}: {WINDOWS}: slowest seconds until {until} when it was back",
        seen=seconds,
        most=figures.of(short=120, full=10),
    )
    took = _viewer_seconds(jobs, each)
    undisturbed = min(took[:UNDISTURBED])
    figures.show(PROMISE, f"{archive}: seconds of the other destination without a fault", seen=undisturbed, most=60)
    figures.show(
        PROMISE,
        f"{archive}: slowest seconds of the other destination in a fault, of twice those without and 1 s",
        seen=max(took[UNDISTURBED:]),
        most=110 if not figures.is_full else 2 * undisturbed + 1,
    )


def _uid(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


@pytest.mark.timeout(1800)
def test_an_archive_that_flaps(
    tmp_path: Path, postgres: str, network: peers.PeerNetwork, figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An Orthanc that is killed, while it takes what waits, and started again."""
    kills, each = figures.of(short=3, full=25), 8
    attempts = Attempts(monkeypatch, network.peer_address, peers.Orthanc.DICOM_PORT)
    to = {"ae_title": peers.Orthanc.AE_TITLE, "ask": "same"}
    start = partial(peers.running_orthanc, network, tmp_path / "orthanc", notes_what_comes=True)
    with (
        fresh_database(postgres) as url,
        peers.running_storescp(network, tmp_path / "viewer", ae_title="VIEWER", port=PORT + 1),
        _two_destinations(tmp_path, url, network.peer_address, peers.Orthanc.DICOM_PORT, PORT + 1, **to) as made,
        working(made, ARCHIVE, VIEWER),
    ):
        down = 0
        with start():
            _work_undisturbed(made, each)
        for number in range(UNDISTURBED, UNDISTURBED + kills):
            with start() as orthanc:
                before = arrived(made, ARCHIVE)
                queue_jobs(made, number * each, each)
                # it is killed while it takes objects, in whichever window that is
                wait_until(lambda before=before: arrived(made, ARCHIVE) > before, 60)  # type: ignore[misc]
                time.sleep(random.uniform(0, 0.1))
                orthanc.kill()
            down += arrived(made, ARCHIVE) < (number + 1) * each
            wait_until(lambda count=(number + 1) * each: arrived(made, VIEWER) == count, 120)  # type: ignore[misc]
        before = arrived(made, ARCHIVE)
        waiting = (UNDISTURBED + kills) * each - before
        with start() as orthanc:
            first = wait_until(lambda: arrived(made, ARCHIVE) > before or made.all_ended(), 120)
            rest = wait_until(made.all_ended, 120)
            held, received = held_by(orthanc, tmp_path / "held"), orthanc.received()
        jobs = jobs_of(made)
    results = show_results(figures, PROMISE, jobs, "Orthanc: ")
    show_held(figures, PROMISE, results, held, "Orthanc: ")
    figures.show(PROMISE, "Orthanc: objects in it more than results", seen=len(held) - len(results), exactly=0)
    show_received(figures, PROMISE, received, "Orthanc: ")
    figures.show(PROMISE, "Orthanc: kills while it took objects", seen=kills, least=kills)
    # three kills may all find everything sent
    figures.show(PROMISE, "Orthanc: kills before it had all", seen=down, least=figures.of(short=0, full=kills // 2))
    # about one in each window, of which an outage has some, and one for several objects otherwise
    figures.show(
        PROMISE,
        "Orthanc: connections for each result",
        seen=len(attempts.times) / len(results),
        most=figures.of(short=5, full=2),
    )
    figures.show(
        PROMISE,
        "Orthanc: objects a second once it took them again",
        seen=waiting / max(rest, 1.0),
        least=figures.of(short=0, full=3),
    )
    _show_times(figures, "Orthanc", first, jobs, each, until="it took objects again")
