"""Stored values become the modality's: sign, unused bits, padding, MONOCHROME1; and frames one at a time."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RLELossless,
)

from operators.instances import read_header
from operators.pixels import CT_NOTHING, read_pixels
from operators.series_volume import read_series
from operators.slices import slices_of
from tests.multi_frame import write_enhanced
from tests.phantom import Edit, Phantom, at, setting

PHANTOM = Phantom(slices=3)
EXPLICIT = None


def _native(syntax: UID | None) -> Edit:
    def edit(index: int, dataset: Dataset) -> Dataset:
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, np.uint16).byteswap().tobytes()
        if syntax is not None:
            dataset.file_meta.TransferSyntaxUID = syntax
        return dataset

    return edit


def _both(first: Edit, second: Edit) -> Edit:
    def edit(index: int, dataset: Dataset) -> Dataset | None:
        found = first(index, dataset)
        return None if found is None else second(index, found)

    return edit


def test_signed_and_unsigned_slices_in_one_series(tmp_path: Path) -> None:
    def edit(index: int, dataset: Dataset) -> Dataset:
        if index % 2:  # the same Hounsfield units, stored unsigned with an intercept
            stored = np.frombuffer(dataset.PixelData, np.int16).astype(np.int32) + 1024
            dataset.PixelData = stored.astype(np.uint16).tobytes()
            dataset.PixelRepresentation, dataset.RescaleIntercept = 0, "-1024"
        return dataset

    phantom = replace(PHANTOM, intercepts=(0.0,), origin=(-20.0, -15.0, -60.0))
    expected = read_series(phantom.write(tmp_path / "signed")).volume.array
    assert expected.min() < -100
    assert np.array_equal(read_series(phantom.write(tmp_path / "mixed", edit=edit)).volume.array, expected)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [EXPLICIT, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_bits_that_are_not_stored_are_ignored(syntax: UID | None, signed: bool, tmp_path: Path) -> None:
    intercept = 0.0 if signed else -1024.0
    phantom = replace(PHANTOM, signed=signed, intercepts=(intercept,), origin=(-20.0, -15.0, -60.0))

    def garbage(index: int, dataset: Dataset) -> Dataset:
        stored = np.frombuffer(dataset.PixelData, np.uint16) & 0xFFF
        dataset.PixelData = (stored | (np.arange(stored.size) % 16 << 12)).astype(np.uint16).tobytes()
        dataset.BitsStored, dataset.HighBit = 12, 11
        return dataset

    expected = read_series(phantom.write(tmp_path / "clean")).volume.array
    found = read_series(phantom.write(tmp_path / "garbage", edit=_both(garbage, _native(syntax))))
    assert np.array_equal(found.volume.array, expected)
    assert [note.code for note in found.notes] == ["bits-beyond-stored"]


def _filled(fill: str) -> Edit:
    """12 bits stored, signed, and in the bits above zeros, the sign, or an overlay in the highest bit."""

    def edit(index: int, dataset: Dataset) -> Dataset:
        words = np.frombuffer(dataset.PixelData, np.uint16).copy()
        words &= np.uint16(0xFFFF if fill == "sign" else 0xFFF)
        if fill.startswith("overlay"):
            words[::3] |= 0x8000
            dataset.add_new((0x6002, 0x0102), "US", 15)
        if fill == "overlay beside it":  # then the bit position means nothing
            dataset.add_new((0x6002, 0x3000), "OW", bytes(18))
        dataset.PixelData = words.tobytes()
        dataset.BitsStored, dataset.HighBit = 12, 11
        return dataset

    return edit


@pytest.mark.parametrize(
    ("fill", "syntax"),
    [
        *itertools.product(["zeros", "sign", "overlay", "overlay beside it"], [None, RLELossless]),
        ("zeros", JPEGLSLossless),  # its codestream has no such bits
    ],
)
def test_what_belongs_above_the_bits_stored_is_no_note(fill: str, syntax: UID | None, tmp_path: Path) -> None:
    phantom = replace(PHANTOM, intercepts=(0.0,), origin=(-20.0, -15.0, -12.0))
    expected = read_series(phantom.write(tmp_path / "clean")).volume.array
    assert expected.min() < 0 < expected.max()
    found = read_series(phantom.write(tmp_path / fill, edit=_filled(fill), syntax=syntax))
    assert np.array_equal(found.volume.array, expected)
    assert [note.code for note in found.notes] == (["bits-beyond-stored"] if fill == "overlay beside it" else [])


@pytest.mark.parametrize(("sop_class", "modality"), [(None, "CT"), (PositronEmissionTomographyImageStorage, "PT")])
def test_monochrome1_in_units_means_the_same_values(sop_class: UID | None, modality: str, tmp_path: Path) -> None:
    same = {} if sop_class is None else {"SOPClassUID": sop_class, "Modality": modality}
    expected = read_series(PHANTOM.write(tmp_path / "2", edit=setting(**same))).volume.array
    edit = setting(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE", **same)
    assert np.array_equal(read_series(PHANTOM.write(tmp_path / "1", edit=edit)).volume.array, expected)


def _padded(value: int, vr: str, *, where: int = 1, limit: int | None = None) -> Edit:
    """The first row of slice `where` is padding; all slices say what is."""

    def edit(index: int, dataset: Dataset) -> Dataset:
        dataset.add_new("PixelPaddingValue", vr, value)
        if limit is not None:
            dataset.add_new("PixelPaddingRangeLimit", vr, limit)
        if index == where:
            stored = np.frombuffer(dataset.PixelData, np.uint16).copy().reshape(dataset.Rows, dataset.Columns)
            stored[0] = np.array([value if limit is None else (value + limit) // 2]).astype(np.uint16)
            dataset.PixelData = stored.tobytes()
        return dataset

    return edit


@pytest.mark.parametrize("vr", ["SS", "US"])
@pytest.mark.parametrize("syntax", [EXPLICIT, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_cts_padding_becomes_air(syntax: UID | None, vr: str, tmp_path: Path) -> None:
    value = -2000 if vr == "SS" else 0x10000 - 2000  # the same 16 bits
    edit = _both(_padded(value, vr), _native(syntax))
    series = read_series(PHANTOM.write(tmp_path / "padded", edit=edit))
    plain = read_series(PHANTOM.write(tmp_path / "plain"))
    expected = plain.volume.array.copy()
    index = series.padded_slices[0]
    expected[index, 0] = CT_NOTHING
    assert np.array_equal(series.volume.array, expected)
    assert [header.InstanceNumber for header in (series.datasets[one] for one in series.padded_slices)] == [2]
    assert plain.padded_slices == ()


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_padding_in_compressed_pixels(syntax: UID, tmp_path: Path) -> None:
    phantom = replace(PHANTOM, rows=32, columns=40)
    series = read_series(phantom.write(tmp_path, edit=_padded(-2000, "SS"), syntax=syntax))
    assert len(series.padded_slices) == 1
    assert np.unique(series.volume.array[series.padded_slices[0], 0]).tolist() == [CT_NOTHING]


@pytest.mark.parametrize(("value", "limit"), [(-2000, -1900), (-1900, -2000)])
def test_a_range_of_padding_in_either_order(value: int, limit: int, tmp_path: Path) -> None:
    series = read_series(PHANTOM.write(tmp_path, edit=_padded(value, "SS", limit=limit)))
    assert np.unique(series.volume.array[series.padded_slices[0], 0]).tolist() == [CT_NOTHING]


@pytest.mark.parametrize(
    ("sop_class", "modality"), [(MRImageStorage, "MR"), (PositronEmissionTomographyImageStorage, "PT")]
)
def test_padding_where_nothing_is_0(sop_class: UID, modality: str, tmp_path: Path) -> None:
    edit = _both(_padded(-2000, "SS"), setting(SOPClassUID=sop_class, Modality=modality))
    series = read_series(PHANTOM.write(tmp_path, edit=edit))
    assert np.unique(series.volume.array[series.padded_slices[0], 0]).tolist() == [0.0]


def test_padding_in_frames(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.add_new("PixelPaddingValue", "SS", -2000)
        stored = np.frombuffer(dataset.PixelData, np.int16).copy().reshape(3, dataset.Rows, dataset.Columns)
        stored[2, 4] = -2000
        dataset.PixelData = stored.tobytes()

    series = read_series(write_enhanced(PHANTOM, tmp_path, edit=edit))
    (index,) = series.padded_slices
    assert series.frame_numbers[index] == 3
    assert np.unique(series.volume.array[index, 4]).tolist() == [CT_NOTHING]


def test_a_padding_value_that_is_none_is_no_padding(tmp_path: Path) -> None:
    assert read_series(PHANTOM.write(tmp_path, edit=at(1, PixelPaddingValue=None))).padded_slices == ()


@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_frames_are_read_one_at_a_time(syntax: UID | None, tmp_path: Path) -> None:
    phantom = Phantom(slices=40, rows=256, columns=256)
    (path,) = write_enhanced(phantom, tmp_path, syntax=syntax)
    slices = slices_of(path, read_header(path))
    array = np.empty((40, 256, 256), np.float32)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_pixels(slices, list(array))) == 40
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    frame = 256 * 256 * 8  # in double precision
    assert peak < 8 * frame  # the whole image is 10 of them, and 40 in single precision
