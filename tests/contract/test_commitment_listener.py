"""What the listener takes from who reports commitments, and from who only says so (PS3.4 section J.3.3)."""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role

from app.delivery import commitment
from app.delivery.commitment import read_report
from app.delivery.destination import ReportedCommitment
from app.delivery.dimse import Peer, echo
from app.listener.commitment import CommitmentReports
from tests.listening import CT, STORAGE_COMMITMENT, RawPeer, RecordedAudit, listening, make_ct, wait_until

HOST = "127.0.0.1"
VERIFICATION = "1.2.840.10008.1.1"
_BLOCK = bytes(100_000)
_SENT = 400


class Keeping:
    """Keeps reports, each once it is let."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go_on = threading.Event()

    def keep(self, report: ReportedCommitment, names: Sequence[str]) -> bool:
        self.begun.append(report.transaction_uid)
        return self.go_on.wait(20)

    def reports(self) -> CommitmentReports:
        return CommitmentReports({"PACS": ["archive"], "RAW": ["archive"]}, self.keep, RecordedAudit())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("calling", "proposed", "has_role", "accepted"),
    [
        ("PACS", [STORAGE_COMMITMENT], True, {STORAGE_COMMITMENT}),
        ("PACS", [STORAGE_COMMITMENT, VERIFICATION], True, {STORAGE_COMMITMENT, VERIFICATION}),
        ("PACS", [CT, STORAGE_COMMITMENT], True, {STORAGE_COMMITMENT}),
        ("PACS", [CT, STORAGE_COMMITMENT, VERIFICATION], False, {CT, VERIFICATION}),
        ("PACS", [CT], False, {CT}),
        ("MODALITY", [CT, STORAGE_COMMITMENT], True, {CT}),
        ("MODALITY", [STORAGE_COMMITMENT], True, {STORAGE_COMMITMENT}),  # its reports are answered with 0x0124
    ],
)
def test_storage_is_never_accepted_beside_reports(
    tmp_path: Path, calling: str, proposed: list[str], has_role: bool, accepted: set[str]
) -> None:
    with listening(tmp_path / "spool", reports=Keeping().reports()) as at:
        entity = AE(calling)
        for one in proposed:
            entity.add_requested_context(one)
        role = build_role(STORAGE_COMMITMENT, scu_role=False, scp_role=True)
        association = entity.associate(HOST, at.port, ae_title="LIMNER", ext_neg=[role] if has_role else [])
        try:
            assert {str(one.abstract_syntax) for one in association.accepted_contexts} == accepted
        finally:
            association.release()


def test_without_destinations_that_report_nothing_changes(tmp_path: Path) -> None:
    with listening(tmp_path / "spool") as at, RawPeer(at.port) as raw:
        raw.associate(scp_of=STORAGE_COMMITMENT)
        raw.send_store_command(make_ct(1).SOPInstanceUID)
        raw.send_fragment(b"", command=False, last=True)
        assert raw.read_status() == 0xC000


def test_a_data_set_without_end_beside_reports_is_not_taken(tmp_path: Path) -> None:
    reports = Keeping().reports()
    with listening(tmp_path / "spool", reports=reports, acse_timeout_seconds=1) as at, RawPeer(at.port) as raw:
        raw.associate(scp_of=STORAGE_COMMITMENT)
        raw.send_store_command(make_ct(1).SOPInstanceUID)
        assert _taken_before_the_abort(raw) < _SENT
        echo(Peer(HOST, at.port, "LIMNER", "MODALITY", 30))


@pytest.mark.parametrize("is_command", [False, True])
def test_a_report_without_end_is_aborted(tmp_path: Path, is_command: bool) -> None:
    reports = Keeping().reports()
    with listening(tmp_path / "spool", reports=reports, acse_timeout_seconds=1) as at, RawPeer(at.port) as raw:
        raw.associate(STORAGE_COMMITMENT, scp_of=STORAGE_COMMITMENT)
        if not is_command:
            raw.send_report_command(1)
        assert _taken_before_the_abort(raw, is_command=is_command) < _SENT
        wait_until(lambda: not at.listener._server.active_associations)  # type: ignore[union-attr]


def test_reports_that_nobody_waits_for_are_taken_one_at_a_time(tmp_path: Path) -> None:
    keeping, count = Keeping(), 30
    with listening(tmp_path / "spool", reports=keeping.reports()) as at, RawPeer(at.port) as raw:
        raw.associate(STORAGE_COMMITMENT, scp_of=STORAGE_COMMITMENT)
        for number in range(1, count + 1):
            raw.send_report_command(number)
            raw.send_fragment(_transaction(f"1.2.3.{100 + number}"), command=False, last=True)
        wait_until(lambda: keeping.begun)
        threading.Event().wait(0.5)  # for those that must not come
        assert keeping.begun == ["1.2.3.101"]
        keeping.go_on.set()
        assert [raw.read_status() for _ in range(count)] == [0] * count
        assert keeping.begun == [f"1.2.3.{100 + number}" for number in range(1, count + 1)]
        raw.send_pdu(5, bytes(4))
        assert raw.read_pdu()[0] == 6


def test_reports_of_many_peers_are_read_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read, a report is some twenty times as long as it comes."""
    keeping, count = Keeping(), 6
    keeping.go_on.set()
    at_once: list[int] = []
    reading = threading.Semaphore(count)

    def read(information: Dataset) -> ReportedCommitment:
        with reading:
            at_once.append(count - reading._value)
            threading.Event().wait(0.1)
            return read_report(information)

    monkeypatch.setattr(commitment, "read_report", read)
    with listening(tmp_path / "spool", reports=keeping.reports()) as at, ExitStack() as stack:
        peers = [stack.enter_context(RawPeer(at.port)) for _ in range(count)]
        for number, raw in enumerate(peers):
            raw.associate(STORAGE_COMMITMENT, scp_of=STORAGE_COMMITMENT)
            raw.send_report_command(1)
            raw.send_fragment(_transaction(f"1.2.3.{number + 1}"), command=False, last=True)
        assert [raw.read_status() for raw in peers] == [0] * count
    assert at_once == [1] * count


def test_a_report_on_hundreds_of_objects_is_taken(tmp_path: Path) -> None:
    keeping = Keeping()
    keeping.go_on.set()
    items = b"".join(_item(f"2.25.{10**38 + number}") for number in range(700))
    report = _transaction("1.2.3.4") + struct.pack("<HH2sxxI", 0x0008, 0x1199, b"SQ", len(items)) + items
    with listening(tmp_path / "spool", reports=keeping.reports()) as at, RawPeer(at.port) as raw:
        raw.associate(STORAGE_COMMITMENT, scp_of=STORAGE_COMMITMENT)
        raw.send_report_command(1)
        for start in range(0, len(report), 10_000):
            raw.send_fragment(report[start : start + 10_000], command=False, last=start + 10_000 >= len(report))
        assert raw.read_status() == 0
    assert keeping.begun == ["1.2.3.4"]


def _item(uid: str) -> bytes:
    """An item of a Referenced SOP Sequence in Explicit VR Little Endian."""
    values = ((0x1150, b"1.2.840.10008.5.1.4.1.1.66.4"), (0x1155, uid.encode() + b"\0" * (len(uid) % 2)))
    elements = b"".join(struct.pack("<HH2sH", 0x0008, number, b"UI", len(value)) + value for number, value in values)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(elements)) + elements


def _transaction(uid: str) -> bytes:
    """A report's Transaction UID in Explicit VR Little Endian, and nothing else."""
    value = uid.encode() + b"\0" * (len(uid) % 2)
    return struct.pack("<HH2sH", 0x0008, 0x1195, b"UI", len(value)) + value


def _taken_before_the_abort(raw: RawPeer, *, is_command: bool = False) -> int:
    """Send parts of 100 kB, 40 MB at most, until the association is aborted; how many could be sent."""
    raw.socket.settimeout(5)
    for sent in range(_SENT):
        try:
            raw.send_fragment(_BLOCK, command=is_command, last=False)
        except OSError:
            return sent
    return _SENT
