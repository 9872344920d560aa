"""The server as a process of its own, as it runs in a hospital: started, watched, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.bootstrap import open_records
from app.jobs.entries import Job
from app.settings import load_settings

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 180.0
JOB_SECONDS = 240.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def settings_for(archive_port: int, host: str = "127.0.0.1", ae_title: str = "ARCHIVE") -> str:
    """One pipeline for every CT, one destination."""
    return f"""
[[destination]]
name = "archive"
ae_title = "{ae_title}"
host = "{host}"
port = {archive_port}
retry_first_seconds = 1

[[pipeline]]
name = "liver-spleen"
model = "nnunet_liver_spleen_demo"

[[rule]]
name = "ct"
pipeline = "liver-spleen"
destinations = ["archive"]
match = {{ Modality = "CT" }}
"""


class LimnerServer:
    """`limner serve` on a folder of its own; `settings` is TOML that follows the common head.

    `arguments` are those of `limner serve`: several servers, of other roles, may share the folder.
    """

    def __init__(
        self,
        folder: Path,
        settings: str,
        *,
        listener: str = "",
        quiet_seconds: float = 1.0,
        host: str = "127.0.0.1",
        arguments: Sequence[str] = (),
    ) -> None:
        self.arguments = tuple(arguments)
        name = "-".join(one for one in self.arguments if not one.startswith("--"))
        self.folder = folder
        self.host = host
        self.port = free_port()
        self.settings_path = folder / f"limner{name}.toml"
        self.log_path = folder / f"server{name}.log"
        self.data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self.settings_path.write_text(
            f"""data_folder = "data"

[listener]
host = "{host}"
port = {self.port}
low_water_bytes = 1048576
{listener}

[routing]
series_quiet_seconds = {quiet_seconds}
study_quiet_seconds = {2 * quiet_seconds}
scan_seconds = 0.1

{settings}
"""
        )

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve", "--settings", str(self.settings_path), *self.arguments],
                cwd=REPOSITORY, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"the server ended at start:\n{self.log()}"
            if self._is_up():
                return
            time.sleep(0.1)
        raise AssertionError(f"the server did not start within {START_SECONDS} s:\n{self.log()}")

    def _is_up(self) -> bool:
        if "--role" in self.arguments and "listener" not in self.arguments:
            return "server.started" in self.log()
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0

    def stop(self) -> int:
        """SIGTERM; return the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(90)
        self._process = None
        return code

    def kill(self) -> None:
        """SIGKILL the server's process, and only that: its children must notice by themselves."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)
        self._process = None

    def kill_if_running(self) -> None:
        """For what must end however a test ends: a server that is left over disturbs the tests after it."""
        if self.running:
            self.kill()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")[-8000:] if self.log_path.exists() else ""

    def limner(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments, "--settings", str(self.settings_path)],
            cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120,
            env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip

    def submit(self, folder: Path, calling: str = "MODALITY") -> subprocess.CompletedProcess[str]:
        return self.limner("submit", str(folder), "--calling", calling)

    def jobs(self) -> list[dict[str, Any]]:
        result = self.limner("jobs", "--json")
        assert result.returncode == 0, result.stderr + self.log()
        jobs: list[dict[str, Any]] = json.loads(result.stdout)
        return jobs

    def recorded_jobs(self) -> list[Job]:
        """The jobs, newest first, for who waits: the command would take a core for a second each time."""
        with open_records(load_settings(self.settings_path)) as records:
            return records.jobs()

    def job_states(self) -> list[str]:
        """What they are at, as `recorded_jobs` has it."""
        return [job.state for job in self.recorded_jobs()]

    def series(self) -> list[dict[str, Any]]:
        """What became of each series (`limner series --json`)."""
        result = self.limner("series", "--json")
        assert result.returncode == 0, result.stderr + self.log()
        series: list[dict[str, Any]] = json.loads(result.stdout)
        return series

    def wait_for(self, what: Callable[[], bool], seconds: float = JOB_SECONDS, expected: str = "") -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if what():
                return
            time.sleep(0.3)
        raise AssertionError(f"not within {seconds} s: {expected}\njobs: {self.jobs()}\nlog:\n{self.log()}")

    def wait_for_jobs(
        self, count: int, states: tuple[str, ...] = ("closed", "failed", "refused")
    ) -> list[dict[str, Any]]:
        """Wait until `count` jobs are there and all of them ended; return them, newest first."""

        def ended() -> bool:
            found = self.job_states()
            return len(found) >= count and all(state in states for state in found)

        self.wait_for(ended, expected=f"{count} jobs in {states}")
        return self.jobs()

    def audit_events(self) -> list[dict[str, Any]]:
        """Of all chains."""
        paths = sorted((self.data / "audit").glob("**/audit.jsonl"))
        return [json.loads(line) for path in paths for line in path.read_text().splitlines() if line.endswith("}")]

    def verify_audit(self) -> None:
        result = self.limner("audit", "verify", "--json")
        assert result.returncode == 0, result.stdout + result.stderr

    @contextmanager
    def running_server(self) -> Iterator[LimnerServer]:
        self.start()
        try:
            yield self
        finally:
            if self.running:
                assert self.stop() == 0, self.log()
