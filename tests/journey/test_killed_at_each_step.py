"""The server is killed with SIGKILL at each step's border and started again: one SEG a study, nothing lost.

The sender deletes what was answered with 0x0000, as a scanner may, and never sends it again: were an acknowledged
instance lost, its study would never be whole.
"""

import contextlib
import threading
import time
from pathlib import Path

import pytest

from app.delivery.sending import send_folder
from app.errors import DeliveryError
from archive import DemonstrationArchive
from tests.journey.limner_server import LimnerServer, settings_for
from tests.phantom import write_phantom_series

BORDERS = (
    "RECEIVING_BEGAN", "INSTANCES_RECEIVED", "JOB_CREATED", "GRAPH_STARTED",
    "RESULTS_VERIFIED", "DELIVERY_BEGAN", "DELIVERY_SUCCEEDED", "JOB_CLOSED",
)  # fmt: skip
"""Audit events in the order of a study's way. Each is synced before its effect, so a kill here falls on the border."""


WHILE_SENDING = ("RECEIVING_BEGAN", "INSTANCES_RECEIVED")
"""A kill there can meet a sender that still waits for an answer."""


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
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # the toolkit drops what did not connect
def test_one_segmentation_a_study_whenever_the_server_dies(tmp_path: Path) -> None:
    archive = DemonstrationArchive(tmp_path / "archive")
    archive.start()
    server = LimnerServer(tmp_path, settings_for(archive.port), quiet_seconds=4)
    try:
        server.start()
        for number, border in enumerate(BORDERS, start=1):
            seen = sum(record["event"] == border for record in server.audit_events())
            killer = KillAt(server, border, seen + 1)
            folder = tmp_path / border
            instances = len(write_phantom_series(folder, series_description=border, seed=number))
            killer.start()
            while server.running and _left(folder):
                _hand_over(server, folder)
            killer.join(240)
            assert not server.running, f"the audit log never showed {border}:\n{server.log()}"
            if border not in WHILE_SENDING:
                assert not _left(folder), "all was acknowledged before the kill: the restart has only what it kept"
            server.start()
            while _left(folder):
                _hand_over(server, folder)
            newest = server.wait_for_jobs(number, states=("closed",))[0]
            assert len(newest["inputs"]) == instances
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
        server.kill_if_running()
        archive.stop()


def _left(folder: Path) -> list[Path]:
    return list(folder.glob("*.dcm"))


def _hand_over(server: LimnerServer, folder: Path) -> None:
    """Send what is left, and delete what was acknowledged.

    Not by the command line: on a busy machine that alone can take longer than the series' quiet time.
    """
    with contextlib.suppress(DeliveryError):  # no association came about
        for one in send_folder(folder, server.host, server.port, "LIMNER", "MODALITY").files:
            if one.accepted:
                one.path.unlink()


def _nothing_in_the_spool_is_unaccounted_for(server: LimnerServer) -> None:
    spool = server.data / "spool"
    kept = {path.stem for path in (spool / "instances").rglob("*.dcm")}
    accounted = {digest for job in server.jobs() for digest in job["inputs"]}
    assert kept == accounted
    assert list((spool / "incoming").iterdir()) == []
