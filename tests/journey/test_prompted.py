"""Annotations from the archive prompt a generalist: each comes back as a segmentation on the images that it refers to.

LiteMedSAM with its real weights on the real CT, and Orthanc as the archive.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from lite_medsam import CACHE, MODEL, fetch, put
from operators.label_maps import LabelMap
from operators.sam.propagation import middle_slice
from tests import judges, peers
from tests.data import LIVER, SPLEEN, STOMACH
from tests.fixtures.lite_medsam.make_expected import EXPECTED, corners_of
from tests.journey.limner_server import LimnerServer, free_port
from tests.prompted_ct import (
    SPLEEN_SEGMENT,
    RealCt,
    as_another,
    boxes,
    contours,
    ellipse,
    long_axis,
    not_to_be_followed,
    segmentation,
)
from tests.triton_fixture import MODEL_REPOSITORY
from tests.web_fixture import TOKEN, Client

pytestmark = pytest.mark.timeout(900)
PROBE = "limner_probe"
BY_THE_SCRIPT = {LIVER: 0.973, SPLEEN: 0.964, STOMACH: 0.891}
"""Dice of what LiteMedSAM's script finds with the reference labels' boxes on every slice."""
BY_ONE_BOX = {LIVER: 0.973, SPLEEN: 0.962, STOMACH: 0.820}
"""With the box on the middle slice alone, from where it goes through the organ's slices."""
ACCEPTANCE = {
    "category": {"value": "123037004", "scheme": "SCT", "meaning": "Anatomical Structure"},
    "type": {"value": "113343008", "scheme": "SCT", "meaning": "Organ"},
    "destinations": ["archive"],
}
MOST_OFF = 0.005
MOST_DIFFERING = 1e-4
"""Of all voxels, between this server's label map and the script's in torch."""


def settings(host: str, port: int) -> str:
    return f"""
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

[[pipeline]]
name = "whole"
model = "{MODEL}"
[pipeline.prompt]
window = "50/400"
reach = "volume"

[web]
enabled = true
port = {port}
token_file = "token"
models = ["{MODEL}"]

[[rule]]
name = "whole"
pipeline = "whole"
destinations = ["archive"]
match = {{ Modality = "RTSTRUCT" }}

[[rule]]
name = "annotations"
pipeline = "drawn"
destinations = ["archive"]
match = {{ Modality = ["PR", "SR", "SEG"] }}
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompted") / "models"
    shutil.copytree(MODEL_REPOSITORY / PROBE, folder / PROBE)
    put(fetch(CACHE), folder)
    return folder


class Bed:
    """Limner, its archive, and what prompts are made of."""

    def __init__(
        self, server: LimnerServer, viewer: Client, orthanc: peers.Orthanc, ct: RealCt, files: list[Path], folder: Path
    ) -> None:
        self.server, self.viewer, self.orthanc, self.ct, self.files, self.folder = (
            *(server, viewer, orthanc),
            *(ct, files, folder),
        )
        self._jobs = 0

    def send(self, *paths: Path) -> None:
        peers.dcmsend(paths, self.server.host, self.server.port, called="LIMNER", calling="PACS")

    def prompt(self, dataset: Dataset | Path, name: str) -> dict[str, Any]:
        """Send one object; return the job that it makes, ended."""
        path = dataset if isinstance(dataset, Path) else self.folder / f"{name}.dcm"
        if isinstance(dataset, Dataset):
            dataset.save_as(path, enforce_file_format=True)
        self.send(path)
        self._jobs += 1
        return self.server.wait_for_jobs(self._jobs)[0]

    def answer(self, job: dict[str, Any]) -> tuple[Path, LabelMap]:
        """The Segmentation that the archive got of a job, and its labels on the CT's grid as dcmqi reads them."""
        assert job["state"] == "closed", job
        (result,) = job["results"]
        (instance,) = self.orthanc.find("Instance", SOPInstanceUID=result["sop_instance_uid"])
        path = self.orthanc.download(instance["ID"], self.folder / f"{job['id']}.dcm")
        with np.load(Path(result["path"]).parent / "labels.npz") as stored:
            computed, affine = stored["labels"], stored["affine"]
        read = judges.place(judges.dcmqi_labels(path, self.folder / job["id"]), computed.shape, affine)
        return path, read


@pytest.fixture
def bed(
    tmp_path: Path,
    repository: Path,
    network: peers.PeerNetwork,
    abdominal_ct: list[Path],
    abdominal_ct_source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Bed]:
    peers.require("dcmsend", "dciodvfy", "dcentvfy", "segimage2itkimage")
    monkeypatch.setenv("LIMNER__MODEL_REPOSITORY", str(repository))
    port = free_port()
    (tmp_path / "token").write_text(TOKEN)
    text = settings(network.peer_address, port)
    server = LimnerServer(tmp_path, text, host=network.host_address, quiet_seconds=1)
    with peers.running_orthanc(network, tmp_path / "orthanc") as orthanc, server.running_server():
        ct = RealCt.of(abdominal_ct, abdominal_ct_source)
        yield Bed(server, Client(port), orthanc, ct, abdominal_ct, tmp_path)
    server.verify_audit()


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Dice."""
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def references(path: Path) -> dict[str, str]:
    """SOP Instance UID to Series Instance UID of all that a Segmentation refers to in its study."""
    return {
        str(instance.ReferencedSOPInstanceUID): str(series.SeriesInstanceUID)
        for series in pydicom.dcmread(path).ReferencedSeriesSequence
        for instance in series.ReferencedInstanceSequence
    }


def test_each_annotation_comes_back_as_a_segmentation_on_its_images(bed: Bed) -> None:
    # an ellipse comes before its images are held: refused, and followed as soon as they are
    ct, spleen = bed.ct, bed.ct.reference[SPLEEN]
    drawn = {
        "ellipse": ellipse(ct, SPLEEN),
        "long axis": long_axis(ct, LIVER),
        "contours": contours(ct, SPLEEN),
        "segmentation": pydicom.dcmread(segmentation(ct, SPLEEN, bed.files, bed.folder)),
    }
    refused = bed.prompt(drawn["ellipse"], "ellipse")
    assert (refused["state"], refused["code"]) == ("refused", "images-not-held")
    bed.send(*bed.files)
    bed._jobs += 1
    jobs = {"ellipse": bed.server.wait_for_jobs(2)[0]}
    jobs |= {name: bed.prompt(dataset, name) for name, dataset in drawn.items() if name != "ellipse"}

    found = {name: bed.answer(job) for name, job in jobs.items()}
    for name, (path, _) in found.items():
        said, prompt = pydicom.dcmread(path), drawn[name]
        assert judges.run_dciodvfy(path) == [], name
        judged = judges.run_dcentvfy([*bed.files, bed.folder / f"{name}.dcm", path]).splitlines()
        assert [line for line in judged if "Error" in line and str(path) in line] == [], name
        assert references(path)[prompt.SOPInstanceUID] == prompt.SeriesInstanceUID, name
        assert said.StudyInstanceUID == prompt.StudyInstanceUID
        (segment,) = said.SegmentSequence
        assert segment.SegmentAlgorithmType == "SEMIAUTOMATIC"

    scores = {}
    for name, value in {"ellipse": SPLEEN, "long axis": LIVER, "segmentation": SPLEEN}.items():
        index, labels = ct.largest(value), found[name][1]
        assert set(np.flatnonzero(labels.any(axis=(1, 2)))) == {index}, name
        scores[name] = overlap(labels[index] == 1, ct.reference[value][index])
    scores["contours"] = overlap(found["contours"][1] == 1, spleen)
    assert min(scores.values()) > 0.95, scores  # 0.96 to 0.97 were seen

    assert_as_the_script(bed)
    assert_as_the_script_with_one_box(bed)

    # what the prompt says of itself is the segment's
    (segment,) = pydicom.dcmread(found["segmentation"][0]).SegmentSequence
    assert segment.SegmentLabel == SPLEEN_SEGMENT.label
    assert (segment.TrackingID, segment.TrackingUID) == (SPLEEN_SEGMENT.tracking_id, SPLEEN_SEGMENT.tracking_uid)
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "78961009"
    (segment,) = pydicom.dcmread(found["ellipse"][0]).SegmentSequence
    assert segment.SegmentLabel == "Spleen?"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "85756007"

    # the archive sends a result back: it is not answered for ever
    bed.send(found["ellipse"][0])
    bed.server.wait_for(
        lambda: "own-result" in [one["state"] for one in bed.server.series()], expected="the result that came back"
    )

    # nothing of what people typed is logged
    text = bed.server.log_path.read_text() + (bed.server.data / "audit" / "audit.jsonl").read_text()
    assert "Spleen" not in text
    assert "SPLEEN" not in text


def assert_as_the_script(bed: Bed) -> None:
    """One Segmentation with a box of each organ on every slice comes back as what the script finds with them."""
    _, found = bed.answer(bed.prompt(boxes(bed.ct, list(BY_THE_SCRIPT)), "boxes"))
    labels = np.array([0, *BY_THE_SCRIPT], np.uint8)[found]
    scores = {value: overlap(labels == value, bed.ct.reference[value]) for value in BY_THE_SCRIPT}
    assert scores == pytest.approx(BY_THE_SCRIPT, abs=MOST_OFF)
    with np.load(EXPECTED) as stored:
        assert np.mean(labels != stored["labels"]) <= MOST_DIFFERING


def assert_as_the_script_with_one_box(bed: Bed) -> None:
    """A viewer that draws a box in 3D: on its middle slice, and through the slices that it spans."""
    viewer, header = bed.viewer, bed.ct.headers[0]
    asked = {"study_instance_uid": header.StudyInstanceUID, "series_instance_uid": header.SeriesInstanceUID}
    session = viewer.ok("POST", "/v1/sessions", {**asked, "model": MODEL}, 201)
    path, scores = f"/v1/sessions/{session['id']}", {}
    for value in BY_ONE_BOX:
        organ = bed.ct.reference[value]
        slices = np.flatnonzero(organ.any(axis=(1, 2)))
        first, last = int(slices[0]), int(slices[-1])
        middle = first + last - middle_slice(first, last)  # the script's slices ascend in z, the volume's descend
        box = dict(zip(("left", "top", "right", "bottom"), corners_of(organ[middle]), strict=True))
        viewer.ok("POST", f"{path}/prompts", {"coordinates": "pixel", "slice": middle, "box": box})
        viewer.ok("POST", f"{path}/propagation", {"first_slice": first, "last_slice": last}, 202)
        bed.server.wait_for(
            lambda: viewer.ok("GET", f"{path}/propagation")["state"] != "running", 300, expected="3D that ends"
        )
        assert viewer.ok("GET", f"{path}/propagation")["done"] == last - first + 1
        job_id = viewer.ok("POST", f"{path}/acceptance", {**ACCEPTANCE, "label": f"Organ {value}"}, 201)["id"]
        bed._jobs += 1
        job = next(one for one in bed.server.wait_for_jobs(bed._jobs) if one["id"] == job_id)
        scores[value] = overlap(bed.answer(job)[1] == 1, organ)
        viewer.ok("DELETE", f"{path}/mask")
    assert scores == pytest.approx(BY_ONE_BOX, abs=MOST_OFF)
    viewer.ok("DELETE", path, status=204)


def test_what_cannot_be_followed_is_refused_with_its_code(bed: Bed) -> None:
    bed.send(*bed.files)
    bed.server.wait_for(lambda: [one["state"] for one in bed.server.series()] == ["no-rule"], expected="the CT")
    stranger = as_another(ellipse(bed.ct, SPLEEN), "stranger")
    stranger.StudyInstanceUID = "2.25.777"
    nameless = as_another(ellipse(bed.ct, SPLEEN), "nameless")
    del nameless.ReferencedSeriesSequence
    bad = {"images-not-held": stranger, "prompt-references-nothing": nameless, **not_to_be_followed(bed.ct)}
    followed = as_another(ellipse(bed.ct, SPLEEN), "followed")

    # all at once, the good one last: each is answered for itself, and none keeps another
    sent = {dataset.SeriesInstanceUID: code for code, dataset in bad.items()} | {followed.SeriesInstanceUID: ""}
    for number, dataset in enumerate([*bad.values(), followed]):
        path = bed.folder / f"{number}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        bed.send(path)
    jobs = bed.server.wait_for_jobs(len(sent))
    assert {job["series_instance_uid"]: job["code"] for job in jobs} == sent
    assert sorted(job["state"] for job in jobs) == ["closed", *["refused"] * len(bad)]
    assert len(bed.orthanc.series()) == 1
