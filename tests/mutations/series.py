"""The clean series that is damaged, as data sets, and the volume that it is, found without the code under test."""

from __future__ import annotations

import functools
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID

from tests import data, real_mr

Modality = Literal["CT", "MR"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

Array = NDArray[Any]


@dataclass(frozen=True)
class Placed:
    """Voxels and where they lie."""

    array: NDArray[np.float64]
    """Axes slice, row, column; rescaled."""
    affine: NDArray[np.float64] | None
    """From (slice, row, column) to patient coordinates, LPS, mm; None of a reader that does not say."""


def clean_series(modality: Modality) -> list[Dataset]:
    """The real series, uncompressed (Explicit VR Little Endian), by Instance Number; the caller's own copies."""
    return [pydicom.dcmread(io.BytesIO(content)) for content in clean_files(modality)]


@functools.cache
def clean_files(modality: Modality) -> tuple[bytes, ...]:
    """The same as files."""
    datasets = real_mr.datasets() if modality == "MR" else published_ct()
    for dataset in datasets:
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            dataset.decompress(generate_instance_uid=False)
    return tuple(encoded(dataset) for dataset in datasets)


@functools.cache
def clean_volume(modality: Modality) -> Placed:
    """The volume that it is."""
    return truth_of(clean_series(modality))


def published_ct() -> list[Dataset]:
    """The CT as published, identifiers filled in: JPEG 2000 lossless."""
    with tempfile.TemporaryDirectory() as folder:
        files = data.abdominal_ct_series(Path(folder))
        return [pydicom.dcmread(io.BytesIO(path.read_bytes())) for path in files]


def truth_of(datasets: Sequence[Dataset]) -> Placed:
    """The volume of an undamaged series: rescaled values, sorted along the normal, placed by PS3.3 C.7.6.2.1.1."""
    orientation = np.array(datasets[0].ImageOrientationPatient, dtype=float)
    along_row, along_column = orientation[:3], orientation[3:]
    normal = np.cross(along_row, along_column)
    positions = [np.array(dataset.ImagePositionPatient, dtype=float) for dataset in datasets]
    order = sorted(range(len(datasets)), key=lambda index: float(positions[index] @ normal))
    first, last = positions[order[0]], positions[order[-1]]
    row_spacing, column_spacing = map(float, datasets[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = (last - first) / (len(datasets) - 1)
    affine[:3, 1] = along_column * row_spacing
    affine[:3, 2] = along_row * column_spacing
    affine[:3, 3] = first
    return Placed(np.stack([rescaled(datasets[index]) for index in order]), affine)


def rescaled(dataset: Dataset) -> NDArray[np.float64]:
    """Values of one slice: Hounsfield units of the CT, the stored ones where nothing else is said."""
    return stored(dataset) * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))


def stored(dataset: Dataset) -> NDArray[np.float64]:
    """The stored values of one slice."""
    return np.asarray(dataset.pixel_array, dtype=np.float64)


def store(dataset: Dataset, values: Array, *, bits: int = 16, signed: bool = True) -> None:
    """Put stored values into a slice, 16 bits allocated, little endian; matrix and bits are set to fit."""
    dataset.Rows, dataset.Columns = values.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    for keyword in ("SmallestImagePixelValue", "LargestImagePixelValue"):
        dataset.pop(keyword, None)
    mask = (1 << bits) - 1
    words = np.rint(values).astype(np.int64) & (0xFFFF if signed and bits == 16 else mask)
    dataset.PixelData = words.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def restore(dataset: Dataset, values: Array) -> None:
    """Put other stored values into a slice, of as many bits as it has and signed as it is."""
    store(dataset, values, bits=int(dataset.BitsStored), signed=bool(dataset.PixelRepresentation))


def renamed(dataset: Dataset, *facts: object) -> Dataset:
    """The instance with another SOP Instance UID."""
    uid = pydicom.uid.generate_uid(entropy_srcs=["limner mutations", str(dataset.SOPInstanceUID), *map(str, facts)])
    dataset.SOPInstanceUID = uid
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    return dataset


def encoded(dataset: Dataset) -> bytes:
    """The instance as a file (PS3.10)."""
    target = io.BytesIO()
    dataset.save_as(target, enforce_file_format=True)
    return target.getvalue()
