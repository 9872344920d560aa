"""Slices that come late, the whole way: waited for where the archive says that it has more, else a second result."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid

from tests import judges, peers
from tests.journey.limner_server import LimnerServer, settings_for

QUIET_SECONDS = 2.0
GAP_SECONDS = 2.5 * QUIET_SECONDS
FIRST = 12
"""Slices that come before the gap."""


def settings(host: str) -> str:
    return f"""
[[archive]]
name = "pacs"
ae_title = "{peers.Orthanc.AE_TITLE}"
host = "{host}"
port = {peers.Orthanc.DICOM_PORT}
{settings_for(peers.Orthanc.DICOM_PORT, host, peers.Orthanc.AE_TITLE)}
"""


LISTENER = f"""
[[listener.source]]
ae_title = "{peers.Orthanc.AE_TITLE}"
ask = "pacs"

[[listener.source]]
ae_title = "MODALITY"
"""


def renamed(files: list[Path], folder: Path) -> list[Path]:
    """The same images as another study's."""
    folder.mkdir()
    study, series = generate_uid(), generate_uid()
    written = []
    for number, path in enumerate(files):
        image = pydicom.dcmread(path)
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        written.append(folder / f"{number:02}.dcm")
        image.save_as(written[-1], enforce_file_format=True)
    return written


def show(server: LimnerServer, job: str) -> dict[str, Any]:
    result = server.limner("jobs", "show", job, "--json")
    assert result.returncode == 0, result.stderr
    shown: dict[str, Any] = json.loads(result.stdout)
    return shown


@pytest.mark.timeout(900)
def test_late_slices(tmp_path: Path, abdominal_ct: list[Path], network: peers.PeerNetwork) -> None:
    peers.require("dcmsend", "dciodvfy", "dcentvfy")
    server = LimnerServer(
        tmp_path, settings(network.peer_address), listener=LISTENER, host=network.host_address,
        quiet_seconds=QUIET_SECONDS,
    )  # fmt: skip
    with (
        peers.running_orthanc(network, tmp_path / "orthanc", route_to=("LIMNER", server.port), routed=()) as orthanc,
        server.running_server(),
    ):
        _the_archive_has_more(orthanc, server, abdominal_ct)
        _nobody_says_that_there_is_more(orthanc, server, renamed(abdominal_ct, tmp_path / "renamed"), tmp_path)
    server.verify_audit()


def _the_archive_has_more(orthanc: peers.Orthanc, server: LimnerServer, files: list[Path]) -> None:
    """The job is made once, with all slices, though they paused for longer than the quiet time."""
    instances = [orthanc.upload(path) for path in files]

    def send(some: list[str]) -> None:
        request = json.dumps({"Resources": some, "Synchronous": True}).encode()
        orthanc.request("POST", "/modalities/LIMNER/store", request)

    send(instances[:FIRST])
    time.sleep(GAP_SECONDS)
    [waiting] = server.series()
    assert waiting["state"] == "receiving"
    assert waiting["waits_for"].startswith(f"{FIRST} of {len(files)} instances came, the archive pacs was asked")
    assert (waiting["wait"]["instances"], waiting["wait"]["expected"]) == (FIRST, len(files))
    assert waiting["waits_for"][:20] in server.limner("series").stdout
    send(instances[FIRST:])
    [job] = server.wait_for_jobs(1, states=("closed",))
    assert len(job["inputs"]) == len(files)
    assert job["superseded_by"] is None
    assert len(orthanc.wait_for_series(1, Modality="SEG")) == 1


def _nobody_says_that_there_is_more(
    orthanc: peers.Orthanc, server: LimnerServer, files: list[Path], folder: Path
) -> None:
    """The first slices have a result of their own; that of the whole says that it replaces it."""

    def send(some: list[Path]) -> None:
        peers.dcmsend(some, server.host, server.port, called="LIMNER", calling="MODALITY")

    study = str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    send(files[:FIRST])
    server.wait_for_jobs(2, states=("closed",))
    send(files[FIRST:])
    new, old, _ = server.wait_for_jobs(3, states=("closed",))
    assert (len(old["inputs"]), len(new["inputs"])) == (FIRST, len(files))

    # both jobs say so
    assert (show(server, old["id"])["superseded_by"], show(server, new["id"])["supersedes"]) == (new["id"], [old["id"]])
    assert f"job {new['id']} takes its place" in server.limner("jobs", "show", old["id"]).stdout
    assert f"takes the place of job {old['id']}" in server.limner("jobs", "show", new["id"]).stdout
    superseded = [one["detail"] for one in server.audit_events() if one["event"] == "JOB_SUPERSEDED"]
    assert [(one["job_id"], one["superseded_by"]) for one in superseded] == [(old["id"], new["id"])]

    # and so does the object at the archive, which is another one beside the first
    orthanc.wait_for_series(3, Modality="SEG")
    found = orthanc.find("Instance", StudyInstanceUID=study, Modality="SEG")
    assert len(found) == 2
    objects = {}
    for number, one in enumerate(found):
        path = orthanc.download(one["ID"], folder / f"seg{number}.dcm")
        objects[str(pydicom.dcmread(path).SOPInstanceUID)] = path
    first, second = (objects[job["results"][0]["sop_instance_uid"]] for job in (old, new))
    replaced, replacing = pydicom.dcmread(first), pydicom.dcmread(second)
    assert "RelatedSeriesSequence" not in replaced
    assert not replaced.SeriesDescription.startswith("AI, replaces earlier: ")
    assert [one.SeriesInstanceUID for one in replacing.RelatedSeriesSequence] == [replaced.SeriesInstanceUID]
    assert replacing.SeriesDescription.startswith("AI, replaces earlier: ")
    assert replacing.ContentDescription.startswith("AI, replaces earlier: ")
    assert judges.run_dciodvfy(second) == []
    assert judges.run_dcentvfy([*files, second]) == ""
