"""The same values in another encoding (PS3.5): whatever a modality or an archive made of them, they are the same."""

from __future__ import annotations

import highdicom.legacy
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from tests.mutations.kind import Series, harmful, harmless, repairable
from tests.mutations.kinds.editing import MIDDLE, brighter, copies, some
from tests.mutations.series import renamed, rescaled, store

_FEW = (0, 7, 8, 19)
"""Compressing in Python takes long: some of the slices are enough, and make a series of mixed encodings."""


def _in_syntax(series: Series, syntax: UID) -> Series:
    for dataset in series:
        dataset.file_meta.TransferSyntaxUID = syntax
    return series


@harmless()
def implicit_little_endian(series: Series) -> Series:
    """Implicit VR Little Endian."""
    return _in_syntax(series, ImplicitVRLittleEndian)


@harmless()
def big_endian(series: Series) -> Series:
    """Explicit VR Big Endian, retired and still in archives."""
    turned = []
    for dataset in series:
        turned.append(Dataset({element.tag: element for element in dataset}))  # parsed: bytes would stay as they are
        turned[-1].PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        turned[-1].file_meta = dataset.file_meta
    return _in_syntax(turned, ExplicitVRBigEndian)


@harmless()
def deflated(series: Series) -> Series:
    """Deflated Explicit VR Little Endian."""
    return _in_syntax(series, DeflatedExplicitVRLittleEndian)


def _compressed(series: Series, syntax: UID) -> Series:
    for index in _FEW:
        series[index].compress(syntax, generate_instance_uid=False)
    return series


@harmless()
def rle_among_uncompressed(series: Series) -> Series:
    """Some slices in RLE Lossless, the others uncompressed."""
    return _compressed(series, RLELossless)


@harmless()
def jpeg_ls_among_uncompressed(series: Series) -> Series:
    """Some slices in JPEG-LS Lossless, the others uncompressed."""
    return _compressed(series, JPEGLSLossless)


@harmless()
def jpeg_2000_among_uncompressed(series: Series) -> Series:
    """Some slices in JPEG 2000 lossless, the others uncompressed."""
    return _compressed(series, JPEG2000Lossless)


@harmless()
def signed_and_unsigned(series: Series) -> Series:
    """Every second slice with unsigned stored values, the others signed, with the intercepts that belong to them."""
    for index, dataset in enumerate(series):
        values = rescaled(dataset)
        lift = 1024 if index % 2 else 0
        store(dataset, values + lift, signed=not lift)
        dataset.RescaleSlope, dataset.RescaleIntercept = "1", f"{-lift}"
    return series


@harmless()
def a_slope_for_each_slice(series: Series) -> Series:
    """Every slice with a rescale slope of its own, as scaled MR and PET have."""
    for index, dataset in enumerate(series):
        slope = (1.0, 0.5, 0.25)[index % 3]
        store(dataset, rescaled(dataset) / slope)
        dataset.RescaleSlope, dataset.RescaleIntercept = f"{slope:g}", "0"
    return series


@harmless()
def overlay_in_unused_bits(series: Series) -> Series:
    """12 bits stored of 16 allocated, and an overlay in the bits above, as scanners used to send."""
    for dataset in series:
        values = rescaled(dataset) + 1024
        store(dataset, values, bits=12, signed=False)
        words = np.frombuffer(dataset.PixelData, "<u2").reshape(values.shape).copy()
        words[::2] |= 0x1000
        words[:, ::3] |= 0x8000
        dataset.PixelData = words.tobytes()
        dataset.RescaleSlope, dataset.RescaleIntercept = "1", "-1024"
    return series


@repairable("not-monochrome2")
def monochrome1(series: Series) -> Series:
    """MONOCHROME1: shown inverted; the values are what they are (PS3.3 C.7.6.3.1.2)."""
    return some(series, range(len(series)), PhotometricInterpretation="MONOCHROME1")


@repairable("not-monochrome2")
def one_slice_monochrome1(series: Series) -> Series:
    """One slice only in MONOCHROME1."""
    return some(series, [4], PhotometricInterpretation="MONOCHROME1")


@repairable("multi-frame-unsupported")
def enhanced_multi_frame(series: Series) -> Series:
    """The whole series as one Legacy Converted Enhanced instance."""
    is_ct = series[0].Modality == "CT"
    legacy = highdicom.legacy
    converted = legacy.LegacyConvertedEnhancedCTImage if is_ct else legacy.LegacyConvertedEnhancedMRImage
    return [
        converted(
            legacy_datasets=series,
            series_instance_uid=generate_uid(entropy_srcs=["limner mutations", "enhanced", "series"]),
            series_number=3,
            sop_instance_uid=generate_uid(entropy_srcs=["limner mutations", "enhanced", "instance"]),
            instance_number=1,
        )
    ]


@harmful("multi-frame-unsupported", "slice-missing")
def enhanced_multi_frame_with_a_gap(series: Series) -> Series:
    """The whole series but one slice as one Legacy Converted Enhanced instance."""
    made: Series = enhanced_multi_frame(series[:9] + series[10:])
    return made


@harmful("duplicate-position")
def enhanced_multi_frame_of_two_phases(series: Series) -> Series:
    """Two phases of contrast at the same places as the frames of one Legacy Converted Enhanced instance."""
    made: Series = enhanced_multi_frame([*series, *(renamed(brighter(one), "late") for one in copies(series))])
    return made


@repairable("duplicate-slice")
def enhanced_multi_frame_with_a_frame_twice(series: Series) -> Series:
    """The whole series as one Legacy Converted Enhanced instance, with one frame twice."""
    made: Series = enhanced_multi_frame([*series, renamed(copies(series)[MIDDLE], "again")])
    return made


@harmful("transfer-syntax-unsupported", "unreadable-instance")
def one_codec_called_another(series: Series) -> Series:
    """Pixel data of one compression (RLE) under the transfer syntax of another (JPEG Lossless)."""
    for index in _FEW:
        series[index].compress(RLELossless, generate_instance_uid=False)
        series[index].file_meta.TransferSyntaxUID = JPEGLosslessSV1
    return series
