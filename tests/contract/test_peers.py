"""The peers themselves: what stands for a PACS, an archive and the judges does its work, before Limner is tested."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from pydicom.sr.codedict import codes
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt
from pynetdicom.sop_class import CTImageStorage

from tests import data, judges, peers


def test_a_missing_peer_skips_the_test_here_and_fails_it_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs no-such-program: run `make test`"):
        peers.require("sh", "no-such-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program"):
        peers.require("no-such-program")
    peers.require("sh")


@contextmanager
def receiver(address: str, received: list[str]) -> Iterator[int]:
    """A storage SCP at the host's address, where Limner stands in the journey tests; yields its port."""
    entity = AE("LIMNER")
    entity.add_supported_context(CTImageStorage, ALL_TRANSFER_SYNTAXES)

    def keep(event: evt.Event) -> int:
        received.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    server = entity.start_server((address, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    try:
        yield server.server_address[1]
    finally:
        entity.shutdown()


def test_orthanc_keeps_a_series_and_routes_it_once_when_it_is_stable(
    network: peers.PeerNetwork, abdominal_ct: list[Path], tmp_path: Path
) -> None:
    peers.require("root", "Orthanc", "dcmsend", "echoscu")
    received: list[str] = []
    with (
        receiver(network.host_address, received) as port,
        peers.running_orthanc(network, tmp_path, route_to=("LIMNER", port)) as orthanc,
    ):
        peers.echoscu(orthanc.host, orthanc.port, called=orthanc.AE_TITLE)
        peers.dcmsend(abdominal_ct, orthanc.host, orthanc.port, called=orthanc.AE_TITLE)
        (series,) = orthanc.wait_for_series(1, seconds=30, Modality="CT")
        assert len(series["Instances"]) == len(abdominal_ct)
        orthanc.wait_for_jobs(1)
        uids = [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in abdominal_ct]
        assert sorted(received) == sorted(uids)
        fetched = orthanc.download(series["Instances"][0], tmp_path / "one.dcm")
        assert pydicom.dcmread(fetched).PatientName == "Limner^Demonstration"
        orthanc.delete_everything()
        assert orthanc.series() == []


def test_storescp_keeps_what_it_is_sent(network: peers.PeerNetwork, abdominal_ct: list[Path], tmp_path: Path) -> None:
    peers.require("root", "storescp", "dcmsend")
    with peers.running_storescp(network, tmp_path) as archive:
        peers.dcmsend(abdominal_ct, archive.host, archive.port, called=archive.ae_title)
        assert len(archive.files()) == len(abdominal_ct)


@pytest.fixture(scope="module")
def segmentation(abdominal_ct: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A right SEG of the reference liver and spleen, made by highdicom, and its label map (z descends, as in files)."""
    datasets = [pydicom.dcmread(path) for path in abdominal_ct]
    reference = data.reference_labels(data.abdominal_ct_source())[::-1]
    labels = np.zeros(reference.shape, np.uint8)
    labels[reference == data.LIVER] = 1
    labels[reference == data.SPLEEN] = 2
    descriptions = [
        SegmentDescription(
            number, name, codes.SCT.Organ, code, SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name, code in ((1, "Liver", codes.SCT.Liver), (2, "Spleen", codes.SCT.Spleen))
    ]  # fmt: skip
    seg = highdicom.seg.Segmentation(
        datasets, labels, SegmentationTypeValues.BINARY, descriptions,
        highdicom.UID(), 900, highdicom.UID(), 1, "Limner", "Limner", "0", "0",
    )  # fmt: skip
    path = tmp_path_factory.mktemp("segmentation") / "seg.dcm"
    seg.save_as(path)
    return path, labels


def test_dciodvfy_finds_no_error_in_a_right_object_and_one_in_a_broken_one(
    segmentation: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    peers.require("dciodvfy")
    path, _ = segmentation
    assert judges.run_dciodvfy(path) == []
    dataset = pydicom.dcmread(path)
    del dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    dataset.save_as(tmp_path / "broken.dcm")
    assert any("SegmentedPropertyTypeCodeSequence" in line for line in judges.run_dciodvfy(tmp_path / "broken.dcm"))


def test_dcentvfy_is_silent_only_when_the_study_is_consistent(
    segmentation: tuple[Path, np.ndarray], abdominal_ct: list[Path], tmp_path: Path
) -> None:
    peers.require("dcentvfy")
    path, _ = segmentation
    assert judges.run_dcentvfy([*abdominal_ct, path]) == ""
    dataset = pydicom.dcmread(path)
    dataset.PatientName = "Somebody^Else"
    dataset.save_as(tmp_path / "other.dcm")
    assert "PatientName" in judges.run_dcentvfy([*abdominal_ct, tmp_path / "other.dcm"])


def test_dcmqi_reads_the_label_map_back_in_its_place(
    segmentation: tuple[Path, np.ndarray], abdominal_ct: list[Path], tmp_path: Path
) -> None:
    peers.require("segimage2itkimage")
    path, labels = segmentation
    segments = judges.dcmqi_labels(path, tmp_path)
    assert {number: one.label for number, one in segments.items()} == {1: "Liver", 2: "Spleen"}
    affine = highdicom.seg.segread(path).get_volume_geometry().affine
    first = pydicom.dcmread(abdominal_ct[0], stop_before_pixels=True)
    ordered = labels if np.allclose(affine[:3, 3], first.ImagePositionPatient) else labels[::-1]
    assert np.array_equal(judges.place(segments, ordered.shape, affine), ordered)
