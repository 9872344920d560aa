"""Objects as Part 10 files, byte for byte what pydicom makes of them.

An object of many frames describes each of them, in the same few ways: a slice lies where it lies and was derived from
what it was derived from whichever segment it shows. pydicom would encode that again for each frame, for longer than
all else that an object takes. Here it is encoded once for each slice, and once for each segment.
"""

from __future__ import annotations

import io
import struct

import pydicom
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import BaseTag, Tag

CharacterSet = str | list[str]

_FRAMES = Tag("PerFrameFunctionalGroupsSequence")
_FRAME_CONTENT = Tag("FrameContentSequence")
_SEGMENT_IDENTIFICATION = Tag("SegmentIdentificationSequence")
_SEGMENT_NUMBER = Tag("ReferencedSegmentNumber")
_ITEM = struct.Struct("<HHL")
"""Tag and length of a sequence's item (PS3.5 section 7.5)."""
_SEQUENCE = struct.Struct("<HH2sHL")
"""The same of a sequence itself, in Explicit VR."""


def encode_file(dataset: pydicom.Dataset) -> bytes:
    """Return a finished object as a Part 10 file (PS3.10 section 7)."""
    if "DimensionIndexSequence" not in dataset or _FRAMES not in dataset:
        return _whole(dataset)
    before, others = dataset[:_FRAMES], dataset[:]
    del others[_FRAMES]
    before.file_meta = others.file_meta = dataset.file_meta
    whole, place = memoryview(_whole(others)), len(_whole(before))
    items = b"".join(_items(dataset))
    head = _SEQUENCE.pack(_FRAMES.group, _FRAMES.element, b"SQ", 0, len(items))
    return b"".join([whole[:place], head, items, whole[place:]])


def _whole(dataset: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _explicit(dataset: pydicom.Dataset, character_set: CharacterSet) -> bytes:
    """Return a part of a data set in Explicit VR Little Endian."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, dataset, character_set)
    return buffer.getvalue()


def _items(dataset: pydicom.Dataset) -> list[bytes]:
    """Return the items of the Per-Frame Functional Groups Sequence, in parts."""
    character_set: CharacterSet = dataset.get("SpecificCharacterSet", "iso8859")
    pointers = [item.DimensionIndexPointer for item in dataset.DimensionIndexSequence]
    encoded: dict[tuple[BaseTag, tuple[int, ...]], bytes] = {}
    items: list[bytes] = []
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        place = groups.FrameContentSequence[0].DimensionIndexValues
        indices = dict(zip(pointers, [place] if isinstance(place, int) else place, strict=True))
        parts = []
        for tag in sorted(groups.keys()):
            key = tag, _decides(tag, indices)
            if key not in encoded:
                encoded[key] = _explicit(pydicom.Dataset({tag: groups[tag]}), character_set)
            parts.append(encoded[key])
        items += [_ITEM.pack(0xFFFE, 0xE000, sum(map(len, parts))), *parts]
    return items


def _decides(tag: BaseTag, indices: dict[BaseTag, int]) -> tuple[int, ...]:
    """Return the dimension indices (PS3.3 C.7.6.17) of a frame that decide what one of its functional groups says."""
    if tag == _FRAME_CONTENT:
        return tuple(indices.values())
    of_segment = tag == _SEGMENT_IDENTIFICATION
    return tuple(index for pointer, index in indices.items() if (pointer == _SEGMENT_NUMBER) == of_segment)
