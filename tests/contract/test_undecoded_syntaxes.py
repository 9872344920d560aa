"""JPEG XL by libjxl's own programs, and encapsulated without compression: pydicom has decoders for neither."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import UID

from app.delivery.sending import send_folder
from operators.errors import SeriesRefused
from operators.instances import read_header
from operators.pixels import Decoded, read_pixels
from operators.series_volume import read_series
from operators.slices import Slice
from operators.undecoded_syntaxes import ENCAPSULATED_UNCOMPRESSED, JPEG_XL, JPEG_XL_LOSSLESS, JPEG_XL_RECOMPRESSION
from tests import peers
from tests.listening import listening
from tests.multi_frame import write_enhanced
from tests.phantom import Phantom

PHANTOM = Phantom(slices=3, rows=63, columns=41, origin=(-20.0, -15.0, -40.0))
Encode = Callable[[NDArray[np.uint16], Path], bytes]


@pytest.fixture(autouse=True)
def _programs() -> None:
    peers.require("cjxl", "djxl", "jxlinfo")


def _cjxl(stored: NDArray[np.uint16], folder: Path, *options: str) -> bytes:
    """A portable graymap in, a codestream out."""
    source, target = folder / "frame.pgm", folder / "frame.jxl"
    rows, columns = stored.shape
    source.write_bytes(b"P5\n%d %d\n65535\n" % (columns, rows) + stored.astype(">u2").tobytes())
    _run("cjxl", *options, str(source), str(target))
    return target.read_bytes()


def _run(*command: str) -> None:
    result = subprocess.run([peers.program(command[0]), *command[1:]], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def _lossless(stored: NDArray[np.uint16], folder: Path) -> bytes:
    return _cjxl(stored, folder, "-d", "0")


def _twelve_bits(stored: NDArray[np.uint16], folder: Path) -> bytes:
    """By the library itself: cjxl 0.7 writes the upper 12 of 16 bits where a graymap has 12."""
    codestream = imagecodecs.jpegxl_encode(stored, lossless=True, bitspersample=12)
    (folder / "frame.jxl").write_bytes(codestream)
    told = subprocess.run(
        [peers.program("jxlinfo"), str(folder / "frame.jxl")], capture_output=True, text=True, check=True
    )
    assert "12-bit Grayscale" in told.stdout
    return bytes(codestream)


def _native(stored: NDArray[np.uint16], folder: Path) -> bytes:
    return stored.astype("<u2").tobytes()


def _save(dataset: Dataset, path: Path, syntax: UID) -> Path:
    """Write a file in a transfer syntax that pydicom's own writing would refuse."""
    meta = FileMetaDataset()
    meta.update(dataset.file_meta)
    meta.TransferSyntaxUID = syntax
    encoded = DicomBytesIO()
    encoded.is_implicit_VR, encoded.is_little_endian = False, True
    write_dataset(encoded, dataset)
    with path.open("wb") as file:
        file.write(bytes(128) + b"DICM")
        write_file_meta_info(file, meta, enforce_standard=False)  # type: ignore[arg-type]
        file.write(encoded.getvalue())
    return path


def _encoded(files: Sequence[Path], folder: Path, syntax: UID, encode: Encode) -> list[Path]:
    """The same instances with each frame encoded."""
    folder.mkdir()
    written = []
    for path in files:
        dataset = pydicom.dcmread(path)
        frames = np.frombuffer(dataset.PixelData, "<u2").reshape(-1, dataset.Rows, dataset.Columns)
        dataset.PixelData = encapsulate([encode(frame, folder) for frame in frames])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        written.append(_save(dataset, folder / path.name, syntax))
    return written


def _decoded(path: Path) -> NDArray[np.float32]:
    """The pixels of one image by itself, which is no series."""
    header = read_header(path)
    target = np.empty((header.Rows, header.Columns), np.float32)
    assert list(read_pixels([Slice(path, header)], [target])) == [Decoded()]
    return target


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("syntax", "encode"), [(JPEG_XL_LOSSLESS, _lossless), (JPEG_XL, _lossless), (ENCAPSULATED_UNCOMPRESSED, _native)]
)
def test_lossless_pixels_are_the_encoded_ones(syntax: UID, encode: Encode, signed: bool, tmp_path: Path) -> None:
    phantom = replace(PHANTOM, signed=signed, intercepts=(0.0,)) if signed else replace(PHANTOM, signed=False)
    native = phantom.write(tmp_path / "native")
    read, expected = read_series(_encoded(native, tmp_path / "encoded", syntax, encode)), read_series(native)
    assert np.array_equal(read.volume.array, expected.volume.array)
    assert expected.volume.array.min() < -100  # the sign was of use


def test_the_real_ct_in_twelve_bits(abdominal_ct: list[Path], tmp_path: Path) -> None:
    native = tmp_path / "native"
    native.mkdir()
    for path in abdominal_ct[:2]:
        _run("gdcmconv", "--raw", str(path), str(native / path.name))
    files = sorted(native.iterdir())
    assert pydicom.dcmread(files[0]).BitsStored == 12
    encoded = _encoded(files, tmp_path / "encoded", JPEG_XL_LOSSLESS, _twelve_bits)
    assert np.array_equal(read_series(encoded).volume.array, read_series(files).volume.array)


@pytest.mark.parametrize(("syntax", "encode"), [(JPEG_XL_LOSSLESS, _lossless), (ENCAPSULATED_UNCOMPRESSED, _native)])
def test_the_frames_of_an_enhanced_image_are_the_encoded_ones(syntax: UID, encode: Encode, tmp_path: Path) -> None:
    native = write_enhanced(replace(PHANTOM, slices=5), tmp_path / "native", shuffled=True)
    files = _encoded(native, tmp_path / "encoded", syntax, encode)
    assert np.array_equal(read_series(files).volume.array, read_series(native).volume.array)


def test_lossy_pixels_are_what_libjxl_decodes(tmp_path: Path) -> None:
    native = replace(PHANTOM, slices=1, signed=False).write(tmp_path / "native")
    expected: list[NDArray[np.float32]] = []

    def encode(stored: NDArray[np.uint16], folder: Path) -> bytes:
        codestream = _cjxl(stored, folder, "-d", "2")
        _run("djxl", str(folder / "frame.jxl"), str(folder / "decoded.pgm"))
        pixels = (folder / "decoded.pgm").read_bytes()[-stored.size * 2 :]
        expected.append(np.frombuffer(pixels, ">u2").reshape(stored.shape).astype(np.float32))
        return codestream

    files = _encoded(native, tmp_path / "encoded", JPEG_XL, encode)
    header = pydicom.dcmread(files[0], stop_before_pixels=True)
    found = (_decoded(files[0]) - header.RescaleIntercept) / header.RescaleSlope
    assert np.abs(found - expected[0]).max() <= 2  # two versions of libjxl, in floating point
    stored = np.frombuffer(pydicom.dcmread(native[0]).PixelData, "<u2").reshape(found.shape)
    assert not np.array_equal(found, stored)


def test_a_jpeg_in_jpeg_xl_is_what_its_jpeg_is(tmp_path: Path) -> None:
    (path,) = replace(PHANTOM, slices=1, signed=False).write(tmp_path / "native")
    dataset = pydicom.dcmread(path)
    stored = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns)
    grey = (255 * (stored.astype(int) - stored.min()) // np.ptp(stored)).astype(np.uint8)
    jpeg = tmp_path / "frame.jpg"
    Image.fromarray(grey).save(jpeg, quality=90)
    _run("cjxl", "--lossless_jpeg=1", str(jpeg), str(tmp_path / "frame.jxl"))
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = encapsulate([(tmp_path / "frame.jxl").read_bytes()])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    found = _decoded(_save(dataset, tmp_path / "encoded.dcm", JPEG_XL_RECOMPRESSION))
    expected = np.asarray(Image.open(io.BytesIO(jpeg.read_bytes())), np.float32)
    assert np.abs(found - expected).max() <= 2


@pytest.mark.parametrize("damage", [lambda frame: frame[: len(frame) // 2], lambda frame: bytes(64)])
def test_what_is_cut_off_or_is_none_is_refused(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    native = PHANTOM.write(tmp_path / "native")
    files = _encoded(
        native, tmp_path / "encoded", JPEG_XL_LOSSLESS, lambda stored, folder: damage(_lossless(stored, folder))
    )
    with pytest.raises(SeriesRefused) as caught:
        read_series(files)
    assert caught.value.code == "unreadable-instance"


def test_a_codestream_of_another_size_is_refused(tmp_path: Path) -> None:
    native = PHANTOM.write(tmp_path / "native")
    files = _encoded(
        native, tmp_path / "encoded", JPEG_XL_LOSSLESS, lambda stored, folder: _lossless(stored[:, 1:], folder)
    )
    with pytest.raises(SeriesRefused) as caught:
        read_series(files)
    assert caught.value.code == "unreadable-instance"


@pytest.mark.parametrize(("syntax", "encode"), [(JPEG_XL_LOSSLESS, _lossless), (ENCAPSULATED_UNCOMPRESSED, _native)])
def test_what_arrives_on_the_wire_is_read(syntax: UID, encode: Encode, tmp_path: Path) -> None:
    files = _encoded(PHANTOM.write(tmp_path / "native"), tmp_path / "encoded", syntax, encode)
    with listening(tmp_path / "spool") as at:
        sent = send_folder(files, "127.0.0.1", at.port, "LIMNER", "MODALITY").files
        assert [one.status for one in sent] == [0] * len(files)
        kept = [at.spool.path_of(one.digest) for one in at.instances]
        assert np.array_equal(read_series(kept).volume.array, read_series(files).volume.array)
