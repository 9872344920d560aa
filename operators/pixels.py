"""Decoding the pixels of an instance, a frame at a time, into slices of the volume.

Padding. Pixel Padding Value and Pixel Padding Range Limit (PS3.3 C.7.5.1.1.2) mark pixels where nothing was measured; a
CT's are often stored as what would be -2000 or -3024 HU. Left so they would move a normalisation's mean and stretch
its range. They become what the modality means by nothing: -1024 HU in CT, which scanners themselves store outside of
their circle (0 of 12 bits at the usual intercept), and every window takes for air; 0 in MR and PET, no signal and no
activity. It is the same number in every slice, whatever else the volume holds, so that leaving slices out changes none.

MONOCHROME1 concerns the display alone: how values become grey comes after the rescale (PS3.3 C.7.6.3.1.2). A value in
Hounsfield units or Bq/ml means the same in both, and none is inverted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
)

from operators import undecoded_syntaxes
from operators.instances import MULTI_FRAME_SOP_CLASSES, unreadable
from operators.parse_errors import PARSE_ERRORS
from operators.pixel_decoders import OWN, decoder_for
from operators.slices import Slice

CT_NOTHING = -1024.0
"""Hounsfield units."""
_OVERLAY_GROUPS = range(0x6000, 0x6020, 2)
_OVERLAY_BIT_POSITION, _OVERLAY_DATA = 0x0102, 0x3000


@dataclass(frozen=True)
class Decoded:
    """What came to light as a slice was decoded."""

    has_padding: bool = False
    """Whether pixels were padding, and are now what the modality means by nothing."""
    has_bits_beyond: bool = False
    """Whether bits above Bits Stored held something, other than the sign or an overlay that the header describes."""


def rescale(header: pydicom.Dataset) -> tuple[float, float] | None:
    """Return Rescale Slope and Intercept (PS3.3 C.11.1), or None if there is no pair that can be used."""
    try:
        slope, intercept = float(header.RescaleSlope), float(header.RescaleIntercept)
    except (AttributeError, TypeError, ValueError):
        return None
    usable = np.isfinite(slope) and np.isfinite(intercept) and slope != 0
    return (slope, intercept) if usable else None


def read_pixels(slices: Sequence[Slice], targets: Sequence[NDArray[np.float32]]) -> Generator[Decoded, None, None]:
    """Decode slices of one instance, each into its target; after each, yield what came to light.

    One decoded frame is held at a time.

    Parameters
    ----------
    slices
        Of one file, all of them or some.
    targets
        Axes row, column. They receive the values rescaled by the slice's own slope and intercept, with padding
        replaced. Stored values are signed or unsigned as the instance says, and bits that are not stored are ignored.
        Rescaling is done in double precision, as other readers do, and rounded once.

    Raises
    ------
    SeriesRefused
        ``transfer-syntax-unsupported`` if no decoder is installed, ``unreadable-instance`` if decoding fails.
    """
    syntax = slices[0].header.file_meta.TransferSyntaxUID
    with contextlib.closing(_frames(slices, syntax)) as frames:
        try:
            for one, target, frame in zip(slices, targets, frames, strict=True):
                stored, has_bits_beyond = _stored(frame, one.header, syntax)
                yield Decoded(_place(one.header, stored, target), has_bits_beyond)
        except (OSError, *PARSE_ERRORS) as error:
            raise unreadable("its pixel data is cut off or can't be decoded") from error


def _frames(slices: Sequence[Slice], syntax: UID) -> Generator[NDArray[Any], None, None]:
    """The slices' frames as they are decoded, each pixel in as many bits as are allocated; no others are decoded."""
    first = slices[0]
    numbers = [one.frame_number or 1 for one in slices]
    decoder = decoder_for(syntax)
    if decoder.plugin == OWN:
        yield from undecoded_syntaxes.frames(first.path, [number - 1 for number in numbers], first.frame_count)
        return
    is_whole = numbers == list(range(1, first.frame_count + 1))
    indices = None if is_whole else [number - 1 for number in numbers]
    # what is inflated is so as a whole, and pydicom can't look for frames in what is not
    source = pydicom.dcmread(first.path) if syntax == DeflatedExplicitVRLittleEndian else first.path
    options: dict[str, Any] = {"decoding_plugin": decoder.plugin, "number_of_frames": first.frame_count}
    yield from iter_pixels(source, indices=indices, raw=True, correct_unused_bits=False, **options)


def _stored(frame: NDArray[Any], header: pydicom.Dataset, syntax: UID) -> tuple[NDArray[Any], bool]:
    """The stored values of a frame, and whether anything was in the bits above them (PS3.5 section 8.1.1).

    pydicom would drop those bits without a word; where Bits Stored is wrong they are part of the values. Of signed
    JPEG-LS it takes the sign from the codestream's precision, which is 16 bits where DCMTK encoded signed values of 12.
    JPEG 2000 says itself which bits it holds.
    """
    unused = 8 * frame.dtype.itemsize - int(header.BitsStored)
    if unused <= 0 or syntax in JPEG2000TransferSyntaxes:
        return frame, False
    if syntax in JPEGLSTransferSyntaxes and frame.dtype.kind != "i":
        return frame, False
    stored: NDArray[Any] = (frame << unused) >> unused
    return stored, not np.array_equal(stored, frame) and _holds_more(frame, stored, header)


def _holds_more(frame: NDArray[Any], stored: NDArray[Any], header: pydicom.Dataset) -> bool:
    """Whether the bits above the stored values are neither zero nor copies of the sign, nor a described overlay."""
    low = frame.dtype.type((1 << int(header.BitsStored)) - 1)
    rest = ~frame.dtype.type(0)
    for group in _OVERLAY_GROUPS:
        bit = header.get((group, _OVERLAY_BIT_POSITION))
        if bit is not None and (group, _OVERLAY_DATA) not in header:
            rest &= ~(np.array(1 << int(bit.value)).astype(frame.dtype)[()])
    bits = frame & rest
    return bool(np.any((bits != stored & rest) & (bits != bits & low)))


def _place(header: pydicom.Dataset, stored: NDArray[Any], target: NDArray[np.float32]) -> bool:
    if stored.shape != target.shape:
        raise unreadable("its pixel data has another size than its header says")
    slope, intercept = rescale(header) or (1.0, 0.0)
    target[...] = stored.astype(np.float64) * slope + intercept
    padding = _padding(header, stored.dtype)
    if padding is None:
        return False
    padded = (stored >= padding[0]) & (stored <= padding[1])
    np.copyto(target, _nothing(header), where=padded)
    return bool(padded.any())


def _padding(header: pydicom.Dataset, dtype: np.dtype[Any]) -> tuple[int, int] | None:
    """The lowest and highest stored value that is padding; None if none is."""
    value, limit = (header.get(keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if not isinstance(value, int):
        return None
    # some are written signed where the pixels are unsigned, and the other way: the bits are meant
    bounds = np.array([value, limit if isinstance(limit, int) else value], np.int64).astype(dtype)
    return int(bounds.min()), int(bounds.max())


def _nothing(header: pydicom.Dataset) -> float:
    sop_class = MULTI_FRAME_SOP_CLASSES.get(header.SOPClassUID, header.SOPClassUID)
    return CT_NOTHING if sop_class == CTImageStorage else 0.0
