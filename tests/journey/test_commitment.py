"""A study goes its whole way, and its job is done when Orthanc has committed itself to the result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import peers
from tests.journey.limner_server import LimnerServer, settings_for
from tests.phantom import write_phantom_series


@pytest.mark.timeout(600)
def test_a_job_is_done_when_its_archive_has_committed_itself(tmp_path: Path, network: peers.PeerNetwork) -> None:
    settings = settings_for(4242, network.peer_address, "PACS").replace(
        "retry_first_seconds = 1", 'retry_first_seconds = 1\ncommitment = "storage-commitment"\ncommitment_seconds = 30'
    )
    server = LimnerServer(tmp_path, settings, host=network.host_address)
    with peers.running_orthanc(network, tmp_path / "orthanc", knows=("LIMNER", server.port)) as orthanc:
        with server.running_server():
            write_phantom_series(tmp_path / "ct", series_description="commit")
            assert server.submit(tmp_path / "ct").returncode == 0
            (job,) = server.wait_for_jobs(1)
            assert (job["state"], job["code"]) == ("closed", "")
            ((state, rounds),) = {(one["state"], one["commitment_rounds"]) for one in job["deliveries"]}
            assert (state, rounds) == ("committed", 1)
            assert all(one["committed_at"] for one in job["deliveries"])
            shown = server.limner("jobs", "show", job["id"])
            assert "committed, attempts 1, asked 1 times to keep it" in shown.stdout
            listed = server.limner("destinations", "--json")
            (archive,) = json.loads(listed.stdout)
            assert (archive["down"], archive["commitment"]) == (None, "storage-commitment")
        assert len(orthanc.series(Modality="SEG")) == 1
    events = [one["event"] for one in server.audit_events()]
    way = ("DELIVERY_SUCCEEDED", "COMMITMENT_REQUESTED", "COMMITMENT_RECEIVED", "JOB_CLOSED")
    assert [one for one in events if one in way] == list(way)
    server.verify_audit()
