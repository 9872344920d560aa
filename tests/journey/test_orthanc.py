"""The whole way with Orthanc as the PACS: its auto-routing sends a real CT, and the segmentation lands beside it."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from operators.series_volume import read_series
from tests import judges, peers
from tests.journey.limner_server import LimnerServer, settings_for


@pytest.mark.timeout(900)
def test_a_routed_ct_comes_back_as_a_segmentation_in_its_study(
    tmp_path: Path, abdominal_ct: list[Path], network: peers.PeerNetwork
) -> None:
    peers.require("dcmsend", "dciodvfy", "dcentvfy", "segimage2itkimage")
    settings = settings_for(peers.Orthanc.DICOM_PORT, network.peer_address, peers.Orthanc.AE_TITLE)
    server = LimnerServer(tmp_path, settings, host=network.host_address, quiet_seconds=2)
    with (
        peers.running_orthanc(network, tmp_path / "orthanc", route_to=("LIMNER", server.port)) as orthanc,
        server.running_server(),
    ):
        peers.dcmsend(abdominal_ct, network.peer_address, orthanc.DICOM_PORT, called=orthanc.AE_TITLE)
        (series,) = orthanc.wait_for_series(1, Modality="SEG")
        (job,) = server.wait_for_jobs(1, states=("closed",))

        # in the same study, one instance
        study = pydicom.dcmread(abdominal_ct[0], stop_before_pixels=True).StudyInstanceUID
        assert job["study_instance_uid"] == study
        (instance,) = series["Instances"]
        path = orthanc.download(instance, tmp_path / "segmentation.dcm")
        segmentation = pydicom.dcmread(path)
        assert segmentation.StudyInstanceUID == study
        assert len(orthanc.find("Study")) == 1

        # valid, and consistent with its study
        assert judges.run_dciodvfy(path) == []
        assert judges.run_dcentvfy([*abdominal_ct, path]) == ""
        _dcmqi_reads_what_limner_computed(path, job, abdominal_ct, tmp_path)

        # a second send of the same series is the same question: no second answer
        routed = len(orthanc.jobs())
        orthanc.request("POST", "/modalities/LIMNER/store", _store_request(orthanc))
        orthanc.wait_for_jobs(routed)
        server.wait_for(lambda: all(one["state"] == "routed" for one in server.series()), expected="routed series")
        assert len(server.jobs()) == 1
        assert len(orthanc.series(Modality="SEG")) == 1
        assert len(orthanc.find("Instance", SOPInstanceUID=str(segmentation.SOPInstanceUID))) == 1

        # everything is accounted for, and nothing is old enough to go
        for command in (("account", "--files"), ("retention", "--now"), ("account", "--files")):
            ran = server.limner(*command)
            assert ran.returncode == 0, ran.stdout + ran.stderr
    server.verify_audit()
    events = [record["event"] for record in server.audit_events()]
    assert events.count("DELIVERY_SUCCEEDED") == 1
    assert events.count("JOB_CLOSED") == 1


def _store_request(orthanc: peers.Orthanc) -> bytes:
    (ct,) = orthanc.series(Modality="CT")
    return b'{"Resources":["%s"],"Synchronous":true}' % str(ct["ID"]).encode()


def _dcmqi_reads_what_limner_computed(path: Path, job: dict[str, object], source: list[Path], scratch: Path) -> None:
    results = job["results"]
    assert isinstance(results, list)
    with np.load(Path(results[0]["path"]).parent / "labels.npz") as stored:
        computed, affine = stored["labels"], stored["affine"]
    read = judges.place(judges.dcmqi_labels(path, scratch / "dcmqi"), computed.shape, affine)
    assert {1, 2} <= set(np.unique(computed))
    np.testing.assert_array_equal(read, computed)  # Dice 1.0, and at the same place
    np.testing.assert_allclose(read_series(source).volume.affine, affine, atol=1e-6)
