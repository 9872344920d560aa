"""Every transfer syntax that can be read, encoded by other programs, gives the pixels that were encoded.

The encoders are DCMTK, GDCM and OpenJPH; what is lossy is held against what DCMTK, GDCM, OpenJPH or the publisher of
the image decoded. JPEG XL is in test_undecoded_syntaxes.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from app.delivery.sending import send_folder
from app.listener.presentation import REFUSED_TRANSFER_SYNTAXES, TRANSFER_SYNTAXES
from operators.instances import read_header
from operators.pixel_decoders import DECODERS
from operators.pixels import Decoded, read_pixels
from operators.series_volume import read_series
from operators.slices import Slice
from operators.undecoded_syntaxes import ENCAPSULATED_UNCOMPRESSED, JPEG_XL, JPEG_XL_LOSSLESS, JPEG_XL_RECOMPRESSION
from tests import peers
from tests.fixtures.htj2k.make_codestreams import FOLDER as HTJ2K_FOLDER
from tests.fixtures.htj2k.make_codestreams import textured
from tests.listening import listening
from tests.multi_frame import write_enhanced
from tests.phantom import Edit, Phantom

Array = NDArray[np.float32]
LOSSLESS: dict[UID, Sequence[str]] = {
    ImplicitVRLittleEndian: ("dcmconv", "+ti"),
    ExplicitVRLittleEndian: ("dcmconv", "+te"),
    ExplicitVRBigEndian: ("dcmconv", "+tb"),
    DeflatedExplicitVRLittleEndian: ("dcmconv", "+td"),
    RLELossless: ("dcmcrle",),
    JPEGLossless: ("dcmcjpeg", "+el", "+sv", "6"),
    JPEGLosslessSV1: ("dcmcjpeg", "+e1"),
    JPEGLSLossless: ("dcmcjpls",),
    JPEG2000Lossless: ("gdcmconv", "--j2k"),
}
"""Who encodes what."""
LOSSY: dict[UID, tuple[Sequence[str], Sequence[str]]] = {
    JPEGBaseline8Bit: (("dcmcjpeg", "+eb"), ("dcmdjpeg",)),
    JPEGExtended12Bit: (("dcmcjpeg", "+ee"), ("dcmdjpeg",)),
    JPEGLSNearLossless: (("dcmcjpls", "+en"), ("dcmdjpls",)),
    JPEG2000: (("gdcmconv", "--j2k", "--lossy", "-r", "8"), ("gdcmconv", "--raw")),
}
"""Who encodes what, and who else decodes it."""
HTJ2K_SYNTAXES = (HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
UNDECODED_SYNTAXES = (ENCAPSULATED_UNCOMPRESSED, JPEG_XL_LOSSLESS, JPEG_XL_RECOMPRESSION, JPEG_XL)
"""Those that pydicom has no decoder for, tests/contract/test_undecoded_syntaxes.py."""


@dataclass(frozen=True)
class _Source:
    phantom: Phantom
    edit: Edit | None = None


def _twelve_bits(index: int, dataset: Dataset) -> Dataset:
    stored = np.frombuffer(dataset.PixelData, np.uint16) & 0xFFF
    dataset.PixelData, dataset.BitsStored, dataset.HighBit = stored.tobytes(), 12, 11
    return dataset


PHANTOM = Phantom(slices=3, rows=64, columns=80, origin=(-20.0, -15.0, -40.0))
SOURCES = {
    "unsigned-16": _Source(replace(PHANTOM, signed=False)),
    "unsigned-12": _Source(replace(PHANTOM, signed=False), _twelve_bits),
    "signed-16": _Source(replace(PHANTOM, intercepts=(0.0,))),
    "signed-12": _Source(replace(PHANTOM, intercepts=(0.0,)), _twelve_bits),
}


@pytest.fixture(autouse=True)
def _programs() -> None:
    peers.require("dcmconv", "dcmcrle", "dcmcjpeg", "dcmcjpls", "dcmdjpeg", "dcmdjpls", "gdcmconv")


def _converted(files: Sequence[Path], folder: Path, command: Sequence[str]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for path in files:
        result = subprocess.run(
            [peers.program(command[0]), *command[1:], str(path), str(folder / path.name)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
    return [folder / path.name for path in files]


def _syntaxes(files: Sequence[Path]) -> set[str]:
    return {str(pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID) for path in files}


def _decoded(path: Path) -> Array:
    """The pixels of one image by itself, which need be no slice of a volume."""
    header = read_header(path)
    target: Array = np.empty((header.Rows, header.Columns), np.float32)
    assert list(read_pixels([Slice(path, header)], [target])) == [Decoded()]
    return target


def test_each_readable_syntax_is_tested_here() -> None:
    assert set(DECODERS) == {*LOSSLESS, *LOSSY, *HTJ2K_SYNTAXES, *UNDECODED_SYNTAXES}


def test_each_readable_syntax_is_taken_from_the_wire_but_the_deflated() -> None:
    on_the_wire = {str(uid) for uid in TRANSFER_SYNTAXES}
    left = {str(uid) for uid in DECODERS} - on_the_wire
    assert left == {str(DeflatedExplicitVRLittleEndian)}
    assert left <= {str(uid) for uid in REFUSED_TRANSFER_SYNTAXES}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name)
def test_lossless_pixels_are_the_encoded_ones(syntax: UID, source: str, tmp_path: Path) -> None:
    native = SOURCES[source].phantom.write(tmp_path / "native", edit=SOURCES[source].edit)
    files = _converted(native, tmp_path / "encoded", LOSSLESS[syntax])
    assert _syntaxes(files) == {str(syntax)}
    read, expected = read_series(files), read_series(native)
    assert np.array_equal(read.volume.array, expected.volume.array)
    assert expected.volume.array.min() < -100  # the sign was of use


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name)
def test_the_real_ct_is_the_same_in_each_lossless_syntax(syntax: UID, abdominal_ct: list[Path], tmp_path: Path) -> None:
    native = _converted(abdominal_ct[:2], tmp_path / "native", ("gdcmconv", "--raw"))
    files = _converted(native, tmp_path / "encoded", LOSSLESS[syntax])
    assert _syntaxes(files) == {str(syntax)}
    array = read_series(files).volume.array
    assert np.array_equal(array, read_series(abdominal_ct[:2]).volume.array)
    stored = np.frombuffer(pydicom.dcmread(native[0]).PixelData, np.uint16).reshape(512, 512)
    assert any(np.array_equal(one, stored.astype(np.float32) - 1024) for one in array)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name)
def test_the_frames_of_an_enhanced_image_are_the_encoded_ones(syntax: UID, tmp_path: Path) -> None:
    native = write_enhanced(replace(PHANTOM, slices=5), tmp_path / "native", shuffled=True)
    files = _converted(native, tmp_path / "encoded", LOSSLESS[syntax])
    assert _syntaxes(files) == {str(syntax)}
    assert np.array_equal(read_series(files).volume.array, read_series(native).volume.array)


@pytest.mark.parametrize("syntax", LOSSY, ids=lambda uid: uid.name)
def test_lossy_pixels_are_what_another_decoder_gives(syntax: UID, abdominal_ct: list[Path], tmp_path: Path) -> None:
    encode, decode = LOSSY[syntax]
    native = _converted(abdominal_ct[:2], tmp_path / "native", ("gdcmconv", "--raw"))
    files = _converted(native, tmp_path / "encoded", encode)
    assert _syntaxes(files) == {str(syntax)}
    expected = read_series(_converted(files, tmp_path / "decoded", decode)).volume.array
    found = read_series(files).volume.array
    step = float(pydicom.dcmread(files[0]).RescaleSlope)
    assert np.abs(found - expected).max() <= step  # the rounding of another implementation
    assert np.abs(found - read_series(native).volume.array).mean() < 30  # and it is the image


def _with_codestream(name: str, syntax: UID, path: Path, *, signed: bool) -> Path:
    dataset = replace(PHANTOM, signed=signed, intercepts=(0.0,)).dataset(0)
    if not signed:
        dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.PixelData = encapsulate([(HTJ2K_FOLDER / f"{name}.j2c").read_bytes()])
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", HTJ2K_SYNTAXES, ids=lambda uid: uid.name)
def test_high_throughput_jpeg_2000_is_the_encoded_image(syntax: UID, signed: bool, tmp_path: Path) -> None:
    name = "lossless_signed" if signed else "lossless_unsigned"
    path = _with_codestream(name, syntax, tmp_path / "image.dcm", signed=signed)
    assert np.array_equal(_decoded(path), textured(signed=signed).astype(np.float32))


def test_lossy_high_throughput_jpeg_2000_is_what_openjph_gives(tmp_path: Path) -> None:
    path = _with_codestream("lossy", HTJ2K, tmp_path / "image.dcm", signed=False)
    with np.load(HTJ2K_FOLDER / "lossy.npz") as stored:
        expected = stored["decoded"].astype(np.float32)
    assert np.abs(_decoded(path) - expected).max() <= 1
    assert not np.array_equal(expected, textured(signed=False))


@pytest.mark.parametrize(
    ("encoded", "native", "difference"),
    [
        ("693_J2KR", "693_UNCR", 0),
        ("MR2_J2KR", "MR2_UNCR", 0),
        ("MR2_J2KI", "MR2_UNCI", 1),
    ],
)
def test_published_images_are_what_their_publisher_decoded(
    encoded: str, native: str, difference: float, pydicom_data: Path
) -> None:
    found = _stored(pydicom_data / f"{encoded}.dcm")
    assert np.abs(found - _stored(pydicom_data / f"{native}.dcm")).max() <= difference


def _stored(path: Path) -> Array:
    """The pixels of a published image before padding becomes nothing, which would hide what was decoded."""
    header = read_header(path)
    for keyword in ("PixelPaddingValue", "RescaleSlope"):
        if keyword in header:
            delattr(header, keyword)
    target: Array = np.empty((header.Rows, header.Columns), np.float32)
    assert list(read_pixels([Slice(path, header)], [target])) == [Decoded()]
    return target


def test_published_jpegs_are_what_dcmtk_decodes(pydicom_data: Path, tmp_path: Path) -> None:
    extended = Path(str(pydicom.data.get_testdata_file("JPGExtended.dcm", download=False)))
    for path, syntax in (
        (extended, JPEGExtended12Bit),
        (pydicom_data / "JPEG-LL.dcm", JPEGLosslessSV1),
        (pydicom_data / "JPGLosslessP14SV1_1s_1f_8b.dcm", JPEGLosslessSV1),
    ):
        assert _syntaxes([path]) == {str(syntax)}
        (native,) = _converted([path], tmp_path / "decoded", ("dcmdjpeg",))
        assert np.array_equal(_stored(path), _stored(native))


@pytest.mark.parametrize("syntax", [*LOSSLESS, *LOSSY], ids=lambda uid: uid.name)
def test_what_arrives_on_the_wire_is_read(syntax: UID, tmp_path: Path) -> None:
    if str(syntax) in {str(uid) for uid in REFUSED_TRANSFER_SYNTAXES}:
        return  # a conforming sender offers a native one too
    native = SOURCES["unsigned-12"].phantom.write(tmp_path / "native", edit=_twelve_bits)
    command = LOSSLESS[syntax] if syntax in LOSSLESS else LOSSY[syntax][0]
    files = _converted(native, tmp_path / "encoded", command)
    with listening(tmp_path / "spool") as at:
        sent = send_folder(files, "127.0.0.1", at.port, "LIMNER", "MODALITY").files
        assert [one.status for one in sent] == [0] * len(files)
        kept = [at.spool.path_of(one.digest) for one in at.instances]
        assert {str(one.transfer_syntax_uid) for one in at.instances} == {str(syntax)}
        assert np.array_equal(read_series(kept).volume.array, read_series(files).volume.array)
