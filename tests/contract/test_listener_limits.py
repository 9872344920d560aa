"""What is turned away for now, by A-ASSOCIATE-RJ, before it costs anything (PS3.8 section 9.3.4)."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from app.audit.events import AuditEvent
from app.delivery.dimse import Peer, echo
from app.errors import OutOfResources
from app.listener import janitor, limits
from app.listener.commitment import CommitmentReports
from tests.listening import CT, STORAGE_COMMITMENT, RawPeer, RecordedAudit, listening, wait_until

HOST = "127.0.0.1"
TRANSIENT_CONGESTION = bytes((0, 2, 3, 1))
TRANSIENT_LIMIT = bytes((0, 2, 3, 2))
VERIFICATION = "1.2.840.10008.1.1"


def rejection(port: int, **request: str) -> bytes:
    """The body of the A-ASSOCIATE-RJ that a request gets."""
    with RawPeer(port) as raw:
        raw.request(**request)
        kind, body = raw.read_pdu()
        assert kind == 3, f"not rejected: PDU type {kind}"
        return body


def test_one_address_does_not_take_the_places_of_all(tmp_path: Path) -> None:
    with listening(tmp_path / "spool", maximum_associations_per_address=3) as at:
        taken = [RawPeer(at.port) for _ in range(3)]
        for one in taken:
            one.associate()
        assert rejection(at.port) == TRANSIENT_LIMIT
        with RawPeer(at.port, source="127.0.0.2") as other:
            other.associate()
        silent = [RawPeer(at.port) for _ in range(30)]  # above the limit and the few that get an answer: closed at once
        wait_until(lambda: sum(one.read_pdu() == (0, b"") for one in silent[-20:]) == 20)
        for one in (*taken, *silent):
            one.socket.close()
        wait_until(lambda: not at.listener._server.active_associations)  # type: ignore[union-attr]
        echo(Peer(HOST, at.port, "LIMNER", "MODALITY", 30))
    assert [one["code"] for one in at.audit.of(AuditEvent.ASSOCIATION_REFUSED)] == ["too-many-from-address"]


def test_silent_connections_from_everywhere_have_an_end_too(tmp_path: Path) -> None:
    """Each is a thread: so many as there may be associations, and forty that get an answer, and no more."""
    with listening(tmp_path / "spool", maximum_associations=1, acse_timeout_seconds=60) as at:
        silent = [RawPeer(at.port, source=f"127.0.0.{2 + number % 3}") for number in range(41)]
        with RawPeer(at.port, source="127.0.0.9") as late:
            assert late.read_pdu() == (0, b"")  # closed at once
        for one in silent:
            one.socket.settimeout(0.05)
            with pytest.raises(TimeoutError):  # open still
                one.socket.recv(1)
            one.socket.close()


def test_below_the_watermark_senders_wait_and_monitors_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(tmp_path / "spool", low_water_bytes=1 << 62) as at:
        assert [rejection(at.port) for _ in range(3)] == [TRANSIENT_CONGESTION] * 3
        with RawPeer(at.port) as monitor:
            monitor.associate(VERIFICATION)
        at.spool._low_water_bytes = 0
        with RawPeer(at.port) as raw:
            raw.associate()
    [refused] = at.audit.of(AuditEvent.STORAGE_BELOW_WATERMARK)  # one a minute, however often it is tried
    assert refused["code"] == "storage-below-watermark"
    assert at.audit.of(AuditEvent.ASSOCIATION_REFUSED) == []


def test_a_backlog_makes_senders_wait_and_is_asked_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, asked = [9], []

    def backlog() -> int:
        asked.append(time.monotonic())
        if waiting[0] < 0:
            raise OutOfResources("the records can't be read", code="records-unavailable")
        return waiting[0]

    with listening(tmp_path / "spool", backlog=backlog, backlog_limit=10) as at:
        for _ in range(5):
            with RawPeer(at.port) as raw:
                raw.associate()
        assert len(asked) <= 3
        waiting[0] = 10
        monkeypatch.setattr(limits, "_BACKLOG_SECONDS", 0.0)
        assert rejection(at.port) == TRANSIENT_LIMIT
        waiting[0] = -1
        assert rejection(at.port) == TRANSIENT_LIMIT  # what was known last holds
        waiting[0] = 0
        with RawPeer(at.port) as raw:
            raw.associate()
    assert [one["code"] for one in at.audit.of(AuditEvent.ASSOCIATION_REFUSED)] == ["backlog-too-long"]


def test_nobody_else_waits_while_the_backlog_is_asked(tmp_path: Path) -> None:
    """A database that is away has the question take seconds."""
    asked, go_on = threading.Semaphore(0), threading.Event()

    def backlog() -> int:
        asked.release()
        go_on.wait(20)
        return 10

    with (
        listening(tmp_path / "spool", backlog=backlog, backlog_limit=10) as at,
        RawPeer(at.port) as first,
        RawPeer(at.port) as monitor,
        RawPeer(at.port) as second,
    ):
        first.request()
        assert asked.acquire(timeout=20)
        for one, sop_class in ((monitor, VERIFICATION), (second, CT)):  # what was known last holds for the second
            one.socket.settimeout(10)
            one.associate(sop_class)
        go_on.set()
        assert first.read_pdu() == (3, TRANSIENT_LIMIT)
        assert not asked.acquire(blocking=False)


def test_without_a_limit_the_backlog_is_not_asked(tmp_path: Path) -> None:
    def backlog() -> int:
        raise AssertionError("asked")

    with listening(tmp_path / "spool", backlog=backlog, backlog_limit=0) as at, RawPeer(at.port) as raw:
        raw.associate()


def test_reports_of_commitment_need_no_room(tmp_path: Path) -> None:
    """Without them what waits would become more."""
    reports = CommitmentReports({"RAW": ["archive"]}, lambda *_: True, RecordedAudit())  # type: ignore[arg-type]
    full = listening(tmp_path / "spool", backlog=lambda: 10, backlog_limit=10, low_water_bytes=1 << 62, reports=reports)
    with full as at:
        with RawPeer(at.port) as reporting:
            reporting.associate(STORAGE_COMMITMENT, scp_of=STORAGE_COMMITMENT)
        with RawPeer(at.port) as storing, pytest.raises(AssertionError, match="not accepted"):
            storing.associate()


def test_what_a_dead_thread_left_is_swept_and_what_is_written_is_not(tmp_path: Path) -> None:
    with listening(tmp_path / "spool") as at:
        running = at.spool.receive(b"head")
        stuck = at.spool.receive(b"head")
        [one, two] = at.parts()
        (tmp_path / "spool" / "incoming" / "dead.part").write_bytes(b"of a process that was killed")
        assert at.spool.sweep() == 1
        assert set(at.parts()) == {one, two}
        an_hour_ago = time.time() - 3601
        os.utime(stuck.path or "", (an_hour_ago, an_hour_ago))
        assert at.spool.sweep() == 1
        running.write(b"bytes")
        assert running.keep().path.read_bytes() == b"headbytes"
        stuck.discard()


def test_the_listener_sweeps_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(janitor, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(janitor, "_SWEEP_SECONDS", 0.0)
    with listening(tmp_path / "spool") as at:
        running = at.spool.receive(b"head")
        dead = tmp_path / "spool" / "incoming" / "dead.part"
        dead.write_bytes(b"of a process that was killed")
        wait_until(lambda: not dead.exists())
        assert len(at.parts()) == 1  # what is written stays
        running.discard()


def test_a_listener_with_ipv6_counts_by_address_too(tmp_path: Path) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with (
        listening(tmp_path / "spool", host="::1", maximum_associations_per_address=1) as at,
        RawPeer(at.port, host="::1") as first,
        RawPeer(at.port, host="::1") as second,
    ):
        first.associate()
        second.request()
        assert second.read_pdu() == (3, TRANSIENT_LIMIT)
