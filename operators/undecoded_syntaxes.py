"""Frames in the transfer syntaxes that pydicom has no decoder for: JPEG XL and encapsulated without compression.

JPEG XL (PS3.5 section 8.2.15) knows no signed samples: where Pixel Representation says signed, the sign is the highest
bit stored, as of JPEG-LS.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import get_frame
from pydicom.uid import UID

ENCAPSULATED_UNCOMPRESSED = UID("1.2.840.10008.1.2.1.98")
JPEG_XL_LOSSLESS = UID("1.2.840.10008.1.2.4.110")
JPEG_XL_RECOMPRESSION = UID("1.2.840.10008.1.2.4.111")
JPEG_XL = UID("1.2.840.10008.1.2.4.112")
NAMES = {
    ENCAPSULATED_UNCOMPRESSED: "Encapsulated Uncompressed Explicit VR Little Endian",
    JPEG_XL_LOSSLESS: "JPEG XL Lossless",
    JPEG_XL_RECOMPRESSION: "JPEG XL JPEG Recompression",
    JPEG_XL: "JPEG XL",
}
"""The names that PS3.6 has for those that pydicom's dictionary may not know."""


def frames(path: Path, indices: Sequence[int], frame_count: int) -> Generator[NDArray[Any], None, None]:
    """Decode frames of one sample a pixel, one at a time.

    Parameters
    ----------
    path
        A Part 10 file in one of the transfer syntaxes in `NAMES`.
    indices
        Of the frames, from 0, in the order in which they are wanted.
    frame_count
        How many the instance has.

    Yields
    ------
    NDArray
        Axes row, column; as many bits as are allocated, signed as Pixel Representation says.

    Raises
    ------
    ValueError
        If a frame can't be decoded, or is no image of one sample a pixel of the size that the header says.
    """
    dataset = pydicom.dcmread(path)
    shape = (int(dataset.Rows), int(dataset.Columns))
    dtype = np.dtype(f"<{'i' if dataset.PixelRepresentation else 'u'}{int(dataset.BitsAllocated) // 8}")
    is_jpeg_xl = dataset.file_meta.TransferSyntaxUID != ENCAPSULATED_UNCOMPRESSED
    for index in indices:
        encoded = get_frame(dataset.PixelData, index, number_of_frames=frame_count)
        decoded = _decode(encoded, shape, dtype) if is_jpeg_xl else _native(encoded, shape, dtype)
        if decoded.shape != shape:
            raise ValueError("a frame has another size than the header says")
        yield decoded


def _native(encoded: bytes, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    # a frame of odd length is padded to an even one
    return np.frombuffer(encoded, dtype, shape[0] * shape[1]).reshape(shape)


def _decode(encoded: bytes, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    import imagecodecs  # it is large, and nearly nobody sends JPEG XL yet

    found: NDArray[Any] = imagecodecs.jpegxl_decode(encoded)
    if found.ndim == 3 and found.shape[-1] == 1:
        found = found[..., 0]
    if found.shape != shape or found.dtype.kind != "u" or found.dtype.itemsize > dtype.itemsize:
        raise ValueError("the codestream is no image of the size and the bits that the header says")
    return found.astype(np.dtype(f"<u{dtype.itemsize}")).view(dtype)
