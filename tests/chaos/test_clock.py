"""The clock of the database's host and of the workers' is set an hour forth and back while jobs run."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from app.audit.log import read_records
from app.serving import postgres as serving
from tests import peers
from tests.chaos.figures import Figures
from tests.chaos.workers import CLOCK, LIMITS, WorkerProcess, audit_problems, create_jobs, read_history, wait_until
from tests.job_harness import Bench

_PROMISE = "10. Clock moved an hour both ways"
_NAMES = ("a", "b")
_LIBRARIES = "/usr/lib/*/faketime/libfaketimeMT.so.1"


def _environment(clock: Path) -> dict[str, str]:
    """Of a program whose clock follows a file; what measures durations goes on, as when a real clock is set."""
    (library,) = Path("/").glob(_LIBRARIES.lstrip("/"))
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _set(clock: Path, offset: str) -> None:
    aside = clock.with_suffix(".new")
    aside.write_text(f"{offset}\n")
    aside.chmod(0o644)
    aside.replace(clock)


def _hour(url: str) -> float:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert row is not None
    return float(row[0]) / 3600


@pytest.mark.timeout(600)
def test_a_clock_that_jumps_ends_no_worker(tmp_path: Path, figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    peers.require("faketime")
    jumps = figures.of(short=1, full=5)
    clock = tmp_path / "clock"
    _set(clock, "+0")
    own, faked = serving._environment, _environment(clock)
    monkeypatch.setattr(serving, "_environment", lambda: own() | faked)
    with serving.EmbeddedPostgres(tmp_path / "database", tmp_path / "run") as url:
        made = Bench(tmp_path, url)
        workers = [WorkerProcess(tmp_path, url, name, 1.0) for name in _NAMES]
        with made.records:
            with made.audit:
                create_jobs(made, 16 + 20 * jumps)
            try:
                for one in workers:
                    one.start(**{CLOCK: str(clock)})
                _jump(made, clock, jumps)
                wait_until(made.all_ended, 120, "all jobs end")
            finally:
                for one in workers:
                    one.end()
            runs = Counter(one.job for one in read_history(tmp_path))
            states = Counter(one.state for one in made.records.jobs(1000))
            figures.show(_PROMISE, "jumps of the clock by an hour", seen=3 * jumps, least=3)
            figures.show(_PROMISE, "jobs not closed", seen=states.total() - states["closed"], exactly=0)
            figures.show(_PROMISE, "take-overs from workers that live", seen=sum(runs.values()) - len(runs), exactly=0)
    figures.show(_PROMISE, "audit chains out of order", seen=len(audit_problems(made, _NAMES)), exactly=0)
    assert any(_goes_back(made.settings.audit_folder / name) for name in _NAMES), "the workers' clocks were set back"


def _jump(made: Bench, clock: Path, jumps: int) -> None:
    """An hour ahead, then an hour behind, then right again; each for longer than a silent worker lives."""

    def go_on() -> None:
        done = len(read_history(clock.parent))
        least = 3 + 2 * round(LIMITS.dead_after_seconds)  # two workers, a second a run
        wait_until(lambda: len(read_history(clock.parent)) >= done + least, 180, "work goes on")

    wait_until(lambda: len(read_history(clock.parent)) >= 2, 180, "both work")
    right = _hour(made.records.url)
    for _ in range(jumps):
        for offset, hours in (("+3600", 1), ("-3600", -1), ("+0", 0)):
            _set(clock, offset)
            assert abs(_hour(made.records.url) - right - hours) < 0.2, "the database's clock follows"
            if hours:
                go_on()


def _goes_back(folder: Path) -> bool:
    times = [datetime.fromisoformat(one["time"]) for one in read_records(folder)]
    return any(later < earlier for earlier, later in zip(times, times[1:], strict=False))
