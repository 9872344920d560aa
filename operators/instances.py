"""Reading one instance: its header without pixel data, then its pixels straight into a slice of the volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom  # noqa: F401 - registers the JPEG-LS decoder with pydicom
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from operators.errors import SeriesRefused

IMAGE_SOP_CLASSES = (CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage)
"""What can become a volume: single-frame images that lie in the patient."""
_USED_KEYWORDS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber"),
    *("StudyID", "ReferringPhysicianName", "SeriesNumber", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel"),
    *("PhotometricInterpretation", "BitsAllocated", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("RescaleSlope", "RescaleIntercept", "SliceThickness"),
)
"""What is asked of a header. pydicom parses a value only when it is asked for it, and here is where that may fail."""
PARSE_ERRORS = (
    *(InvalidDicomError, BytesLengthException, EOFError),
    *(ValueError, TypeError, AttributeError, KeyError, RuntimeError),
)
"""What pydicom and its decoders raise at damaged data."""


def read_header(path: Path) -> pydicom.Dataset:
    """Return the data set before its pixel data (PS3.10 section 7).

    Raises
    ------
    SeriesRefused
        ``unreadable-instance`` if the file is not DICOM or ends before its pixel data; ``no-images`` if it is no
        image.
    """
    try:
        with path.open("rb") as file:
            dataset = pydicom.dcmread(file, stop_before_pixels=True)
            has_pixels = bool(file.read(1))
        if dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            has_pixels = "PixelData" in pydicom.dcmread(path)  # inflated as a whole: the file's position says nothing
        for keyword in _USED_KEYWORDS:
            dataset.get(keyword)
    except (OSError, *PARSE_ERRORS) as error:
        raise _unreadable("it is not a DICOM file, or its header is damaged") from error
    if has_pixels:
        return dataset
    if "Rows" in dataset or dataset.get("SOPClassUID") in (None, *IMAGE_SOP_CLASSES):
        raise _unreadable("the file ends before its pixel data")
    raise SeriesRefused(
        "expected a series of images, got instances without pixel data; route only image series here",
        code="no-images",
    )


def read_pixels(path: Path, target: NDArray[np.float32]) -> None:
    """Decode the pixels of `path` into `target` (row, column), rescaled by the instance's own slope and intercept.

    Stored values are signed or unsigned as the instance says. Rescaling is done in double precision, as other readers
    do, and rounded once.

    Raises
    ------
    SeriesRefused
        ``transfer-syntax-unsupported`` if no decoder is installed, ``unreadable-instance`` if decoding fails.
    """
    try:
        dataset = pydicom.dcmread(path)
        stored = _decoded(dataset)
    except SeriesRefused:
        raise
    except (OSError, *PARSE_ERRORS) as error:
        raise _unreadable("its pixel data is cut off or can't be decoded") from error
    if stored.shape != target.shape:
        raise _unreadable("its pixel data has another size than its header says")
    slope, intercept = rescale(dataset) or (1.0, 0.0)
    target[...] = stored.astype(np.float64) * slope + intercept


def rescale(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    """Return Rescale Slope and Intercept (PS3.3 C.11.1), or None if there is no pair that can be used."""
    try:
        slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    except (AttributeError, TypeError, ValueError):
        return None
    usable = np.isfinite(slope) and np.isfinite(intercept) and slope != 0
    return (slope, intercept) if usable else None


def _decoded(dataset: pydicom.Dataset) -> NDArray[Any]:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and not get_decoder(syntax).is_available:
        raise SeriesRefused(
            f"the pixel data is compressed as {syntax.name}, for which no decoder is installed; "
            "send it uncompressed or as JPEG-LS, JPEG 2000, RLE or baseline JPEG",
            code="transfer-syntax-unsupported",
        )
    _check_length(dataset, syntax.is_encapsulated)
    return np.asarray(dataset.pixel_array)


def _check_length(dataset: pydicom.Dataset, encapsulated: bool) -> None:
    """A file that ends inside native pixel data is still parsed; its value is only shorter than it should be."""
    expected = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8
    if not encapsulated and len(dataset.PixelData) < expected:
        raise _unreadable(f"expected {expected} bytes of pixel data, got {len(dataset.PixelData)}")


def _unreadable(why: str) -> SeriesRefused:
    return SeriesRefused(f"an instance of the series can't be read: {why}; send it again", code="unreadable-instance")
