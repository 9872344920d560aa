"""Each archive gets what it can show: an Orthanc that takes label maps, one that does not, and a planning system.

The planning system takes structure sets alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import RTStructureSetStorage

from tests import judges, peers
from tests.journey.limner_server import LimnerServer

SETTINGS = """
[[destination]]
name = "modern"
ae_title = "PACS"
host = "{modern}"
port = 4242
segmentation_as = ["labelmap", "segmentation"]
retry_first_seconds = 1

[[destination]]
name = "archive"
ae_title = "PACS"
host = "{archive}"
port = 4242
segmentation_as = ["labelmap", "segmentation"]
retry_first_seconds = 1

[[destination]]
name = "planning"
ae_title = "TPS"
host = "{archive}"
port = 11113
segmentation_as = ["labelmap", "segmentation", "structure-set"]
retry_first_seconds = 1

[[pipeline]]
name = "liver-spleen"
model = "nnunet_liver_spleen_demo"

[[rule]]
name = "ct"
pipeline = "liver-spleen"
destinations = ["modern", "archive", "planning"]
match = {{ Modality = "CT" }}
"""


@pytest.mark.timeout(900)
def test_each_archive_gets_the_best_form_that_it_takes(
    tmp_path: Path, abdominal_ct: list[Path], network: peers.PeerNetwork
) -> None:
    peers.require("Orthanc", "storescp", "segimage2itkimage")
    with (
        peers.peer_network() as other,
        peers.running_orthanc(network, tmp_path / "archive") as archive,
        peers.running_orthanc(other, tmp_path / "modern", accepts_unknown=True) as modern,
        peers.running_storescp(network, tmp_path, ae_title="TPS", only=[RTStructureSetStorage]) as planning,
    ):
        settings = SETTINGS.format(modern=other.peer_address, archive=network.peer_address)
        server = LimnerServer(tmp_path, settings)
        with server.running_server():
            server.wait_for(lambda: _asked(server) == {"modern", "archive", "planning"}, expected="profiles")
            assert _gets(server) == {"modern": "labelmap", "archive": "segmentation", "planning": "structure-set"}
            assert server.submit(abdominal_ct[0].parent).returncode == 0
            (job,) = server.wait_for_jobs(1)
            assert job["state"] == "closed", job
            assert {one["state"] for one in job["deliveries"]} == {"delivered"}

        (in_modern,) = modern.find("Instance", SOPClassUID="1.2.840.10008.5.1.4.1.1.66.7")
        (in_archive,) = archive.find("Instance", SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
        (contours,) = planning.files()
        folder = Path(job["results"][0]["path"]).parent
        with np.load(folder / "labels.npz") as stored:
            computed, affine = stored["labels"], stored["affine"]
        for orthanc, instance in ((modern, in_modern), (archive, in_archive)):
            path = orthanc.download(instance["ID"], tmp_path / f"{instance['ID']}.dcm")
            read = judges.place(judges.dcmqi_labels(path, tmp_path / instance["ID"]), computed.shape, affine)
            np.testing.assert_array_equal(read, computed)
        structures = pydicom.dcmread(contours)
        assert [one.ROIName for one in structures.StructureSetROISequence] == ["Liver", "Spleen"]
    server.verify_audit()


def _asked(server: LimnerServer) -> set[str]:
    return {one["destination"] for one in _listed(server) if one["asked_at"]}


def _gets(server: LimnerServer) -> dict[str, str]:
    return {one["destination"]: one["gets"]["ct"][0] for one in _listed(server)}


def _listed(server: LimnerServer) -> list[dict[str, Any]]:
    result = server.limner("destinations", "--json")
    assert result.returncode == 0, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found
