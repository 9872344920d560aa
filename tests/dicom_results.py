"""Planted results that are real DICOM objects, small and quick to make, for tests of what becomes of results."""

from __future__ import annotations

import hashlib
import secrets
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.uid
from pydicom.filereader import read_partial

from app.delivery.storage import DimseDestination
from app.graph import CompletionRecord, FindingRecord, GraphRequest, Role
from app.identifiers import UID, derive_uid
from app.jobs.verification import VerifiedObject
from tests.job_harness import Bench, PlantedGraph, bench, planted_finding
from tests.phantom import Phantom
from tests.segmented_phantom import write_segmented

ARCHIVE = "archive"


class DicomGraph(PlantedGraph):
    """Writes one Segmentation a job, with other pixels in each run: no two runs of a real model give the same bytes."""

    def _found(self, request: GraphRequest, role: Role) -> FindingRecord:
        segmentation = pydicom.dcmread(BytesIO(_segmentation()))
        uid = pydicom.uid.UID(derive_uid("object", request.identity))
        segmentation.SOPInstanceUID = segmentation.file_meta.MediaStorageSOPInstanceUID = uid
        segmentation.SeriesInstanceUID = derive_uid("series", request.identity)
        segmentation.StudyInstanceUID = derive_uid("study", "1")
        segmentation.PixelData = np.random.default_rng().bytes(len(segmentation.PixelData))
        segmentation.ContentDescription = secrets.token_hex(8)  # so that a peer that reads attributes sees it too
        segmentation.save_as(request.output_folder / f"{role}-segmentation.dcm", enforce_file_format=True)
        return planted_finding(role, request.kinds)


@cache
def _segmentation() -> bytes:
    """A Segmentation as the operators write one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "segmentation.dcm"
        write_segmented(Phantom().write(Path(folder) / "series"), path)
        return path.read_bytes()


def read_back(record: CompletionRecord, folder: Path, source_files: Sequence[Path]) -> tuple[VerifiedObject, ...]:
    """Stand in for `verify_results`."""
    return tuple(_read(folder / one.file, finding.role) for finding in record.findings for one in finding.objects)


def _read(path: Path, role: Role) -> VerifiedObject:
    image = pydicom.dcmread(path, stop_before_pixels=True)
    return VerifiedObject(
        path=path,
        kind="segmentation",
        role=role,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        sop_class_uid=UID(str(image.SOPClassUID)),
        sop_instance_uid=UID(str(image.SOPInstanceUID)),
        series_instance_uid=UID(str(image.SeriesInstanceUID)),
        transfer_syntax_uid=UID(str(image.file_meta.TransferSyntaxUID)),
    )


def delivering_bench(
    folder: Path, url: str, host: str, port: int, ae_title: str, **destination: Any
) -> AbstractContextManager[Bench]:
    """A bench whose one destination, `ARCHIVE`, is a real storage SCP."""
    options = {"host": host, "port": port, "ae_title": ae_title, "timeout_seconds": 5, **destination}
    return bench(
        folder, url, graph=DicomGraph(), verify=read_back, rule={"destinations": (ARCHIVE,)}, destination=options
    )


def connect(made: Bench, listener_ae_title: str = "LIMNER") -> None:
    """Let the bench send to the destination that its settings name."""
    settings = made.settings.destination_named(ARCHIVE)
    made.destinations[ARCHIVE] = DimseDestination(settings, listener_ae_title, listener_ae_title)


def same_object(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes behind their File Meta Information: a receiver writes its own."""
    (syntax, content), (other_syntax, other_content) = _content(one), _content(other)
    return syntax == other_syntax and content == other_content


def _content(path: Path) -> tuple[str, bytes]:
    """The transfer syntax of a file, and its encoded data set."""
    with path.open("rb") as file:
        meta = read_partial(file, stop_when=lambda tag, vr, length: tag.group > 2).file_meta
        file.seek(0)
        whole = file.read()
    # preamble and prefix, the element that says how long the rest of the group is, and that rest (PS3.10 section 7.1)
    return str(meta.TransferSyntaxUID), whole[132 + 12 + meta.FileMetaInformationGroupLength :]
