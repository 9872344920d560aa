"""Look at an encoded data set without decoding it: is it whole, and which instance is it?

The walk reads element headers only and jumps over values, so its cost does not grow with the pixels. It goes into
sequences only where their length is undefined. Nothing here recurses or copies values; since the bytes come from
outside, the work is bounded and, where it is long, done for one object at a time. PS3.5 sections 7.1 (elements), 7.5
(sequences) and A.4 (encapsulated pixel data).
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Self

from app.errors import CannotUnderstand
from app.identifiers import UID, parse_uid

Buffer = bytes | bytearray | memoryview
"""Encoded bytes that can be looked at in place."""

IMPLICIT_VR_LITTLE_ENDIAN = UID("1.2.840.10008.1.2")
EXPLICIT_VR_BIG_ENDIAN = UID("1.2.840.10008.1.2.2")

PREFIX = b"DICM"
"""What follows the 128 bytes of preamble in a Part 10 file."""

MAXIMUM_DEPTH = 64
"""Deepest nesting of sequences that is followed; real objects stay below 16."""
MAXIMUM_HEADERS = 5_000_000
"""Most headers that are read in one data set; large multi-frame objects stay below a million."""
LONG_WALK_HEADERS = 100_000
"""From so many headers on a walk waits for its turn: a few peers that send millions would have the processor alone."""
_long_walk = threading.Lock()

_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_UNDEFINED = 0xFFFFFFFF
_ITEM = 0xFFFEE000
_ITEM_END = 0xFFFEE00D
_SEQUENCE_END = 0xFFFEE0DD
_PIXEL_DATA = 0x7FE00010
_HEADER_BYTES = 8
_PREAMBLE_BYTES = 128
_FILE_META_GROUP = b"\x02\x00"
_TRANSFER_SYNTAX_UID = 0x00020010

_SOP_CLASS_UID = 0x00080016
_SOP_INSTANCE_UID = 0x00080018
_STUDY_INSTANCE_UID = 0x0020000D
_SERIES_INSTANCE_UID = 0x0020000E
_SAMPLES_PER_PIXEL = 0x00280002
_PHOTOMETRIC_INTERPRETATION = 0x00280004
_NUMBER_OF_FRAMES = 0x00280008
_ROWS = 0x00280010
_COLUMNS = 0x00280011
_BITS_ALLOCATED = 0x00280100
_WANTED = frozenset(
    {
        _SOP_CLASS_UID,
        _SOP_INSTANCE_UID,
        _STUDY_INSTANCE_UID,
        _SERIES_INSTANCE_UID,
        _SAMPLES_PER_PIXEL,
        _PHOTOMETRIC_INTERPRETATION,
        _NUMBER_OF_FRAMES,
        _ROWS,
        _COLUMNS,
        _BITS_ALLOCATED,
    }
)
_LONGEST_WANTED_VALUE = 128


@dataclass(frozen=True)
class InstanceHeader:
    """What identifies an instance, as its data set says."""

    sop_class_uid: UID
    sop_instance_uid: UID
    study_instance_uid: UID
    series_instance_uid: UID
    transfer_syntax_uid: UID


class Element(NamedTuple):
    """The header of one data element: ``tag`` as group << 16 | element, and where its value lies."""

    tag: int
    vr: bytes
    """Two letters; empty in implicit VR."""
    start: int
    """Offset of the first byte of the value."""
    length: int
    """Bytes of the value; 0xFFFFFFFF if undefined."""


@dataclass
class _Level:
    """One open data set, item or sequence during a walk."""

    inside_sequence: bool
    explicit: bool
    fragments: bool = False


@dataclass
class _Walk:
    data: Buffer
    explicit: bool
    big_endian: bool
    offset: int = 0
    headers: int = 0
    open_levels: list[_Level] = field(default_factory=list)
    has_turn: bool = False

    def __post_init__(self) -> None:
        self.most_headers = LONG_WALK_HEADERS
        order = ">" if self.big_endian else "<"
        self.tag_and_length = struct.Struct(f"{order}HHI").unpack_from
        self.short_header = struct.Struct(f"{order}HH2sH").unpack_from
        self.long_length = struct.Struct(f"{order}I").unpack_from

    def element(self, explicit: bool) -> Element:
        """Read the header at the offset and step behind it."""
        self.headers += 1
        if self.headers > self.most_headers:
            self.go_on()
        start = self.offset
        if start + _HEADER_BYTES > len(self.data):
            raise _truncated("ends within the header of an element")
        group, number, length = self.tag_and_length(self.data, start)
        tag = group << 16 | number
        if not explicit or group == _ITEM >> 16:
            self.offset = start + _HEADER_BYTES
            return Element(tag, b"", self.offset, length)
        _, _, vr, length = self.short_header(self.data, start)
        if vr not in _SHORT_VRS:
            if not (vr.isalpha() and vr.isupper()):
                raise CannotUnderstand("a value representation is not two capital letters", code="unreadable")
            if start + _HEADER_BYTES + 4 > len(self.data):
                raise _truncated("ends within the header of an element")
            (length,) = self.long_length(self.data, start + _HEADER_BYTES)
            start += 4
        self.offset = start + _HEADER_BYTES
        return Element(tag, vr, self.offset, length)

    def go_on(self) -> None:
        """Become a long walk, of which there is one at a time; CannotUnderstand if it is one for too long."""
        if self.has_turn:
            raise CannotUnderstand("the data set has too many elements to be a real object", code="too-many-elements")
        _long_walk.acquire()
        self.has_turn = True
        self.most_headers = MAXIMUM_HEADERS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let the next long walk begin, if this was one."""
        if self.has_turn:
            self.has_turn = False
            _long_walk.release()

    def skip(self, length: int) -> None:
        """Step over a value, which must lie within the bytes."""
        self.offset += length
        if self.offset > len(self.data):
            raise _truncated(f"a value is {self.offset - len(self.data)} bytes shorter than its header says")

    def enter(self, level: _Level) -> None:
        """Open an item or a sequence."""
        if len(self.open_levels) >= MAXIMUM_DEPTH:
            raise CannotUnderstand(f"sequences are nested deeper than {MAXIMUM_DEPTH} levels", code="nested-too-deep")
        self.open_levels.append(level)

    def step_in_sequence(self, level: _Level) -> None:
        """Read an item or the delimiter of a sequence of undefined length (PS3.5 section 7.5.2)."""
        item = self.element(level.explicit)
        if item.tag == _SEQUENCE_END:
            self.open_levels.pop()
        elif item.tag != _ITEM:
            raise CannotUnderstand("a sequence holds something else than items", code="unreadable")
        elif item.length != _UNDEFINED:
            self.skip(item.length)
        elif level.fragments:
            raise CannotUnderstand("a fragment of the pixel data has no length", code="unreadable")
        else:
            self.enter(_Level(inside_sequence=False, explicit=level.explicit))

    def step_in_item(self, level: _Level) -> None:
        """Read an element, or the delimiter of an item of undefined length."""
        element = self.element(level.explicit)
        if element.tag == _ITEM_END:
            self.open_levels.pop()
        else:
            self.pass_value(element, level.explicit)

    def pass_value(self, element: Element, explicit: bool) -> None:
        """Step over an element's value, or open it if its length is undefined."""
        if element.tag >> 16 == _ITEM >> 16:
            raise CannotUnderstand("an item lies outside a sequence", code="unreadable")
        if element.length != _UNDEFINED:
            self.skip(element.length)
            return
        if explicit and element.vr not in (b"SQ", b"UN", b"OB", b"OW"):
            raise CannotUnderstand("an element that can't have it has an undefined length", code="unreadable")
        # PS3.5 section 6.2.2: the content of an unknown element of undefined length is in implicit VR little endian
        inner_explicit = explicit and element.vr != b"UN"
        self.enter(_Level(inside_sequence=True, explicit=inner_explicit, fragments=element.vr in (b"OB", b"OW")))


def walk(data: Buffer, *, explicit: bool, big_endian: bool = False) -> Generator[Element, None, None]:
    """Yield the top-level elements of an encoded data set; nested ones are checked and passed.

    Raises
    ------
    CannotUnderstand
        Code ``truncated`` if the bytes end before the lengths say so; ``unreadable``, ``nested-too-deep`` or
        ``too-many-elements`` if they can't be a data set.
    """
    with _Walk(data, explicit, big_endian) as state:
        while state.offset < len(data):
            if _is_padding(data, state.offset):
                return
            element = state.element(explicit)
            state.pass_value(element, explicit)
            yield element
            while state.open_levels:
                level = state.open_levels[-1]
                if level.inside_sequence:
                    state.step_in_sequence(level)
                else:
                    state.step_in_item(level)


def inspect_data_set(data: Buffer, transfer_syntax_uid: UID) -> InstanceHeader:
    """Check that an encoded data set is whole and return what identifies its instance.

    Parameters
    ----------
    data
        The data set as it was sent, without File Meta Information. Nothing is copied but the identifying values.
    transfer_syntax_uid
        How it is encoded. Deflated syntaxes are not inflated and fail as unreadable.

    Raises
    ------
    CannotUnderstand
        As `walk`; besides ``pixel-data-short`` if native pixel data are shorter than the image needs, ``uid-missing``
        and ``uid-invalid`` if a UID that identifies the instance is absent or malformed.
    """
    big_endian = transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN
    view = memoryview(data)
    values: dict[int, bytes] = {}
    pixel_data_length: int | None = None
    for element in walk(view, explicit=transfer_syntax_uid != IMPLICIT_VR_LITTLE_ENDIAN, big_endian=big_endian):
        if element.tag in _WANTED and element.length <= _LONGEST_WANTED_VALUE:
            values[element.tag] = bytes(view[element.start : element.start + element.length])
        elif element.tag == _PIXEL_DATA and element.length != _UNDEFINED:
            pixel_data_length = element.length
    if pixel_data_length is not None:
        _check_pixel_data(values, pixel_data_length, big_endian)
    return InstanceHeader(
        sop_class_uid=_uid(values, _SOP_CLASS_UID, "SOP Class UID"),
        sop_instance_uid=_uid(values, _SOP_INSTANCE_UID, "SOP Instance UID"),
        study_instance_uid=_uid(values, _STUDY_INSTANCE_UID, "Study Instance UID"),
        series_instance_uid=_uid(values, _SERIES_INSTANCE_UID, "Series Instance UID"),
        transfer_syntax_uid=transfer_syntax_uid,
    )


def split_part_10(data: Buffer) -> tuple[str, int]:
    """Return a Part 10 file's Transfer Syntax UID, unchecked, and the offset of its data set (PS3.10 section 7).

    Raises
    ------
    CannotUnderstand
        Code ``not-dicom`` if the prefix is missing; as `walk` if the File Meta Information can't be read.
    """
    view = memoryview(data)
    if bytes(view[_PREAMBLE_BYTES : _PREAMBLE_BYTES + len(PREFIX)]) != PREFIX:
        raise CannotUnderstand(f"not a DICOM file: 'DICM' is missing at byte {_PREAMBLE_BYTES}", code="not-dicom")
    transfer_syntax = ""
    with _Walk(view, explicit=True, big_endian=False, offset=_PREAMBLE_BYTES + len(PREFIX)) as meta:
        while view[meta.offset : meta.offset + 2] == _FILE_META_GROUP:
            element = meta.element(explicit=True)
            meta.skip(element.length)
            if element.tag == _TRANSFER_SYNTAX_UID:
                value = bytes(view[element.start : meta.offset])
                transfer_syntax = value.decode("ascii", errors="replace").rstrip("\x00 ")
    return transfer_syntax, meta.offset


def _truncated(what: str) -> CannotUnderstand:
    return CannotUnderstand(f"the data set is truncated: {what}; send the whole object", code="truncated")


def _is_padding(data: Buffer, offset: int) -> bool:
    """Whether only a few zero bytes are left, with which some senders fill up; no element is that short."""
    return len(data) - offset < _HEADER_BYTES and not any(data[offset:])


def _uid(values: dict[int, bytes], tag: int, name: str) -> UID:
    text = values.get(tag, b"").decode("ascii", errors="replace").rstrip("\x00 ")
    if not text:
        raise CannotUnderstand(f"the data set has no {name}; expected one (type 1)", code="uid-missing")
    try:
        return parse_uid(text)
    except ValueError as error:
        raise CannotUnderstand(f"the data set's {name} is {error}", code="uid-invalid") from None


def _check_pixel_data(values: dict[int, bytes], length: int, big_endian: bool) -> None:
    """Compare the length of native pixel data with what the image needs (PS3.5 section 8.1.1)."""
    order: Literal["big", "little"] = "big" if big_endian else "little"

    def number(tag: int, default: int) -> int:
        value = values.get(tag, b"")
        return int.from_bytes(value[:2], order) if len(value) >= 2 else default

    samples = number(_SAMPLES_PER_PIXEL, 1)
    if values.get(_PHOTOMETRIC_INTERPRETATION, b"").strip(b"\x00 ") in (b"YBR_FULL_422", b"YBR_PARTIAL_422"):
        samples = 2  # two chrominance samples are shared by two pixels (PS3.3 section C.7.6.3.1.2)
    frames_text = values.get(_NUMBER_OF_FRAMES, b"").strip(b"\x00 ")
    frames = int(frames_text) if frames_text.isdigit() else 1
    bits = number(_ROWS, 0) * number(_COLUMNS, 0) * number(_BITS_ALLOCATED, 0) * samples * frames
    needed = (bits + 7) // 8
    if length < needed:
        raise CannotUnderstand(
            f"the pixel data have {length} bytes where the image needs {needed}; send the whole object",
            code="pixel-data-short",
        )
