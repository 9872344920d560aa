"""Promise 8: an archive that is down, refuses, hangs, breaks off, flaps or is full: nothing lost, nothing doubled.

The archive is DCMTK's storescp, told to misbehave, or an Orthanc that is killed; the other destination never notices.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pynetdicom import AE

from app.delivery.storage import DimseDestination
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
FIRST_SECONDS = 1.0
OPTIONS = {
    "ae_title": TITLE, "port": PORT, "timeout_seconds": 2.0, "retry_first_seconds": FIRST_SECONDS,
    "retry_longest_seconds": FIRST_SECONDS, "maximum_attempts": 200, "ask": "never",
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

    def beyond(self, since: float, until: float) -> int:
        """How many more there were than windows, each `FIRST_SECONDS` long from the failure of an attempt."""
        found = [one for one in self.times if since <= one < until]
        return sum(later - before < FIRST_SECONDS * 0.95 for before, later in zip(found, found[1:], strict=False))


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


@pytest.mark.timeout(1800)
def test_faults_of_a_receiver(
    tmp_path: Path, postgres: str, network: peers.PeerNetwork, figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers.require("storescp", "root")
    seconds, each = figures.of(short=3, full=40), figures.of(short=3, full=25)
    received = tmp_path / "kept"
    received.mkdir()
    attempts = Attempts(monkeypatch, network.peer_address, PORT)
    slowest_viewer = beyond = 0.0
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
        for number, (fault, (options, code)) in enumerate(faults.items()):
            with contextlib.ExitStack() as stack:
                if options is not None:
                    folder = full if fault == "out of resources" else received
                    stack.enter_context(_storescp(network, folder, *options))
                began, codes = time.monotonic(), Codes(made)
                queue_jobs(made, number * each, each)
                took = wait_until(partial(codes.seen_until_arrived, (number + 1) * each), 120)
                slowest_viewer = max(slowest_viewer, took)
                wait_until(partial(codes.have, code), 30)
                time.sleep(max(0.0, seconds - (time.monotonic() - began)))
                beyond += attempts.beyond(began, time.monotonic())
        waiting = len(faults) * each - arrived(made, ARCHIVE)
        # none of the faults leaves an object behind: each was kept from storing, so nothing may come twice
        assert list(received.iterdir()) == []
        with _storescp(network, received):
            drained = wait_until(made.all_ended, 120)
        jobs = jobs_of(made)
    copies = [(_uid(path), path) for path in received.iterdir()]
    show_held(figures, PROMISE, show_results(figures, PROMISE, jobs, "storescp: "), copies, "storescp: ")
    again = len(copies) - len({uid for uid, _ in copies})
    figures.show(PROMISE, "storescp: objects that came again", seen=again, exactly=0)
    figures.show(PROMISE, "storescp: connections beyond one a window", seen=beyond, exactly=0)
    figures.show(PROMISE, "storescp: results that waited at the end", seen=waiting, least=len(faults) * each - 1)
    figures.show(
        PROMISE, "storescp: seconds until all of these had gone", seen=drained, most=figures.of(short=120, full=60)
    )
    figures.show(
        PROMISE,
        "storescp: slowest seconds of the other destination",
        seen=slowest_viewer,
        most=figures.of(short=110, full=45),
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
    with (
        fresh_database(postgres) as url,
        peers.running_storescp(network, tmp_path / "viewer", ae_title="VIEWER", port=PORT + 1),
        _two_destinations(tmp_path, url, network.peer_address, peers.Orthanc.DICOM_PORT, PORT + 1, **to) as made,
        working(made, ARCHIVE, VIEWER),
    ):
        down, slowest_viewer = 0, 0.0
        for number in range(kills):
            with peers.running_orthanc(network, tmp_path / "orthanc", notes_what_comes=True) as orthanc:
                began = time.monotonic()
                queue_jobs(made, number * each, each)
                time.sleep(random.uniform(0, 0.5))
                orthanc.kill()
            down += arrived(made, ARCHIVE) < (number + 1) * each
            wait_until(lambda count=(number + 1) * each: arrived(made, VIEWER) == count, 120)  # type: ignore[misc]
            slowest_viewer = max(slowest_viewer, time.monotonic() - began)
        with peers.running_orthanc(network, tmp_path / "orthanc", notes_what_comes=True) as orthanc:
            drained = wait_until(made.all_ended, 120)
            held, received = held_by(orthanc, tmp_path / "held"), orthanc.received()
        jobs = jobs_of(made)
    results = show_results(figures, PROMISE, jobs, "Orthanc: ")
    show_held(figures, PROMISE, results, held, "Orthanc: ")
    figures.show(PROMISE, "Orthanc: objects in it more than results", seen=len(held) - len(results), exactly=0)
    show_received(figures, PROMISE, received, "Orthanc: ")
    figures.show(PROMISE, "Orthanc: kills", seen=kills, least=kills)
    # three kills may all find everything sent
    figures.show(
        PROMISE, "Orthanc: kills with something on its way", seen=down, least=figures.of(short=0, full=kills // 2)
    )
    figures.show(PROMISE, "Orthanc: connections for each result", seen=len(attempts.times) / len(results), most=1)
    figures.show(
        PROMISE,
        "Orthanc: seconds until all had gone after the last kill",
        seen=drained,
        most=figures.of(short=119, full=60),
    )
    figures.show(
        PROMISE,
        "Orthanc: slowest seconds of the other destination",
        seen=slowest_viewer,
        most=figures.of(short=110, full=45),
    )
