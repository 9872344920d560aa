"""Masks as they go over HTTP: run lengths, or PNG.

Run lengths count pixels row by row from the upper left corner, first those outside, then those inside, and so on; a
mask that begins inside has 0 first. Together they are all pixels of the slice.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bits = NDArray[np.bool_]


def unpacked(content: bytes, count: int, rows: int, columns: int) -> list[Bits]:
    """Return `count` masks, (rows, columns) each, from packed ones (`app.web.drawing.DrawnSlice.packed`).

    Raises
    ------
    ValueError
        If they are not so many.
    """
    size = -(-rows * columns // 8)
    if len(content) != count * size:
        raise ValueError(f"expected {count} masks of {size} bytes, got {len(content)} bytes")
    packed = np.frombuffer(content, np.uint8).reshape(count, size)
    return [np.unpackbits(one, count=rows * columns).astype(np.bool_).reshape(rows, columns) for one in packed]


def run_lengths(mask: Bits) -> list[int]:
    """Return the runs of a mask, (rows, columns)."""
    flat = mask.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    lengths: list[int] = np.diff(edges).tolist()
    return [0, *lengths] if flat[0] else lengths


def png(mask: Bits) -> bytes:
    """Return a mask as a PNG of 8 bits: 255 inside, 0 outside. It holds no text and no time."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(buffer, "PNG")
    return buffer.getvalue()


def png_text(mask: Bits) -> str:
    """Return the PNG in Base64, for JSON."""
    return base64.b64encode(png(mask)).decode()
