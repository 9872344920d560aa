"""The server is killed with SIGKILL at each step's border and started again: one SEG a study, nothing lost."""

import threading
import time
from pathlib import Path

import pytest

from archive import DemonstrationArchive
from tests.journey.limner_server import LimnerServer, settings_for
from tests.phantom import write_phantom_series

BORDERS = (
    "RECEIVING_BEGAN", "INSTANCES_RECEIVED", "JOB_CREATED", "GRAPH_STARTED",
    "RESULTS_VERIFIED", "DELIVERY_BEGAN", "DELIVERY_SUCCEEDED", "JOB_CLOSED",
)  # fmt: skip
"""Audit events in the order of a study's way. Each is synced before its effect, so a kill here falls on the border."""


class KillAt(threading.Thread):
    """Kills the server as soon as the audit log holds `event` for the `nth` time."""

    def __init__(self, server: LimnerServer, event: str, nth: int) -> None:
        super().__init__()
        self.server, self.event, self.nth = server, event, nth

    def run(self) -> None:
        path = self.server.data / "audit" / "audit.jsonl"
        needle = f'"event":"{self.event}"'
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            if path.exists() and path.read_text().replace(" ", "").count(needle) >= self.nth:
                self.server.kill()
                return
            time.sleep(0.001)


@pytest.mark.timeout(1200)
def test_one_segmentation_a_study_whenever_the_server_dies(tmp_path: Path) -> None:
    archive = DemonstrationArchive(tmp_path / "archive")
    archive.start()
    try:
        server = LimnerServer(tmp_path, settings_for(archive.port), quiet_seconds=4)
        server.start()
        for number, border in enumerate(BORDERS, start=1):
            seen = sum(record["event"] == border for record in server.audit_events())
            killer = KillAt(server, border, seen + 1)
            folder = tmp_path / border
            write_phantom_series(folder, series_description=border, seed=number)
            killer.start()
            while server.running and server.submit(folder).returncode != 0:
                pass  # as a modality does: again until all is accepted
            killer.join(240)
            assert not server.running, f"the audit log never showed {border}:\n{server.log()}"
            server.start()
            while server.submit(folder).returncode != 0:
                pass
            server.wait_for_jobs(number, states=("closed",))
        jobs = server.jobs()
        assert len(jobs) == len(BORDERS)
        assert len({job["study_instance_uid"] for job in jobs}) == len(BORDERS)
        assert all(one["state"] == "delivered" for job in jobs for one in job["deliveries"])
        assert len(list((tmp_path / "archive").glob("*.dcm"))) == len(BORDERS)
        assert [one for one in server.series() if one["state"] != "routed"] == []
        _nothing_in_the_spool_is_unaccounted_for(server)
        assert server.stop() == 0
        server.verify_audit()
    finally:
        archive.stop()


def _nothing_in_the_spool_is_unaccounted_for(server: LimnerServer) -> None:
    spool = server.data / "spool"
    kept = {path.stem for path in (spool / "instances").rglob("*.dcm")}
    accounted = {digest for job in server.jobs() for digest in job["inputs"]}
    assert kept == accounted
    assert list((spool / "incoming").iterdir()) == []
