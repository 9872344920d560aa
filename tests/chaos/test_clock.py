"""The clocks of the database's host and of the workers' are set an hour forth and back while jobs run.

Together, and apart from each other; while series come, too, whose quiet times the database's clock measures.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from app.audit.events import AuditEvent
from app.audit.log import read_records
from app.jobs.audited import RecordedWork, hold_to_logs
from app.jobs.records import SeenSeries
from app.routing.completion import CompletionScanner
from app.routing.rules import RuleSet
from app.serving import postgres as serving
from app.settings_pipeline import RuleSettings
from tests import peers
from tests.chaos.figures import Figures
from tests.chaos.workers import (
    CLOCK,
    LIMITS,
    WorkerProcess,
    audit_ends,
    audit_problems,
    create_jobs,
    read_history,
    wait_until,
)
from tests.job_harness import DESTINATIONS, Bench, instance
from tests.stepped_bench import EVER

_PROMISE = "10. Clock moved an hour both ways"
_NAMES = ("a", "b")
_LIBRARIES = "/usr/lib/*/faketime/libfaketimeMT.so.1"
_JUMPS = (
    ((1, 1), (-1, -1), (1, -1), (0, 0)),
    ((1, 1), (-1, -1), (-1, 1), (0, 0)),
)
"""By how many hours the database's clock and the workers' are off in turn; every other round has the second."""
_QUIET_SECONDS = 3.0
_WAY = ("GRAPH_STARTED", "RESULTS_VERIFIED", "DELIVERY_BEGAN", "DELIVERY_SUCCEEDED", "JOB_CLOSED")
"""What a worker's log says of a job, in this order."""


def _environment(clock: Path) -> dict[str, str]:
    """Of a program whose clock follows a file; what measures durations goes on, as when a real clock is set."""
    (library,) = Path("/").glob(_LIBRARIES.lstrip("/"))
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _set(clock: Path, hours: int) -> None:
    aside = clock.with_suffix(".new")
    aside.write_text(f"{3600 * hours:+d}\n")
    aside.chmod(0o644)
    aside.replace(clock)


def _hour(url: str) -> float:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert row is not None
    return float(row[0]) / 3600


class _Arrivals:
    """Studies of one series that come just before a jump, and a scanner that decides them once they are quiet."""

    def __init__(self, made: Bench) -> None:
        self._made = made
        self._came: list[float] = []
        self._decided: list[float] = []
        self._scanner = CompletionScanner(
            settings=made.settings,
            records=made.records,
            audit=made.audit,
            rules=RuleSet(made.settings.rule),
            spool_path_of=lambda digest: made.spool / f"{digest}.dcm",
            create_job=self._create_job,
            create_study_job=made.workflow.create_study_job,
        )

    @property
    def waited(self) -> list[float]:
        """For how long each study waited for its decision, in seconds."""
        return [decided - came for came, decided in zip(self._came, self._decided, strict=True)]

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """Look for complete studies, again and again."""
        loop, stop = asyncio.new_event_loop(), asyncio.Event()
        thread = threading.Thread(target=lambda: loop.run_until_complete(self._scanner.run(stop)))
        thread.start()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()

    def _create_job(self, series: SeenSeries, rule: RuleSettings) -> bool:
        made = self._made.workflow.create_job(series, rule)
        self._decided += [time.monotonic()] * made
        return made

    def receive(self) -> None:
        """Have a study come, as the listener does."""
        one = instance(1, study=1000 + len(self._came))
        self._came.append(time.monotonic())
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
        dataset.Modality = "CT"
        self._made.receive(one)
        dataset.save_as(self._made.spool / f"{one.digest}.dcm", enforce_file_format=True)

    def wait(self) -> None:
        """Wait until what came is decided."""
        wait_until(lambda: len(self._decided) == len(self._came), 60, "what came is decided")


@pytest.mark.timeout(600)
def test_a_clock_that_jumps_ends_no_worker(tmp_path: Path, figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    peers.require("faketime")
    rounds = figures.of(short=1, full=5)
    clocks = tmp_path / "database_clock", tmp_path / "workers_clock"
    for clock in clocks:
        _set(clock, 0)
    own, faked = serving._environment, _environment(clocks[0])
    monkeypatch.setattr(serving, "_environment", lambda: own() | faked)
    with serving.EmbeddedPostgres(tmp_path / "database", tmp_path / "run") as url:
        routing = {"series_quiet_seconds": _QUIET_SECONDS / 2, "study_quiet_seconds": _QUIET_SECONDS}
        made = Bench(tmp_path, url, rule={"after": "study"}, routing=routing)
        arrivals = _Arrivals(made)
        workers = [WorkerProcess(tmp_path, url, name, 1.0) for name in _NAMES]
        with made.records, made.audit:
            made.audit.append(AuditEvent.APPLICATION_STARTED)
            create_jobs(made, 16 + 40 * rounds)
            try:
                for one in workers:
                    one.start(**{CLOCK: str(clocks[1])})
                with arrivals.deciding():
                    jumps = _jump(made, clocks, rounds, arrivals)
                wait_until(made.all_ended, 120, "all jobs end")
            finally:
                for one in workers:
                    one.end()
            _show(figures, made, jumps, arrivals)
    problems = audit_problems(made, _NAMES)
    figures.show(_PROMISE, "wrong hashes and numbers in audit chains", seen=len(problems), exactly=0)
    assert any(_goes_back(made.settings.audit_folder / name) for name in _NAMES), "the workers' clocks were set back"


def _jump(made: Bench, clocks: tuple[Path, Path], rounds: int, arrivals: _Arrivals) -> int:
    """Set the clocks, each time for longer than a silent worker lives; return how often one was set."""
    folder = clocks[0].parent
    wait_until(lambda: len(read_history(folder)) >= 2, 180, "both work")
    right, jumps, before = _hour(made.records.url), 0, (0, 0)
    for number in range(rounds):
        for hours in _JUMPS[number % len(_JUMPS)]:
            arrivals.receive()
            for clock, offset in zip(clocks, hours, strict=True):
                _set(clock, offset)
            jumps += sum(old != new for old, new in zip(before, hours, strict=True))
            before = hours
            assert abs(_hour(made.records.url) - right - hours[0]) < 0.2, "the database's clock follows"
            least = len(read_history(folder)) + 3 + 2 * round(LIMITS.dead_after_seconds)  # two workers, a second a run
            wait_until(lambda: len(read_history(folder)) >= least, 180, "work goes on")  # noqa: B023 - called in this turn
            arrivals.wait()
    return jumps


def _show(figures: Figures, made: Bench, jumps: int, arrivals: _Arrivals) -> None:
    runs = Counter(one.job for one in read_history(made.settings.data_folder))
    jobs = made.records.jobs(1000)
    states = Counter(one.state for one in jobs)
    figures.show(
        _PROMISE,
        "jumps by an hour or two, of the database's clock or the workers'",
        seen=jumps,
        least=figures.of(short=7, full=35),
    )
    figures.show(_PROMISE, "jobs not closed", seen=states.total() - states["closed"], exactly=0)
    figures.show(_PROMISE, "take-overs from workers that live", seen=sum(runs.values()) - len(runs), exactly=0)
    logs = [made.settings.audit_folder / name for name in _NAMES]
    figures.show(
        _PROMISE,
        "jobs whose audit entries are not in the order of their way, each once",
        seen=_out_of_order(logs, {str(one.id) for one in jobs}),
        exactly=0,
    )
    figures.show(
        _PROMISE,
        "jobs of which an account that lacks one of the logs says too much or too little",
        seen=_misjudged(made),
        exactly=0,
    )
    waits = f"until a study that came before a jump was decided, s, with {_QUIET_SECONDS:g} s of quiet"
    figures.show(_PROMISE, f"shortest {waits}", seen=min(arrivals.waited), least=_QUIET_SECONDS - 1)
    figures.show(_PROMISE, f"longest {waits}", seen=max(arrivals.waited), most=5 * _QUIET_SECONDS)


def _out_of_order(logs: Sequence[Path], jobs: set[str]) -> int:
    """Count the jobs of which a log has entries out of their order, or all together not each just once."""
    wrong, told = set[str](), Counter[tuple[str, str, str]]()
    for log in logs:
        newest: dict[tuple[str, str], int] = {}
        for one in read_records(log):
            if one["event"] not in _WAY:
                continue
            job, place = one["detail"]["job_id"], _WAY.index(one["event"])
            said_of = one["detail"].get("destination", "")
            told[job, one["event"], said_of] += 1
            for destination in (said_of,) if said_of else DESTINATIONS:
                if newest.get((job, destination), -1) >= place:
                    wrong.add(job)
                newest[job, destination] = place
    expected = {
        (job, event, destination)
        for job in jobs
        for event in _WAY
        for destination in (DESTINATIONS if event.startswith("DELIVERY") else ("",))
    }
    wrong |= {job for job, _, _ in expected ^ told.keys()} | {one[0] for one, times in told.items() if times > 1}
    return len(wrong)


def _misjudged(made: Bench) -> int:
    """Count the jobs that an account does not name whose end it can't find, or names whose end it can."""
    folder = made.settings.audit_folder
    with made.records.snapshot(EVER) as snapshot:
        recorded = RecordedWork(snapshot.jobs(), snapshot.deliveries())
    every = [folder, *(folder / name for name in _NAMES)]
    wrong = {one.job_id for one in hold_to_logs(made.records, every, recorded, EVER)}
    for name in _NAMES:
        ends = audit_ends(made, [one for one in _NAMES if one != name])
        unknown = {str(one["id"]) for one in recorded.jobs} - ends.keys()
        assert unknown, f"{name} closed nothing"
        others = [folder, *(folder / one for one in _NAMES if one != name)]
        named = hold_to_logs(made.records, others, recorded, EVER)
        wrong |= unknown ^ {one.job_id for one in named if one.code == "audit-job-not-ended"}
    return len(wrong)


def _goes_back(folder: Path) -> bool:
    times = [datetime.fromisoformat(one["time"]) for one in read_records(folder)]
    return any(later < earlier for earlier, later in zip(times, times[1:], strict=False))
