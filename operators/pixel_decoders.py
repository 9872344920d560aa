"""Which library decodes which transfer syntax (PS3.5 annex A): one each, so that no package decides by being there."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass

import highdicom  # noqa: F401 - registers the JPEG-LS decoder with pydicom
from pydicom.pixels.decoders.base import JPEGExtended12BitDecoder, get_decoder
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

from operators import twelve_bit_jpeg, undecoded_syntaxes
from operators.errors import SeriesRefused


@dataclass(frozen=True)
class PixelDecoder:
    """A library that decodes."""

    plugin: str
    """pydicom's name of the plug-in; empty where pydicom itself reads native pixel data."""
    library: str
    """The package, and the code in it."""
    license: str
    """Of all that runs, SPDX."""


OWN = "undecoded-syntaxes"
"""The plug-in of the transfer syntaxes that pydicom has no decoder for: `operators.undecoded_syntaxes`."""

_NATIVE = PixelDecoder("", "pydicom", "MIT")
_JPEG_LS = PixelDecoder("pyjpegls", "pyjpegls (CharLS)", "MIT, BSD-3-Clause")
_JPEG_2000 = PixelDecoder("pylibjpeg", "pylibjpeg-openjpeg (OpenJPEG)", "MIT, BSD-2-Clause")
_GDCM = PixelDecoder("gdcm", "python-gdcm (GDCM, its libjpeg)", "Apache-2.0, BSD-3-Clause, IJG")
_JPEG_XL = PixelDecoder(OWN, "imagecodecs (libjxl)", "BSD-3-Clause")

DECODERS: Mapping[UID, PixelDecoder] = {
    ImplicitVRLittleEndian: _NATIVE,
    ExplicitVRLittleEndian: _NATIVE,
    ExplicitVRBigEndian: _NATIVE,
    DeflatedExplicitVRLittleEndian: _NATIVE,
    RLELossless: PixelDecoder("pydicom", "pydicom", "MIT"),
    JPEGBaseline8Bit: PixelDecoder("pillow", "Pillow (libjpeg-turbo)", "MIT-CMU, IJG"),
    JPEGExtended12Bit: PixelDecoder(twelve_bit_jpeg.PLUGIN, _GDCM.library, _GDCM.license),
    JPEGLossless: _GDCM,
    JPEGLosslessSV1: _GDCM,
    JPEGLSLossless: _JPEG_LS,
    JPEGLSNearLossless: _JPEG_LS,
    JPEG2000Lossless: _JPEG_2000,
    JPEG2000: _JPEG_2000,
    HTJ2KLossless: _JPEG_2000,
    HTJ2KLosslessRPCL: _JPEG_2000,
    HTJ2K: _JPEG_2000,
    undecoded_syntaxes.ENCAPSULATED_UNCOMPRESSED: PixelDecoder(OWN, "pydicom", "MIT"),
    undecoded_syntaxes.JPEG_XL_LOSSLESS: _JPEG_XL,
    undecoded_syntaxes.JPEG_XL_RECOMPRESSION: _JPEG_XL,
    undecoded_syntaxes.JPEG_XL: _JPEG_XL,
}
"""Every transfer syntax whose pixels can be read. docs/reference/inputs.md has them as a table."""

JPEGExtended12BitDecoder.add_plugin(twelve_bit_jpeg.PLUGIN, (twelve_bit_jpeg.__name__, "decode_frame"))


def decoder_for(transfer_syntax_uid: UID) -> PixelDecoder:
    """Return what decodes a transfer syntax.

    Raises
    ------
    SeriesRefused
        ``transfer-syntax-unsupported`` if nothing does.
    """
    found = DECODERS.get(transfer_syntax_uid)
    if found is None or not _is_there(found, transfer_syntax_uid):
        raise SeriesRefused(
            f"the pixel data is compressed as {transfer_syntax_uid.name}, for which no decoder is installed; "
            "send it uncompressed or as JPEG, JPEG-LS, JPEG 2000 or RLE",
            code="transfer-syntax-unsupported",
        )
    return found


def _is_there(decoder: PixelDecoder, transfer_syntax_uid: UID) -> bool:
    if decoder.plugin == OWN:
        return importlib.util.find_spec(decoder.library.split(" ")[0]) is not None
    return not decoder.plugin or decoder.plugin in get_decoder(transfer_syntax_uid).available_plugins
