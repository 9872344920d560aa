"""A result goes to an archive by STOW-RS through TLS, and is withdrawn: who can be told is, and people are too."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import SegmentationStorage

from tests import judges, peers, web_peers
from tests.journey.limner_server import LimnerServer

PASSWORD = "correct horse battery"  # noqa: S105 - of a server that lives for a minute
SETTINGS = """
[[destination]]
name = "cloud"
url = "{url}"
user = "limner"
password_file = "password"
authorities = "{authorities}"
segmentation_as = ["labelmap", "segmentation"]
retry_first_seconds = 1

[[destination]]
name = "viewer"
ae_title = "VIEWER"
host = "{viewer}"
port = 11113
retry_first_seconds = 1

[[archive]]
name = "pacs"
ae_title = "{archive}"
host = "{host}"
port = {port}

[[pipeline]]
name = "liver-spleen"
model = "nnunet_liver_spleen_demo"

[[rule]]
name = "ct"
pipeline = "liver-spleen"
destinations = ["cloud", "viewer"]
match = {{ Modality = "CT" }}
"""


@pytest.mark.timeout(900)
def test_a_result_goes_to_the_web_and_is_withdrawn_from_there(
    tmp_path: Path, abdominal_ct: list[Path], network: peers.PeerNetwork
) -> None:
    peers.require("Orthanc", "nginx", "storescp", "dciodvfy")
    authority = web_peers.Authority.make(tmp_path / "ca")
    (tmp_path / "password").write_text(PASSWORD + "\n")
    with (
        peers.running_orthanc(network, tmp_path / "orthanc", password=PASSWORD) as orthanc,
        web_peers.nginx_before_orthanc(network, tmp_path / "nginx", authority) as url,
        peers.running_storescp(network, tmp_path, ae_title="VIEWER", only=[SegmentationStorage]) as viewer,
    ):
        settings = SETTINGS.format(
            url=url,
            authorities=authority.certificate,
            viewer=network.peer_address,
            archive=orthanc.AE_TITLE,
            host=orthanc.host,
            port=orthanc.port,
        )
        server = LimnerServer(tmp_path, settings)
        with server.running_server():
            checked = server.limner("check")
            assert f"{url} answers queries" in checked.stdout, checked.stdout + checked.stderr
            assert server.submit(abdominal_ct[0].parent).returncode == 0
            (job,) = server.wait_for_jobs(1)
            assert job["state"] == "closed", job
            digests = {one["digest"]: one["kind"] for one in job["results"]}
            sent = {one["destination"]: one["digest"] for one in job["deliveries"] if one["state"] == "delivered"}
            assert {name: digests[digest] for name, digest in sent.items()} == {
                "cloud": "labelmap",
                "viewer": "segmentation",
            }
            (instance,) = orthanc.find("Instance", Modality="SEG")
            content = orthanc.download(instance["ID"], tmp_path / "back.dcm").read_bytes()
            assert hashlib.sha256(content).hexdigest() == sent["cloud"]

            swept = json.loads(server.limner("account", "--ask", "pacs", "--json").stdout)
            assert swept["discrepancies"] == []
            assert list(swept["unasked"]) == ["viewer"], "the web destination is asked over the web"

            done = server.limner("jobs", "withdraw", job["id"], "--reason", "quality")
            assert done.returncode == 2, done.stdout + done.stderr
            assert "viewer can't be told" in done.stderr
            segmentation = next(one for one in job["results"] if one["kind"] == "segmentation")
            series = str(pydicom.dcmread(segmentation["path"], stop_before_pixels=True).SeriesInstanceUID)
            assert f"series {series} (segmentation)" in done.stdout
            server.wait_for(lambda: bool(orthanc.find("Instance", Modality="KO")), expected="a rejection note")
            again = server.limner("jobs", "withdraw", job["id"], "--reason", "unsafe")
            assert again.returncode == 2
            assert "withdrawn before" in again.stderr

            shown = server.limner("jobs", "show", job["id"], "--json")
            said = json.loads(shown.stdout)
            assert said["state"] == "closed"
            assert {one["destination"]: (one["reason"], one["code"]) for one in said["withdrawals"]} == {
                "cloud": ("quality", ""),
                "viewer": ("quality", "note-not-taken"),
            }
            assert "withdrawn from cloud: quality" in server.limner("jobs", "show", job["id"]).stdout
            assert "closed, withdrawn" in server.limner("jobs").stdout

        (note,) = orthanc.find("Instance", Modality="KO")
        path = orthanc.download(note["ID"], tmp_path / "note.dcm")
        assert hashlib.sha256(path.read_bytes()).hexdigest() in {one["digest"] for one in said["results"]}
        assert judges.run_dciodvfy(path) == []
        (referred,) = pydicom.dcmread(path).CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        (rejected,) = referred.ReferencedSOPSequence
        assert rejected.ReferencedSOPInstanceUID == instance["MainDicomTags"]["SOPInstanceUID"]
        assert len(viewer.files()) == 1
    server.verify_audit()
    events = [one["event"] for one in server.audit_events()]
    assert events.count("RESULTS_WITHDRAWN") == 2
    written = server.log_path.read_text() + (server.data / "audit" / "audit.jsonl").read_text()
    assert PASSWORD not in written
