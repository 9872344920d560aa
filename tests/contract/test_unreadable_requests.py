"""Association requests that the toolkit can't read or take: their senders must not be invisible to the operator."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.audit.events import AuditEvent
from tests.listening import Listening, RawPeer, listening, wait_until

HOST = "127.0.0.1"
CODE = "request-unreadable"
P_DATA, ABORT, REJECTION, UNKNOWN = 4, 7, 3, 9  # PDU types (PS3.8 section 9.3.1)
NOTHING = 0  # a connection that is closed
PADDED_WITH_NUL = (b"RAW".ljust(16), b"RAW".ljust(16, b"\0"))
EVEN_CONTEXT_ID = (b"\1\0\0\0\x30", b"\2\0\0\0\x30")
OTHER_VERSION = (b"\0\1\0\0LIMNER", b"\0\2\0\0LIMNER")


class OddPeer(RawPeer):
    """Sends something else in place of a part of each PDU."""

    def __init__(self, port: int, part: bytes, instead: bytes) -> None:
        super().__init__(port)
        self._part, self._instead = part, instead

    def send_pdu(self, kind: int, body: bytes) -> None:
        assert self._part in body
        super().send_pdu(kind, body.replace(self._part, self._instead))


def told(at: Listening) -> list[dict[str, str]]:
    return at.audit.of(AuditEvent.ASSOCIATION_REFUSED)


@pytest.mark.parametrize(
    ("change", "answer"), [(PADDED_WITH_NUL, ABORT), (EVEN_CONTEXT_ID, ABORT), (OTHER_VERSION, REJECTION)]
)
def test_a_request_that_cannot_be_read_is_told(tmp_path: Path, change: tuple[bytes, bytes], answer: int) -> None:
    with listening(tmp_path / "spool") as at:
        with capture_logs() as logs, OddPeer(at.port, *change) as peer:
            peer.request()
            assert peer.read_pdu()[0] == answer
            wait_until(lambda: told(at))
        assert [(one["log_level"], one["code"], one["source_host"]) for one in logs] == [("warning", CODE, HOST)]
        assert told(at) == [{"source_host": HOST, "code": CODE}]
        with RawPeer(at.port) as other:
            other.associate()


def test_what_is_no_request_is_told_each_time_in_the_log_and_once_a_minute_in_the_audit_log(tmp_path: Path) -> None:
    with listening(tmp_path / "spool") as at, capture_logs() as logs:
        for kind in (P_DATA, UNKNOWN, P_DATA):
            with RawPeer(at.port) as peer:
                peer.send_pdu(kind, b"what is no request")
                assert peer.read_pdu()[0] in (ABORT, NOTHING)
        wait_until(lambda: len(logs) == 3)
    assert {one["code"] for one in logs} == {CODE}
    assert told(at) == [{"source_host": HOST, "code": CODE}]


def test_who_goes_without_a_word_is_not_told(tmp_path: Path) -> None:
    with listening(tmp_path / "spool") as at, capture_logs() as logs:
        RawPeer(at.port).socket.close()
        wait_until(lambda: not at.listener._server.active_associations)  # type: ignore[union-attr]
    assert logs == []
    assert told(at) == []
