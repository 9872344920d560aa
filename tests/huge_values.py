"""Files with a private value of a gigabyte, as a Raw Data object may have: a hole, which takes no room on the disk."""

from __future__ import annotations

import struct
from pathlib import Path

import pydicom

GIGABYTE = 1 << 30
PRIVATE = 0x00711010
"""The tag of the value."""
_CREATOR = b"TEST"


def add_private_value(path: Path) -> None:
    """Put it before the pixel data, or at the end, of a file in Explicit VR Little Endian."""
    with path.open("rb") as file:
        pydicom.dcmread(file, stop_before_pixels=True)
        place = file.tell()
    content = path.read_bytes()
    with path.open("wb") as file:
        file.write(content[:place])
        file.write(struct.pack("<HH2sH", 0x0071, 0x0010, b"LO", len(_CREATOR)) + _CREATOR)
        file.write(struct.pack("<HH2sHI", PRIVATE >> 16, PRIVATE & 0xFFFF, b"OB", 0, GIGABYTE))
        file.seek(GIGABYTE, 1)
        file.write(content[place:])
        file.truncate(file.tell())
