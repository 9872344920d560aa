"""Images that a prompt refers to and that are not held come from Orthanc by C-MOVE; those it lacks are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import peers
from tests.journey.limner_server import LimnerServer
from tests.phantom import Phantom
from tests.prompt_objects import presentation_state, rectangle
from tests.web_fixture import BALL, MODEL, generalist_repository, write_ball

pytestmark = pytest.mark.timeout(600)
ELSEWHERE = Phantom(**{**BALL.__dict__, "seed": 7})


def settings(host: str) -> str:
    return f"""
[[archive]]
name = "pacs"
ae_title = "{peers.Orthanc.AE_TITLE}"
host = "{host}"
port = {peers.Orthanc.DICOM_PORT}

[[destination]]
name = "archive"
ae_title = "{peers.Orthanc.AE_TITLE}"
host = "{host}"
port = {peers.Orthanc.DICOM_PORT}
retry_first_seconds = 1

[[pipeline]]
name = "drawn"
model = "{MODEL}"

[pipeline.prompt]
source = "pacs"

[[rule]]
name = "annotations"
pipeline = "drawn"
destinations = ["archive"]
match = {{ Modality = "PR" }}
"""


def test_images_that_are_not_held_are_fetched(
    tmp_path: Path, network: peers.PeerNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers.require("dcmsend")
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("LIMNER__MODEL_REPOSITORY", str(generalist_repository(tmp_path / "models")))
    server = LimnerServer(tmp_path, settings(network.peer_address), host=network.host_address, quiet_seconds=1)
    images = write_ball(tmp_path / "ball")
    for name, phantom in (("held", BALL), ("elsewhere", ELSEWHERE)):
        drawn = presentation_state(phantom, 5, [("POLYLINE", rectangle(20, 12, 45, 37))])
        drawn.save_as(tmp_path / f"{name}.dcm", enforce_file_format=True)
    with peers.running_orthanc(network, tmp_path / "orthanc") as orthanc, server.running_server():
        for path in images:
            orthanc.upload(path)

        def send(name: str) -> None:
            peers.dcmsend([tmp_path / f"{name}.dcm"], server.host, server.port, called="LIMNER", calling="PACS")

        # the archive does not know yet where we are
        known = {"AET": "LIMNER", "Host": network.host_address, "Port": server.port}
        orthanc.request("PUT", "/modalities/LIMNER", json.dumps(known | {"AET": "OTHER"}).encode())
        send("elsewhere")
        (job,) = server.wait_for_jobs(1)
        assert (job["state"], job["code"]) == ("refused", "images-not-found")

        orthanc.request("PUT", "/modalities/LIMNER", json.dumps(known).encode())
        send("held")
        closed, _ = server.wait_for_jobs(2)
        assert closed["state"] == "closed", closed
        assert len(orthanc.wait_for_series(1, Modality="SEG")) == 1
        assert "✓ archive pacs" in server.limner("check").stdout

        # what the archive does not have may come another way: then the prompt is followed
        peers.dcmsend(
            ELSEWHERE.write(tmp_path / "elsewhere"), server.host, server.port, called="LIMNER", calling="PACS"
        )
        assert server.wait_for_jobs(3)[0]["state"] == "closed"
    server.verify_audit()
