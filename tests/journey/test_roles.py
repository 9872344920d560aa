"""The server parted over processes by roles, on one database, one Triton and one data folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from archive import DemonstrationArchive
from tests.database_fixture import fresh_database
from tests.journey.limner_server import LimnerServer, settings_for
from tests.phantom import write_phantom_series


def _role(folder: Path, settings: str, role: str, name: str) -> LimnerServer:
    return LimnerServer(folder, settings, arguments=("--role", role, "--name", name))


@contextmanager
def _parted(folder: Path, database: str, triton: str) -> Iterator[tuple[LimnerServer, LimnerServer, LimnerServer]]:
    """Two listeners and a worker, not started."""
    archive = DemonstrationArchive(folder / "archive")
    archive.start()
    with fresh_database(database) as url, ExitStack() as stack:
        stack.callback(archive.stop)
        external = f'[database]\nurl = "{url}"\n[triton]\naddress = "{triton}"\n'
        settings = settings_for(archive.port) + external
        made = (
            _role(folder, settings, "listener", "in-1"),
            _role(folder, settings, "listener", "in-2"),
            _role(folder, settings, "worker", "work-1"),
        )
        for one in made:
            stack.callback(one.kill_if_running)
        yield made
        for one in made:
            if one.running:
                assert one.stop() == 0, one.log()


@pytest.mark.timeout(300)
def test_a_killed_listeners_study_is_decided_by_the_other(tmp_path: Path, postgres: Any, triton: Any) -> None:
    with _parted(tmp_path, postgres, triton.target) as (first, second, worker):
        first.start()
        second.start()
        worker.start()
        write_phantom_series(tmp_path / "series", seed=1)
        assert first.submit(tmp_path / "series").returncode == 0
        first.kill()  # it had the turn to decide what is complete
        (job,) = second.wait_for_jobs(1, states=("closed",))
        assert job["deliveries"][0]["state"] == "delivered"
        first.start()
        write_phantom_series(tmp_path / "another", seed=2)
        assert first.submit(tmp_path / "another").returncode == 0
        assert second.submit(tmp_path / "another").returncode == 0  # the same bytes by another way are no new study
        assert len(second.wait_for_jobs(2, states=("closed",))) == 2
        assert not list((first.data / "run").glob("*/triton*"))
        audited = {path.parent.name for path in (first.data / "audit").glob("*/audit.jsonl")}
        assert audited == {"in-1", "in-2", "work-1"}
        events = [one["event"] for one in worker.audit_events()]
        assert events.count("JOB_CREATED") == events.count("JOB_CLOSED") == 2
    report = json.loads(second.limner("audit", "verify", "--json").stdout)
    assert report["ok"], report
    assert sorted(report["chains"]) == ["in-1", "in-2", "work-1"]


@pytest.mark.timeout(120)
def test_a_server_without_destinations_runs_until_it_is_told_to_stop(
    tmp_path: Path, postgres: Any, triton: Any
) -> None:
    with fresh_database(postgres) as url, ExitStack() as stack:
        server = LimnerServer(tmp_path, f'[database]\nurl = "{url}"\n[triton]\naddress = "{triton.target}"\n')
        stack.callback(server.kill_if_running)
        server.start()
        write_phantom_series(tmp_path / "series", seed=1)
        assert server.submit(tmp_path / "series").returncode == 0
        server.wait_for(lambda: [one["state"] for one in server.series()] == ["no-rule"], 60, "that no rule takes it")
        assert server.stop() == 0, server.log()


def test_two_processes_of_one_name_are_told_apart(tmp_path: Path, postgres: Any, triton: Any) -> None:
    with _parted(tmp_path, postgres, triton.target) as (first, _, _):
        first.start()
        again = first.limner("serve", "--role", "worker", "--name", "in-1")
        assert again.returncode == 2
        assert again.stderr.startswith("audit-in-use: ")
        assert "--name" in again.stderr.replace("\n", " ")
