"""JPEG Extended of 12 bits, decoded by GDCM: the one encoding that pydicom's own plug-in for GDCM refuses to try.

GDCM decodes it as DCMTK does, value for value; on the way it says on standard error that 8 bits would not do. The two
functions are what pydicom asks of a decoding plug-in.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import JPEGExtended12Bit

PLUGIN = "gdcm-12-bit"
DECODER_DEPENDENCIES = {JPEGExtended12Bit: ("gdcm>=3.0.10",)}


def is_available(uid: str) -> bool:
    """Return whether this decodes the transfer syntax `uid`."""
    return uid in DECODER_DEPENDENCIES and importlib.util.find_spec("gdcm") is not None


def decode_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """Return the decoded pixels of one frame of one sample a pixel, row by row, in the byte order of this machine."""
    import gdcm  # where it is not installed, all else is still decoded

    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(_pixel_data(gdcm, source))
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.GetPIType(runner.photometric_interpretation))
    )
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str.__str__(runner.transfer_syntax))))
    bits_stored = runner.bits_stored
    image.SetPixelFormat(
        gdcm.PixelFormat(1, runner.bits_allocated, bits_stored, bits_stored - 1, runner.pixel_representation)
    )
    # GDCM's buffer comes as text in which each byte is kept by Python's escape for what is no text
    decoded: bytes = image.GetBuffer().encode("utf-8", "surrogateescape")
    return decoded


def _pixel_data(gdcm: Any, source: bytes) -> Any:
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(source)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    return element
