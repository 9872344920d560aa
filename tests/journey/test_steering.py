"""A person steers jobs of the running server from the command line: cancels a graph that hangs, replays, puts first."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import pytest

from archive import DemonstrationArchive
from tests.journey.limner_server import LimnerServer
from tests.phantom import write_phantom_series


def _settings(port: int) -> str:
    return f"""
[[destination]]
name = "archive"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {port}

[[pipeline]]
name = "good"
model = "nnunet_liver_spleen_demo"

[[pipeline]]
name = "hangs"
model = "nnunet_liver_spleen_demo"
application = "tests.journey.planted:Hangs"

[[rule]]
name = "hangs"
pipeline = "hangs"
destinations = ["archive"]
match = {{ SeriesDescription = "hangs" }}

[[rule]]
name = "good"
pipeline = "good"
destinations = ["archive"]
"""


def _has_jobs(server: LimnerServer, count: int) -> bool:
    return len(server.job_states()) == count


@pytest.mark.timeout(600)
def test_a_hanging_graph_is_cancelled_and_the_study_behind_it_gets_its_turn(tmp_path: Path) -> None:
    archive = DemonstrationArchive(tmp_path / "archive")
    archive.start()
    try:
        server = LimnerServer(tmp_path, _settings(archive.port))
        with server.running_server():
            for seed, name in enumerate(("hangs", "good")):
                write_phantom_series(tmp_path / name, series_description=name, seed=seed)
                assert server.submit(tmp_path / name).returncode == 0
                server.wait_for(partial(_has_jobs, server, seed + 1))
            server.wait_for(lambda: server.job_states()[1] == "running")
            good, hanging = server.jobs()
            assert good["state"] == "queued"
            assert server.limner("jobs", "replay", hanging["id"]).returncode == 2
            put_first = server.limner("jobs", "urgent", good["id"][:12])
            assert "before every routine job" in put_first.stdout
            assert "urgent" in server.limner("jobs").stdout

            began = time.monotonic()
            cancelled = server.limner("jobs", "cancel", hanging["id"])
            assert cancelled.returncode == 0, cancelled.stderr + server.log()
            said = time.monotonic()
            server.wait_for(lambda: server.job_states()[0] != "queued")
            # of which commands are most: they take as long as the machine is busy
            assert time.monotonic() - said < 3 + 3 * (said - began)
            server.wait_for(lambda: server.job_states()[0] == "closed")

            listed = json.loads(server.limner("jobs", "--state", "cancelled", "--json").stdout)
            assert [one["id"] for one in listed] == [hanging["id"]]
            assert server.limner("jobs", "cancel", hanging["id"]).returncode == 2
            assert "no job waits for a replay" in server.limner("jobs", "replay", "--all").stdout
            assert "started again" in server.limner("jobs", "replay", hanging["id"]).stdout
            server.wait_for(lambda: server.job_states()[1] == "running")
            assert server.limner("jobs", "cancel", hanging["id"]).returncode == 0
        assert len(list((tmp_path / "archive").glob("*.dcm"))) == 1
        server.verify_audit()
        types = [one["event_type"]["code"] for one in server.audit_events() if one.get("event_type")]
        assert [types.count(f"job-{name}") for name in ("cancelled", "replayed", "put-first")] == [2, 1, 1]
    finally:
        archive.stop()


@pytest.mark.timeout(600)
def test_the_server_is_drained_for_an_upgrade_and_goes_on_after_it(tmp_path: Path) -> None:
    archive = DemonstrationArchive(tmp_path / "archive")
    archive.start()
    try:
        server = LimnerServer(tmp_path, _settings(archive.port))
        with server.running_server():
            write_phantom_series(tmp_path / "hangs", series_description="hangs", seed=1)
            assert server.submit(tmp_path / "hangs").returncode == 0
            server.wait_for(lambda: server.job_states() == ["running"])
            busy = server.limner("drain", "--seconds", "1")
            assert busy.returncode == 2
            assert "not-drained" in busy.stderr
            write_phantom_series(tmp_path / "good", series_description="good", seed=2)
            assert server.submit(tmp_path / "good").returncode == 0  # receiving goes on
            server.wait_for(partial(_has_jobs, server, 2))
            assert server.limner("jobs", "cancel", server.jobs()[1]["id"]).returncode == 0
            drained = server.limner("drain", "--seconds", "60")
            assert "drained: nothing runs; 1 graphs and 0 deliveries wait" in drained.stdout, drained.stderr
            assert "paused: everything" in server.limner("jobs").stdout
        with server.running_server():  # the upgraded one
            status = json.loads(server.limner("status", "--json").stdout)
            assert (status["serving"], status["work"]["graphs_waiting"]) == (True, 1)
            assert [one["kind"] for one in status["paused"]] == ["everything"]
            assert "everything goes on" in server.limner("resume").stdout
            server.wait_for(lambda: server.job_states()[0] == "closed")
            unknown = server.limner("pause", "--pipeline", "none")
            assert (unknown.returncode, "pause-unknown" in unknown.stderr) == (2, True)
        server.verify_audit()
    finally:
        archive.stop()
