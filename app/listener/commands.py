"""Command sets of C-ECHO and C-STORE, decoded and encoded (PS3.7 sections 6.3, 9.3.1, 9.3.5 and annex E).

A command set is always in Implicit VR Little Endian, and short: no element of it nests.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

C_STORE_RQ = 0x0001
C_ECHO_RQ = 0x0030
C_CANCEL_RQ = 0x0FFF
RESPONSE = 0x8000
"""What a response's Command Field has more than its request's."""

_ELEMENT = struct.Struct("<HHI")
_NUMBER = struct.Struct("<H")
_LONG = struct.Struct("<I")
_GROUP_LENGTH = 0x0000
_AFFECTED_SOP_CLASS_UID = 0x0002
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_RESPONDED_TO = 0x0120
_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000
_NO_DATA_SET = 0x0101
_LONGEST_COMMENT = 64


@dataclass(frozen=True)
class Command:
    """A request; its UIDs are as they were sent, unchecked."""

    field: int
    message_id: int
    has_data_set: bool
    sop_class_uid: bytes
    sop_instance_uid: bytes


def decode_command(data: bytes | bytearray) -> Command:
    """Decode a command set.

    Raises
    ------
    ValueError
        If it ends within an element, or lacks what every request has (PS3.7 section E.1).
    """
    elements: dict[int, bytes] = {}
    offset = 0
    while offset < len(data):
        if offset + _ELEMENT.size > len(data):
            raise ValueError("a command set ends within an element's header")
        group, number, length = _ELEMENT.unpack_from(data, offset)
        offset += _ELEMENT.size
        if group != 0 or length > len(data) - offset:
            raise ValueError("a command set has an element of another group, or one longer than itself")
        elements[number] = bytes(data[offset : offset + length])
        offset += length
    return Command(
        field=_number(elements, _COMMAND_FIELD),
        message_id=_number(elements, _MESSAGE_ID),
        has_data_set=_number(elements, _DATA_SET_TYPE) != _NO_DATA_SET,
        sop_class_uid=elements.get(_AFFECTED_SOP_CLASS_UID, b""),
        sop_instance_uid=elements.get(_AFFECTED_SOP_INSTANCE_UID, b""),
    )


def encode_response(command: Command, status: int, comment: str = "") -> bytes:
    """Encode the response to a request: a command set without a data set, with an Error Comment where one is given."""
    elements = [
        _encode(_AFFECTED_SOP_CLASS_UID, _padded(command.sop_class_uid, b"\0")) if command.sop_class_uid else b"",
        _encode(_COMMAND_FIELD, _NUMBER.pack(command.field | RESPONSE)),
        _encode(_MESSAGE_ID_RESPONDED_TO, _NUMBER.pack(command.message_id)),
        _encode(_DATA_SET_TYPE, _NUMBER.pack(_NO_DATA_SET)),
        _encode(_STATUS, _NUMBER.pack(status)),
        _encode(_ERROR_COMMENT, _padded(comment[:_LONGEST_COMMENT].encode("ascii"), b" ")) if comment else b"",
        _encode(_AFFECTED_SOP_INSTANCE_UID, _padded(command.sop_instance_uid, b"\0"))
        if command.sop_instance_uid
        else b"",
    ]
    body = b"".join(elements)
    return _encode(_GROUP_LENGTH, _LONG.pack(len(body))) + body


def text_of(value: bytes) -> str:
    """Return a UID of a command set as text, without padding; what is no ASCII becomes no valid UID."""
    return value.decode("ascii", errors="replace").rstrip("\x00 ")


def _number(elements: dict[int, bytes], number: int) -> int:
    value = elements.get(number, b"")
    if len(value) != _NUMBER.size:
        raise ValueError(f"a command set lacks element (0000,{number:04X}), or its value is no number of 16 bits")
    return int(_NUMBER.unpack(value)[0])


def _encode(number: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, number, len(value)) + value


def _padded(value: bytes, padding: bytes) -> bytes:
    return value + padding * (len(value) % 2)
