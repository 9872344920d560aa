"""Synthetic CT series whose geometry and voxel values are known: any orientation, spacing, order, encoding and defect.

The value of a voxel depends on where it lies in the patient and on nothing else, so that a reader's array and affine
can be held against the truth together: `value_at(positions)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (
    *(float(number) for number in np.round((np.cos(0.4), np.sin(0.4), 0.0), 6)),
    *(float(number) for number in np.round((-np.sin(0.4) * np.cos(0.3), np.cos(0.4) * np.cos(0.3), np.sin(0.3)), 6)),
)
PRONE = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
FEET_FIRST = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
ORIENTATIONS = {
    "axial": AXIAL,
    "coronal": CORONAL,
    "sagittal": SAGITTAL,
    "oblique": OBLIQUE,
    "prone": PRONE,
    "feet-first": FEET_FIRST,
}

_GRADIENT = np.array([3.0, -5.0, 7.0])
"""Hounsfield units per mm along x, y, z."""

Edit = Callable[[int, Dataset], "Dataset | None"]
"""Given the slice's index and data set, returns what is written in its place; None to leave it out."""


def value_at(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """The truth: Hounsfield units at positions (…, 3) in patient coordinates, mm, not rounded."""
    values: NDArray[np.float64] = positions @ _GRADIENT + 40.0
    return values


@dataclass(frozen=True)
class Phantom:
    """One series to write. Lengths are mm."""

    slices: int = 6
    rows: int = 10
    columns: int = 14
    row_spacing: float = 0.8
    """Between neighbouring rows: the first number of Pixel Spacing."""
    column_spacing: float = 0.5
    slice_spacing: float = 2.5
    orientation: tuple[float, ...] = AXIAL
    origin: tuple[float, float, float] = (-20.0, -15.0, 30.0)
    against_normal: bool = False
    """Whether slices, by Instance Number, run against the cross product of row and column direction."""
    signed: bool = True
    slopes: tuple[float, ...] = (1.0,)
    """Rescale slopes, used in turn from slice to slice."""
    intercepts: tuple[float, ...] = (-1024.0,)
    character_set: str | list[str] | None = "ISO_IR 100"
    patient_name: str = "Phantom^Limner"
    patient_id: str = "PHANTOM-1"
    series_description: str = "phantom"
    seed: int = 0
    """Study, series, instance and frame of reference UIDs derive from it."""
    series: str = ""
    """Series and instance UIDs derive from it too: other series of the same study, patient and frame of reference."""
    frame_of_reference: bool = True

    @property
    def axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Steps in patient coordinates to the next slice, row and column."""
        along_row, along_column = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        normal = np.cross(along_row, along_column)
        step = -self.slice_spacing if self.against_normal else self.slice_spacing
        return normal * step, along_column * self.row_spacing, along_row * self.column_spacing

    def position(self, index: int) -> NDArray[np.float64]:
        """Centre of the first pixel of a slice."""
        return np.array(self.origin) + index * self.axes[0]

    def slice_positions(self, index: int) -> NDArray[np.float64]:
        """Centres of the pixels of a slice, (row, column, 3)."""
        _, down, right = self.axes
        rows, columns = np.arange(self.rows), np.arange(self.columns)
        return self.position(index) + rows[:, None, None] * down + columns[None, :, None] * right

    def uid(self, *facts: object) -> str:
        """A UID that is the same each time."""
        return pydicom.uid.generate_uid(entropy_srcs=["limner phantom", str(self.seed), *map(str, facts)])

    def dataset(self, index: int) -> Dataset:
        """One slice."""
        dataset = Dataset()
        if self.character_set is not None:
            dataset.SpecificCharacterSet = self.character_set
        for keyword, value in self._attributes(index).items():
            setattr(dataset, keyword, value)
        if self.frame_of_reference:
            dataset.FrameOfReferenceUID = self.uid("frame of reference")
            dataset.PositionReferenceIndicator = ""
        slope = self.slopes[index % len(self.slopes)]
        intercept = self.intercepts[index % len(self.intercepts)]
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = f"{slope:g}", f"{intercept:g}", "HU"
        stored = np.rint((value_at(self.slice_positions(index)) - intercept) / slope)
        dataset.PixelData = stored.astype(np.int16 if self.signed else np.uint16).tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
        return dataset

    def _attributes(self, index: int) -> dict[str, object]:
        return {
            "SOPClassUID": CTImageStorage,
            "SOPInstanceUID": self.uid("instance", index, self.series),
            "StudyInstanceUID": self.uid("study"),
            "SeriesInstanceUID": self.uid("series", self.series),
            "PatientName": self.patient_name,
            "PatientID": self.patient_id,
            "PatientBirthDate": "19600102",
            "PatientSex": "O",
            "StudyDate": "20240305",
            "StudyTime": "101112",
            "SeriesDate": "20240305",
            "SeriesTime": "101300",
            "AcquisitionDate": "20240305",
            "AcquisitionTime": "101400",
            "ContentDate": "20240305",
            "ContentTime": "101500",
            "AccessionNumber": "A1",
            "StudyID": "1",
            "ReferringPhysicianName": "",
            "StudyDescription": "Phantom",
            "SeriesDescription": self.series_description,
            "SeriesNumber": 3,
            "AcquisitionNumber": 1,
            "InstanceNumber": index + 1,
            "Modality": "CT",
            "Manufacturer": "Phantoms",
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "KVP": "120",
            "PatientPosition": "HFS",
            "ImagePositionPatient": [f"{number:.6f}" for number in self.position(index)],
            "ImageOrientationPatient": [f"{number:.6f}" for number in self.orientation],
            "PixelSpacing": [f"{self.row_spacing:g}", f"{self.column_spacing:g}"],
            "SliceThickness": f"{self.slice_spacing:g}",
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": self.rows,
            "Columns": self.columns,
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": int(self.signed),
        }

    def write(self, folder: Path, *, edit: Edit | None = None, syntax: UID | None = None) -> list[Path]:
        """Write one file a slice, named so that their alphabetical order is not the slices'; return them so sorted.

        `syntax` compresses the pixel data after `edit`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for index in range(self.slices):
            dataset: Dataset | None = self.dataset(index)
            assert dataset is not None
            dataset = edit(index, dataset) if edit is not None else dataset
            if dataset is None:
                continue
            if syntax is not None:
                dataset.compress(syntax, generate_instance_uid=False)
            path = folder / f"{self.uid('file', index)[-8:]}-{index}.dcm"
            dataset.save_as(path, enforce_file_format=True)
            paths.append(path)
        return sorted(paths)


def setting(**attributes: object) -> Edit:
    """An edit that sets attributes in every slice; None deletes one."""
    return at(None, **attributes)


def at(indices: Sequence[int] | int | None, **attributes: object) -> Edit:
    """An edit that sets attributes in some slices (None: all); a value of None deletes the attribute."""
    chosen = [indices] if isinstance(indices, int) else indices

    def edit(index: int, dataset: Dataset) -> Dataset:
        if chosen is not None and index not in chosen:
            return dataset
        for keyword, value in attributes.items():
            if value is not None:
                setattr(dataset, keyword, value)
            elif keyword in dataset:
                delattr(dataset, keyword)
        return dataset

    return edit


def without(*indices: int) -> Edit:
    """An edit that leaves slices out."""
    return lambda index, dataset: None if index in indices else dataset


def write_phantom_series(folder: Path, *, series_description: str = "phantom", seed: int = 0) -> list[Path]:
    """Write a small axial CT of a body with air around it, cheap to segment; return its files."""
    phantom = Phantom(
        slices=12,
        rows=64,
        columns=80,
        row_spacing=2.65,
        column_spacing=2.65,
        slice_spacing=3.0,
        origin=(-104.675, -83.475, 0.0),
        series_description=series_description,
        seed=seed,
    )
    return phantom.write(folder, edit=_with_body(phantom))


def _with_body(phantom: Phantom) -> Edit:
    """Soft tissue in air, with a brighter organ at the patient's right (smaller x)."""

    def edit(index: int, dataset: Dataset) -> Dataset:
        place = phantom.slice_positions(index)
        x, y = place[..., 0], place[..., 1]
        noise = np.random.default_rng([phantom.seed, index]).normal(0, 8, x.shape)
        values = np.where((x / 105) ** 2 + (y / 80) ** 2 < 1, 40.0, -1000.0)
        values = np.where(((x + 45) / 40) ** 2 + ((y + 10) / 45) ** 2 < 1, 110.0, values) + noise
        dataset.PixelData = np.rint(values + 1024).astype(np.int16).tobytes()
        return dataset

    return edit


def variants(phantom: Phantom) -> dict[str, Phantom]:
    """The same series in every orientation, and with its slices counted the other way."""
    turned = {name: replace(phantom, orientation=orientation) for name, orientation in ORIENTATIONS.items()}
    return turned | {f"{name}-against-normal": replace(one, against_normal=True) for name, one in turned.items()}
