"""The database is stopped, killed, behind a line that is cut, or has a full disk, while instances come and jobs run."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from app.serving.postgres import EmbeddedPostgres
from tests import peers
from tests.chaos.figures import Figures
from tests.chaos.receiving import OUT_OF_RESOURCES, SUCCESS, Sender, receiving
from tests.chaos.small_disks import fill, small_disk
from tests.chaos.workers import WorkerProcess, audit_problems, read_history, wait_until
from tests.job_harness import DESTINATIONS, Bench

_DISK_BYTES = 128 << 20
_BACK_SECONDS = 60.0
_NAMES = ("a", "b")
_LINE_PORT = 15432


@contextmanager
def _under_load(folder: Path, url: str, figures: Figures, promise: str) -> Iterator[tuple[Bench, Sender]]:
    """A listener with a sender, and two workers; at the end everything that was acknowledged must have been done."""
    made = Bench(folder, url)
    with ExitStack() as stack:
        stack.enter_context(made.records)
        stack.enter_context(made.audit)
        at = stack.enter_context(receiving(made, folder))
        workers = [WorkerProcess(folder, url, name, 0.2) for name in _NAMES]
        for one in workers:
            stack.callback(one.end)
            one.start()
        wait_until(lambda: len(list(folder.glob("started.*"))) == len(_NAMES), 180, "all workers work")
        sender = Sender(at.port)
        with sender.sending():
            wait_until(lambda: any(one.state == "closed" for one in made.records.jobs()), 180, "jobs are done")
            yield made, sender
            began = time.monotonic()
            before = sender.acknowledged
            wait_until(lambda: sender.acknowledged > before + 1, _BACK_SECONDS, "instances are taken again")
        seconds = _seconds_until_done(made, sender, began)
        figures.show(promise, "longest until all work was done after its return, s", seen=seconds, most=_BACK_SECONDS)
        assert all(one.running for one in workers), "no worker ended by itself"
        _check_all_done(made, sender, figures, promise)
    assert audit_problems(made, _NAMES) == []


def _seconds_until_done(made: Bench, sender: Sender, began: float) -> float:
    def done() -> bool:
        jobs = made.records.jobs(100_000)
        return len(jobs) == sender.acknowledged and all(one.ended for one in jobs) and not made.queued_tasks()

    wait_until(done, _BACK_SECONDS + 60, "all that was acknowledged is done")
    return time.monotonic() - began


def _check_all_done(made: Bench, sender: Sender, figures: Figures, promise: str) -> None:
    jobs = made.records.jobs(100_000)
    ends = Counter((one.state, one.code, one.reason) for one in jobs)
    assert set(ends) == {("closed", "", "")}, ends
    figures.show(promise, "instances that were acknowledged and have no closed job", exactly=0,
                 seen=sender.acknowledged - sum(one.state == "closed" for one in jobs))  # fmt: skip
    digests = {result.digest for job in jobs for result in job.results}
    assert len(digests) == len(jobs)
    for destination in DESTINATIONS:
        assert set(made.destinations[destination].got()) == digests
    others = {status: count for status, count in sender.statuses.items() if status not in (SUCCESS, OUT_OF_RESOURCES)}
    figures.show(promise, "answers other than 0x0000 and 0xA700", seen=sum(others.values()), exactly=0)
    figures.show(promise, "associations lost", seen=sender.lost_associations, exactly=0)


@pytest.mark.timeout(900)
def test_nothing_is_stuck_when_the_database_was_away(tmp_path: Path, figures: Figures) -> None:
    promise = "2. Database away"
    least = figures.of(short=8, full=330)  # longer than connection pools try by themselves
    server = EmbeddedPostgres(tmp_path / "database", tmp_path / "run")
    url = server.start()
    try:
        with _under_load(tmp_path, url, figures, promise) as (_, sender):
            taken = sender.statuses[OUT_OF_RESOURCES]
            server.stop()
            gone = time.monotonic()
            wait_until(lambda: sender.statuses[OUT_OF_RESOURCES] > taken, 60, "a sender is told to come again")
            time.sleep(max(0.0, least - (time.monotonic() - gone)))
            assert server.start() == url
            away = time.monotonic() - gone
        figures.show(promise, "seconds that it was away", seen=away, least=least)
        figures.show(promise, "instances answered 0xA700 meanwhile", seen=sender.statuses[OUT_OF_RESOURCES], least=1)
        early = [one for one in read_history(tmp_path) if one.attempt > 3]
        assert early == [], "no job needed more attempts than it has"
    finally:
        server.stop()


@pytest.mark.timeout(600)
def test_nothing_is_stuck_after_the_databases_crash_recovery(tmp_path: Path, figures: Figures) -> None:
    promise = "2. Database killed"
    kills = figures.of(short=1, full=5)
    with EmbeddedPostgres(tmp_path / "database", tmp_path / "run") as url:
        with _under_load(tmp_path, url, figures, promise):
            for _ in range(kills):
                number = int((tmp_path / "database" / "postmaster.pid").read_text().split()[0])
                psutil.Process(number).kill()
                time.sleep(2)
                wait_until(lambda: _answers(url), 60, "it is back")
        figures.show(promise, "kills of its server", seen=kills, least=1)


@pytest.mark.timeout(600)
def test_nothing_is_stuck_when_the_line_to_the_database_was_cut(
    tmp_path: Path, network: peers.PeerNetwork, figures: Figures
) -> None:
    """Nobody is told: what is sent is lost, and nothing comes."""
    promise = "2. Database's line cut"
    least = figures.of(short=25, full=150)
    with (
        EmbeddedPostgres(tmp_path / "database", tmp_path / "run") as url,
        _line_to(url, tmp_path, network) as distant,
        _under_load(tmp_path, distant, figures, promise) as (_, sender),
    ):
        taken = sender.statuses[OUT_OF_RESOURCES]
        network.cut()
        gone = time.monotonic()
        try:
            wait_until(lambda: sender.statuses[OUT_OF_RESOURCES] > taken, 60, "a sender is told to come again")
            time.sleep(least)
        finally:
            cut = time.monotonic() - gone
            network.join()
    figures.show(promise, "seconds that it was cut", seen=cut, least=least)
    figures.show(promise, "instances answered 0xA700 meanwhile", seen=sender.statuses[OUT_OF_RESOURCES], least=1)
    figures.show(promise, "longest that a sender waited for an answer, s", seen=sender.slowest_seconds, most=60)


@contextmanager
def _line_to(url: str, folder: Path, network: peers.PeerNetwork) -> Iterator[str]:
    """Have the database be reached over the network's line, by the address that is given."""
    facts = psycopg.conninfo.conninfo_to_dict(url)
    path = next(Path(str(facts["host"])).glob(".s.PGSQL.*[0-9]"))
    command = [sys.executable, "-m", "tests.chaos.database_line", str(path), network.peer_address, str(_LINE_PORT)]
    log = folder / "line.log"
    with peers.running_process(network.command(*command), log, network.peer_address, _LINE_PORT):
        yield f"postgresql://{facts['user']}@{network.peer_address}:{_LINE_PORT}/{facts['dbname']}"


def _answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False


@pytest.mark.timeout(600)
def test_nothing_is_stuck_when_the_databases_disk_was_full(tmp_path: Path, figures: Figures) -> None:
    peers.require("root")
    promise = "2. Database's disk full"
    least = figures.of(short=3, full=120)
    with (
        small_disk(tmp_path / "disk", _DISK_BYTES) as disk,
        EmbeddedPostgres(disk / "database", tmp_path / "run") as url,
    ):
        with _under_load(tmp_path, url, figures, promise) as (_, sender):
            filler = disk / "filler"
            wait_until(lambda: fill(filler) and sender.statuses[OUT_OF_RESOURCES] > 0, 120, "it is full")
            gone = time.monotonic()
            while (full := time.monotonic() - gone) < least:  # what the server gives back is taken too
                fill(filler)
                time.sleep(0.2)
            filler.unlink()
            back = wait_until(lambda: _answers(url), 2 * _BACK_SECONDS, "it takes connections")
        figures.show(promise, "seconds that it was full", seen=full, least=least)
        figures.show(promise, "seconds from room until it takes connections", seen=back, most=_BACK_SECONDS)
        figures.show(promise, "instances answered 0xA700 meanwhile", seen=sender.statuses[OUT_OF_RESOURCES], least=1)
