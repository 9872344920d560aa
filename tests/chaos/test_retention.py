"""A small disk under load: what is done goes for want of space, what lives stays, and the listener accepts again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from app.delivery.sending import send_folder
from app.errors import DeliveryError
from app.graph import CompletionRecord, GraphRequest
from app.identifiers import derive_uid
from app.settings import Settings
from app.settings_listener import ListenerSettings
from app.settings_retention import RetentionSettings
from tests import peers
from tests.chaos.figures import Figures
from tests.chaos.living import Living, living
from tests.chaos.small_disks import small_disk
from tests.database_fixture import fresh_database
from tests.job_harness import DESTINATIONS, PlantedDestination, PlantedGraph, settings_for
from tests.listening import make_ct, wait_until

_LOW_WATER_BYTES = 4 << 20
_LEAST_FREE_BYTES = 12 << 20
_PROMISE = "2. Disk of 48 MB kept free under load"


@dataclass
class _Reading(PlantedGraph):
    """A graph that reads its inputs, and counts those that are not there."""

    missing: list[Path] = field(default_factory=list)

    def run(
        self, request: GraphRequest, application: str, *, progress: Callable[[str, int, int], None], **limits: Any
    ) -> CompletionRecord:
        for path in request.primary_files:
            if not path.is_file():
                self.missing.append(path)
        return super().run(request, application, progress=progress, **limits)


class _Sender:
    """Sends studies one after the other, each again until it is accepted, as an archive's queue does."""

    def __init__(self, folder: Path, port: int, edge: int) -> None:
        self._folder = folder
        self._port = port
        self._edge = edge
        self.sent = 0
        self.refused = 0
        self._stop = threading.Event()

    def _send(self, count: int) -> None:
        for _ in range(count):
            if self._stop.is_set():
                return
            self.send_one()

    def send_one(self) -> None:
        number = self.sent
        files = []
        for slice_number in (1, 2):
            series = derive_uid("retention", str(number))
            image = make_ct(
                slice_number, study=derive_uid("retention study", str(number)), series=series, size=self._edge
            )
            path = self._folder / f"{slice_number}.dcm"
            image.save_as(path, enforce_file_format=True)
            files.append(path)
        while not self._stop.is_set():
            try:
                report = send_folder(files, "127.0.0.1", self._port, "LIMNER", "PACS")
            except DeliveryError as error:
                if error.code != "association-rejected":  # for now: there is no room
                    raise
            else:
                if all(one.accepted for one in report.files):
                    self.sent += 1
                    return
                assert {one.status for one in report.files} <= {0, 0xA700}
            self.refused += 1
            time.sleep(0.2)

    @contextmanager
    def sending(self, count: int) -> Iterator[threading.Thread]:
        self._stop.clear()
        thread = threading.Thread(target=self._send, args=(count,))
        thread.start()
        try:
            yield thread
        finally:
            self._stop.set()
            thread.join()


def _settings(folder: Path) -> Settings:
    made = settings_for(folder)
    patient = {"retry_longest_seconds": 1.0, "maximum_attempts": 100_000}
    return made.model_copy(
        update={
            "destination": tuple(one.model_copy(update=patient) for one in made.destination),
            "listener": ListenerSettings(port=0, low_water_bytes=_LOW_WATER_BYTES),
            "retention": RetentionSettings(least_free_bytes=_LEAST_FREE_BYTES, least_seconds=1.0, look_seconds=0.2),
        }
    )


@pytest.mark.timeout(900)
def test_a_small_disk_under_load_keeps_what_lives(tmp_path: Path, postgres: str, figures: Figures) -> None:
    peers.require("root")
    settings = _settings(tmp_path)
    destinations = {name: PlantedDestination(name, tmp_path) for name in DESTINATIONS}
    graph = _Reading(seconds=0.01)
    down = tmp_path / "viewer.down"
    with (
        small_disk(settings.spool_folder, mode=0o700),
        fresh_database(postgres) as url,
        living(tmp_path, url, settings, destinations=destinations, graph=graph) as server,
    ):
        count = figures.of(short=18, full=300)  # 75 and 157 MB
        edge = figures.of(short=1024, full=362)  # pixels: two instances of 2 MB or 256 KB a study
        sender = _Sender(tmp_path, server.port, edge)
        with server.working():
            with sender.sending(count) as thread:
                thread.join()
            assert sender.sent == count
            down.touch()
            with sender.sending(1000):
                before = sender.refused
                wait_until(lambda: sender.refused > before + 5, 120)  # full of what a destination still lacks
                assert _needed_files_are_there(server)
                down.unlink()
                accepted, began = sender.sent, time.monotonic()
                wait_until(lambda: sender.sent > accepted + 3, 60)
                back = time.monotonic() - began
            wait_until(lambda: _all_ended(server), 120)
        found = server.bench.account()
        states = {one.state for one in server.bench.records.jobs(10_000)}
        figures.show(_PROMISE, f"MB received of {2 * sender.sent} instances",
                     seen=round(sender.sent * 4 * edge * edge / 1e6), least=60)  # fmt: skip
        removed = found.totals["files"].get("removed by retention", 0)
        figures.show(_PROMISE, "instances removed for want of space", seen=removed, least=10)
        figures.show(_PROMISE, "inputs that a job lacked", seen=len(graph.missing), exactly=0)
        figures.show(_PROMISE, "jobs that did not end as closed", seen=len(states - {"closed"}), exactly=0)
        figures.show(_PROMISE, "instances, jobs or deliveries unaccounted for",
                     seen=len(found.discrepancies), exactly=0)  # fmt: skip
        figures.show(_PROMISE, "seconds until the listener accepts again once what fills the disk is delivered",
                     seen=back, most=10 if figures.is_full else 30)  # fmt: skip
        assert replace(found, totals={}).agrees


def _all_ended(server: Living) -> bool:
    undecided = server.bench.records.undecided_series()
    return not undecided and all(one.ended for one in server.bench.records.jobs(10_000))


def _needed_files_are_there(server: Living) -> bool:
    """Every input of a job that lives."""
    records, kept = server.bench.records, server.bench.kept
    live = [one for one in records.jobs(10_000) if not one.ended]
    assert live
    return all(kept.path_of(one.digest).exists() for job in live for one in records.job_inputs(job.id))
