"""A real abdominal MR as DICOM: the example MR of the package that the abdominal CT comes from (`tests.data`).

The package holds the voxels and where they lie, as NIfTI, and nothing of the scanner's header; what an MR Image (PS3.3
A.4) must say besides is made up here, always the same.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

import abdominal_ct
from tests.data import CACHE

_MEMBER = "totalsegmentator-2.18.0/tests/reference_files/example_mr_sm.nii.gz"
_HEADER: dict[str, object] = {
    "SpecificCharacterSet": "ISO_IR 100",
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "SE"],
    "SOPClassUID": MRImageStorage,
    "StudyDate": "20240305",
    "SeriesDate": "20240305",
    "ContentDate": "20240305",
    "StudyTime": "101112",
    "SeriesTime": "101300",
    "ContentTime": "101500",
    "AccessionNumber": "MR0001",
    "Modality": "MR",
    "Manufacturer": "Example",
    "ReferringPhysicianName": "",
    "StudyDescription": "Example abdominal MR",
    "SeriesDescription": "axial",
    "PatientName": "Limner^Resonance",
    "PatientID": "LIMNER-MR-1",
    "PatientBirthDate": "",
    "PatientSex": "O",
    "BodyPartExamined": "ABDOMEN",
    "ScanningSequence": "SE",
    "SequenceVariant": "NONE",
    "ScanOptions": "",
    "MRAcquisitionType": "2D",
    "RepetitionTime": "500",
    "EchoTime": "10",
    "EchoTrainLength": "1",
    "MagneticFieldStrength": "1.5",
    "PatientPosition": "HFS",
    "StudyID": "1",
    "SeriesNumber": 2,
    "AcquisitionNumber": 1,
    "PositionReferenceIndicator": "",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 1,
}


def datasets() -> list[Dataset]:
    """The series: 20 axial slices of 91 rows and 117 columns, 3 mm apart, from the feet to the head."""
    image = SimpleITK.ReadImage(str(_fetch(CACHE)))
    voxels = SimpleITK.GetArrayFromImage(image)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    columns, rows, slices = np.array(image.GetSpacing())
    origin = np.array(image.GetOrigin())
    return [
        _slice(
            index,
            voxels[index],
            ImagePositionPatient=_decimals(origin + index * slices * direction[:, 2]),
            ImageOrientationPatient=_decimals(direction[:, :2].T.reshape(-1)),
            PixelSpacing=_decimals(np.array([rows, columns])),
            SliceThickness=f"{slices:g}",
            SpacingBetweenSlices=f"{slices:g}",
        )
        for index in range(len(voxels))
    ]


def _slice(index: int, voxels: NDArray[np.int16], **place: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in {**_HEADER, **place}.items():
        setattr(dataset, keyword, value)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _uid("study"), _uid("series")
    dataset.FrameOfReferenceUID, dataset.SOPInstanceUID = _uid("frame of reference"), _uid("instance", index)
    dataset.InstanceNumber = index + 1
    dataset.Rows, dataset.Columns = voxels.shape
    dataset.PixelData = voxels.astype("<i2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
    return dataset


def _decimals(numbers: NDArray[np.float64]) -> list[str]:
    """As Decimal Strings, 16 characters at most (PS3.5 section 6.2)."""
    return [f"{number:.13g}"[:16] for number in numbers]


def _uid(*facts: object) -> str:
    return pydicom.uid.generate_uid(entropy_srcs=["limner real mr", *map(str, facts)])


def _fetch(cache: Path) -> Path:
    """The file as published, downloaded once."""
    target = cache / "abdominal_mr" / "example_mr_sm.nii.gz"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="abdominal_mr-") as scratch:
            part = Path(scratch) / "part.nii.gz"
            with tarfile.open(abdominal_ct.download(Path(scratch))) as package, part.open("wb") as file:
                stream = package.extractfile(_MEMBER)
                assert stream is not None
                shutil.copyfileobj(stream, file)
            part.replace(target)
    return target
