"""What headers and decoding say about the pixels that is worth a word and does not make them wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pydicom
from pydicom.uid import UID, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from operators.gate.attributes import floats, texts
from operators.pixels import Decoded, rescale
from operators.series_checks import text

Finding = tuple[str, str]
"""Code and message of what a check found."""
_LOSSY_SYNTAXES = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)
"""Those that can't be without loss; what JPEG 2000 and its like lost, Lossy Image Compression must say."""


def remarks(headers: Sequence[pydicom.Dataset]) -> Iterator[Finding]:
    """Yield what is found in the headers of the slices of one series."""
    total = len(headers)
    lossy = [header for header in headers if _is_lossy(header)]
    if lossy:
        ratio = max((one for header in lossy for one in floats(header, "LossyImageCompressionRatio")), default=None)
        told = "the ratio is not stated" if ratio is None else f"at most {ratio:g} to 1"
        yield "lossy-compression", f"{len(lossy)} of {total} images were compressed with loss, {told}"
    inverted = sum(text(header, "PhotometricInterpretation") == "MONOCHROME1" for header in headers)
    if inverted:
        yield "monochrome1", f"in {inverted} of {total} images low values are bright (MONOCHROME1)"
    negative = sum((rescale(header) or (1.0, 0.0))[0] < 0 for header in headers)
    if negative:
        yield (
            "rescale-negative",
            f"in {negative} of {total} images the rescale slope is below 0: it turns dark to bright",
        )
    if _modality(headers) in ("CT", "MR"):  # PET is rescaled slice by slice as a rule
        pairs = {(floats(header, "RescaleSlope"), floats(header, "RescaleIntercept")) for header in headers}
        if len(pairs) > 1:
            yield (
                "rescale-differs",
                f"the slices have {len(pairs)} pairs of rescale slope and intercept; each has its own",
            )


def pixel_remarks(decoded: Sequence[Decoded]) -> Iterator[Finding]:
    """Yield what came to light as the slices of one series were decoded."""
    total = len(decoded)
    padded = sum(one.has_padding for one in decoded)
    if padded:
        yield (
            "pixel-padding",
            f"in {padded} of {total} slices nothing was measured at some pixels, by their padding value",
        )
    beyond = sum(one.has_bits_beyond for one in decoded)
    if beyond:
        yield (
            "bits-beyond-stored",
            f"in {beyond} of {total} slices there is something in the bits above Bits Stored, and it is ignored; where "
            "it is no overlay, Bits Stored is wrong and high values are cut off",
        )


def _modality(headers: Sequence[pydicom.Dataset]) -> str:
    return next((value for header in headers for value in texts(header, "Modality")), "")


def _is_lossy(header: pydicom.Dataset) -> bool:
    """PS3.3 C.7.6.1.1.5: "01" once lossy compression was applied, whatever the transfer syntax is now."""
    if "01" in texts(header, "LossyImageCompression"):
        return True
    meta = getattr(header, "file_meta", None)
    return meta is not None and UID(str(meta.get("TransferSyntaxUID", ""))) in _LOSSY_SYNTAXES
