import contextlib
import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import dimse_messages
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode, encode

from app.listener.commands import C_STORE_RQ, Command, decode_command, encode_response, text_of

CT = "1.2.840.10008.5.1.4.1.1.2"


def element(number: int, value: bytes, group: int = 0) -> bytes:
    return struct.pack("<HHI", group, number, len(value)) + value


def toolkits_request() -> bytes:
    primitive = C_STORE()
    primitive.MessageID = 7
    primitive.AffectedSOPClassUID = CT
    primitive.AffectedSOPInstanceUID = "1.2.3"
    primitive.Priority = 2
    primitive.DataSet = BytesIO(b"data")
    message = dimse_messages.C_STORE_RQ()
    message.primitive_to_message(primitive)
    encoded = encode(message.command_set, True, True)
    assert encoded is not None
    return bytes(encoded)


def test_a_request_that_the_toolkit_encodes_is_decoded() -> None:
    command = decode_command(toolkits_request())
    assert command == Command(C_STORE_RQ, 7, True, CT.encode() + b"\0", b"1.2.3\0")
    assert (text_of(command.sop_class_uid), text_of(command.sop_instance_uid)) == (CT, "1.2.3")


@pytest.mark.parametrize("comment", ["", "odd", "even", "x" * 100])
def test_a_response_is_what_the_toolkit_decodes(comment: str) -> None:
    request = decode_command(toolkits_request())
    encoded = encode_response(request, 0xA700, comment)
    response = decode(BytesIO(encoded), True, True)
    assert response.CommandGroupLength == len(encoded) - 12
    assert response.CommandField == 0x8001
    assert response.MessageIDBeingRespondedTo == 7
    assert (response.AffectedSOPClassUID, response.AffectedSOPInstanceUID) == (CT, "1.2.3")
    assert response.CommandDataSetType == 0x0101
    assert response.Status == 0xA700
    assert response.get("ErrorComment", "") == comment[:64]
    assert [one.tag for one in response] == sorted(one.tag for one in response)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        toolkits_request()[:-1],
        toolkits_request() + bytes(3),
        element(0x0100, b"\1\0") + element(0x0800, b"\0\0"),  # no Message ID
        element(0x0100, b"\1\0\0\0") + element(0x0110, b"\1\0") + element(0x0800, b"\0\0"),
        element(0x0010, b"x", group=8),
        element(0x0100, b"\1\0") + struct.pack("<HHI", 0, 0x110, 0xFFFFFFFF),
    ],
)
def test_what_is_no_command_set_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="command set"):
        decode_command(data)


@given(st.binary(max_size=200))
def test_nothing_else_comes_of_any_bytes(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode_command(data)


def test_a_uid_that_is_no_ascii_becomes_no_uid() -> None:
    assert text_of(b"1.2\xff") == "1.2�"
