from pathlib import Path

import pytest

from app.delivery.destination import Destination
from app.delivery.dimse import Peer, check_status, read_file_syntax
from app.delivery.storage import DimseDestination
from app.errors import DeliveryError, DeliveryRefused
from app.settings import DestinationSettings
from tests.listening import CT, EXPLICIT, write_ct

PEER = Peer("192.0.2.1", 104, "PACS", "LIMNER")


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0x0107, 0x0116, 0x0111])
def test_stored_with_or_without_a_remark(status: int) -> None:
    check_status(status, PEER)


@pytest.mark.parametrize("status", [0xA900, 0xA9FF, 0xC000, 0xC211, 0xCFFF, 0x0117, 0x0122, 0x0124])
def test_what_the_same_bytes_would_meet_again_is_refused_for_good(status: int) -> None:
    with pytest.raises(DeliveryRefused, match=f"0x{status:04X}") as caught:
        check_status(status, PEER)
    assert caught.value.code == f"status-{status:04x}"
    assert not caught.value.retryable


@pytest.mark.parametrize("status", [0xA700, 0xA7FF, 0x0110, 0x0210, 0x0213, 0xFE00, 0x1234])
def test_anything_else_may_pass_later(status: int) -> None:
    with pytest.raises(DeliveryError) as caught:
        check_status(status, PEER)
    assert type(caught.value) is DeliveryError
    assert caught.value.retryable


def test_what_a_file_needs(tmp_path: Path) -> None:
    syntax = read_file_syntax(write_ct(tmp_path / "ct.dcm"))
    assert (syntax.sop_class_uid, syntax.transfer_syntax_uid) == (CT, EXPLICIT)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(128) + b"DICM", bytes(1000)])
def test_what_is_no_dicom_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DeliveryRefused) as caught:
        read_file_syntax(path)
    assert caught.value.code == "not-dicom"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeliveryRefused) as caught:
        read_file_syntax(tmp_path / "none")
    assert caught.value.code == "file-unreadable"


def test_it_is_a_destination() -> None:
    settings = DestinationSettings(name="pacs", ae_title="PACS", host="192.0.2.1", port=104)
    destination: Destination = DimseDestination(settings, "LIMNER")
    assert destination.name == "pacs"
