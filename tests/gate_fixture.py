"""What gets into series without being slices of them, made of the phantom it got into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, SecondaryCaptureImageStorage

from tests.phantom import Edit, Phantom


def headers_of(phantom: Phantom, edit: Edit | None = None) -> list[Dataset]:
    """The slices' data sets, edited, without pixel data."""
    made = []
    for index in range(phantom.slices):
        dataset: Dataset | None = phantom.dataset(index)
        assert dataset is not None
        dataset = edit(index, dataset) if edit is not None else dataset
        if dataset is not None:
            del dataset.PixelData
            made.append(dataset)
    return made


def renamed(dataset: Dataset, *facts: object) -> Dataset:
    """The same under a SOP Instance UID of its own."""
    uid = pydicom.uid.generate_uid(entropy_srcs=["limner gate", *map(str, facts)])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    return dataset


def localizer(phantom: Phantom, number: int = 0, *, named: bool = True) -> Dataset:
    """An image at a right angle to the phantom's slices, larger than they are, through the middle of them."""
    dataset = renamed(phantom.dataset(0), "localizer", number)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER" if named else "AXIAL"]
    normal = np.cross(phantom.orientation[:3], phantom.orientation[3:])
    dataset.ImageOrientationPatient = [f"{one:.6f}" for one in (*phantom.orientation[:3], *normal)]
    start = phantom.slice_positions(0)[phantom.rows // 2, 0] + 7.0 * normal
    dataset.ImagePositionPatient = [f"{one:.6f}" for one in start]
    dataset.Rows, dataset.Columns = phantom.rows + 5, phantom.columns + 3
    dataset.PixelSpacing = ["2", "3"]
    dataset.PixelData = bytes(2 * dataset.Rows * dataset.Columns)
    return dataset


def secondary_capture(phantom: Phantom) -> Dataset:
    """A colour screenshot that lies nowhere."""
    dataset = renamed(phantom.dataset(0), "secondary capture")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "RescaleSlope"):
        delattr(dataset, keyword)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.Rows, dataset.Columns = 7, 0, 4, 6
    dataset.PixelData = bytes(3 * 4 * 6)
    dataset["PixelData"].VR = "OB"
    return dataset


def later_phase(phantom: Phantom, index: int, number: int = 2) -> Dataset:
    """A slice as it looks in another acquisition: all values are 50 higher."""
    dataset = renamed(phantom.dataset(index), "phase", number, index)
    dataset.RescaleIntercept = f"{float(dataset.RescaleIntercept) + 50 * number:g}"
    dataset.AcquisitionNumber = number
    dataset.AcquisitionTime = f"1015{number:02d}"
    return dataset


def write_beside(folder: Path, datasets: Sequence[Dataset]) -> list[Path]:
    """Write data sets beside those of a series; return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, dataset in enumerate(datasets):
        files.append(folder / f"beside-{number}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files
