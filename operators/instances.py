"""Reading the header of one instance: all before its pixel data, and whether those are there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Literal

import pydicom
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from operators.errors import SeriesRefused
from operators.headers import before_pixels
from operators.parse_errors import PARSE_ERRORS
from operators.pixel_decoders import decoder_for

MULTI_FRAME_SOP_CLASSES: Mapping[UID, UID] = {
    EnhancedCTImageStorage: CTImageStorage,
    LegacyConvertedEnhancedCTImageStorage: CTImageStorage,
    EnhancedMRImageStorage: MRImageStorage,
    LegacyConvertedEnhancedMRImageStorage: MRImageStorage,
    EnhancedPETImageStorage: PositronEmissionTomographyImageStorage,
    LegacyConvertedEnhancedPETImageStorage: PositronEmissionTomographyImageStorage,
}
"""Images of many frames that lie in the patient, and the single-frame class of the same modality (PS3.4 annex B.5)."""
IMAGE_SOP_CLASSES = (
    *(CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage),
    *MULTI_FRAME_SOP_CLASSES,
)
"""What can become a volume."""
_USED_KEYWORDS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber"),
    *("StudyID", "ReferringPhysicianName", "SeriesNumber", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel"),
    *("PhotometricInterpretation", "BitsAllocated", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("RescaleSlope", "RescaleIntercept", "SliceThickness", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("PixelPresentation", "ConcatenationUID", "InConcatenationNumber", "InConcatenationTotalNumber"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
"""What is asked of a header. pydicom parses a value only when it is asked for it, and here is where that may fail."""
_UNDEFINED_LENGTH = 0xFFFFFFFF
_MOST_PADDING = 2
"""Bytes after the pixels, beyond the one that makes their length even, that are padding and no pixels."""


def read_header(path: Path) -> pydicom.Dataset:
    """Return the data set before its pixel data (PS3.10 section 7), very long values but those used here left unread.

    Raises
    ------
    SeriesRefused
        ``unreadable-instance`` if the file is not DICOM, ends before or in its pixel data, or has more of them than
        its header describes; ``no-images`` if it is no image; ``transfer-syntax-unsupported`` if nothing here decodes
        its pixels.
    """
    try:
        dataset, there = _before_pixels(path)
        for keyword in _USED_KEYWORDS:
            dataset.get(keyword)
    except (OSError, *PARSE_ERRORS) as error:
        raise unreadable("it is not a DICOM file, or its header is damaged") from error
    if there is None:
        if "Rows" in dataset or dataset.get("SOPClassUID") in (None, *IMAGE_SOP_CLASSES):
            raise unreadable("the file ends before its pixel data")
        raise SeriesRefused(
            "expected a series of images, got instances without pixel data; route only image series here",
            code="no-images",
        )
    _check_length(dataset, there)
    return dataset


def frame_count(header: pydicom.Dataset) -> int:
    """Return Number of Frames; 1 if it is absent, empty or 0, as in single-frame images.

    Raises
    ------
    SeriesRefused
        ``unreadable-instance`` if it is no number above 0.
    """
    try:
        found = int(header.get("NumberOfFrames") or 1)
    except (ValueError, TypeError) as error:
        raise unreadable("its number of frames is none") from error
    if found < 1:
        raise unreadable("its number of frames is none")
    return found


def unreadable(why: str) -> SeriesRefused:
    """Return the refusal of an instance that can't be read."""
    return SeriesRefused(f"an instance of the series can't be read: {why}; send it again", code="unreadable-instance")


def _before_pixels(path: Path) -> tuple[pydicom.Dataset, int | None]:
    """The header, and how many bytes of pixel data there are; None if there are none."""
    with path.open("rb") as file:
        dataset = before_pixels(file)
        decoder_for(dataset.file_meta.TransferSyntaxUID)
        there = _pixel_data_length(file, dataset)
    if dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        pixels = pydicom.dcmread(path).get("PixelData")  # inflated as a whole: the file's position says nothing
        there = None if pixels is None else len(pixels)
    return dataset, there


def _pixel_data_length(file: BinaryIO, dataset: pydicom.Dataset) -> int | None:
    """The bytes of the element at which `file` stands (PS3.5 section 7.1), or what is left where the file is cut off.

    All that follows of fragments counts as theirs: they are parsed when they are decoded.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    order: Literal["little", "big"] = "little" if syntax.is_little_endian else "big"
    header = file.read(8 if syntax.is_implicit_VR else 12)
    if not header:
        return None
    left = os.fstat(file.fileno()).st_size - file.tell()
    length = int.from_bytes(header[-4:], order)
    return left if length == _UNDEFINED_LENGTH else min(length, left)


def _check_length(dataset: pydicom.Dataset, there: int) -> None:
    """Refuse native pixel data of another length than the header describes: to cut off what is too much would hide it.

    Colour is refused elsewhere, and can have less than a sample of each colour for each pixel.
    """
    needed = _native_length(dataset)
    if needed is None:
        return
    samples = dataset.get("SamplesPerPixel")
    most = needed * (samples if isinstance(samples, int) else 1)
    if there < needed or there > most + most % 2 + _MOST_PADDING:
        raise unreadable(f"expected {needed} bytes of pixel data, as its header describes, got {there}")


def _native_length(dataset: pydicom.Dataset) -> int | None:
    """The bytes that native pixel data of one sample a pixel have (PS3.5 section 8.1.1).

    None if they are compressed or nothing says so.
    """
    size = [dataset.get(keyword) for keyword in ("Rows", "Columns", "BitsAllocated")]
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated or not all(isinstance(one, int) for one in size):
        return None
    rows, columns, bits = map(int, size)
    return -(-rows * columns * bits * frame_count(dataset) // 8)
