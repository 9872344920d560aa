"""The listener against a pynetdicom sender, and against peers that keep to no rule."""

import hashlib
import inspect
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog, verify
from app.delivery.dimse import FileSyntax, Peer, associated, echo, read_file_syntax, send_file
from app.delivery.sending import send_folder
from app.errors import AuditError, DeliveryError, OutOfResources
from app.identifiers import UID
from app.jobs.records import Instance
from app.listener import reception
from app.listener.connection import BoundedSocket
from app.listener.spool import Spool, read_instance_header
from tests.listening import CT, EXPLICIT, IMPLICIT, Listening, RawPeer, listening, make_ct, wait_until, write_ct

HOST = "127.0.0.1"


def peer(port: int, called: str = "LIMNER", calling: str = "MODALITY") -> Peer:
    return Peer(HOST, port, called, calling, 30)


def send(at: Listening, *paths: Path) -> list[int | None]:
    return [one.status for one in send_folder(paths, HOST, at.port, "LIMNER", "MODALITY").files]


def encode(dataset: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def store_raw(port: int, data: bytes, sop_instance: str, sop_class: str = CT, context_class: str = CT) -> int:
    """Send these bytes as the data set of a C-STORE; return the status."""
    with RawPeer(port) as raw:
        raw.associate(context_class)
        raw.send_store_command(sop_instance, sop_class)
        raw.send_fragment(data, command=False, last=True)
        status = raw.read_status()
        raw.send_pdu(5, bytes(4))
        assert raw.read_pdu()[0] == 6
        return status


def test_an_instance_is_kept_as_it_was_sent(tmp_path: Path) -> None:
    source = write_ct(tmp_path / "ct.dcm", 1)
    with listening(tmp_path / "spool") as at:
        assert send(at, source) == [0]
        [instance] = at.instances
    image = make_ct(1)
    header = read_instance_header(at.spool.path_of(instance.digest))
    assert (instance.sop_instance_uid, instance.sop_class_uid) == (image.SOPInstanceUID, CT)
    assert (instance.study_instance_uid, instance.series_instance_uid) == (
        image.StudyInstanceUID,
        image.SeriesInstanceUID,
    )
    assert instance.transfer_syntax_uid == header.transfer_syntax_uid == EXPLICIT
    assert (instance.calling_ae_title, instance.source_host) == ("MODALITY", HOST)
    kept = at.spool.path_of(instance.digest).read_bytes()
    assert hashlib.sha256(kept).hexdigest() == instance.digest
    assert len(kept) == instance.size_bytes
    assert kept.endswith(encode(image))


def test_the_order_of_an_acknowledgement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes synced, renamed, folder synced, audit, ledger: and only then the response leaves."""
    order: list[str] = []

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **keywords: Any) -> Any:
            order.append(name)
            return function(*arguments, **keywords)

        return noted

    def noting_send(self: BoundedSocket, data: bytes, *arguments: Any) -> None:
        if data[0] == 4:
            order.append("response")
        socket.socket.sendall(self, data, *arguments)

    source = write_ct(tmp_path / "ct.dcm", 1)
    with listening(tmp_path / "spool", record=noting("ledger", lambda _: None)) as at:
        monkeypatch.setattr(at.audit, "append", noting("audit", at.audit.append))
        monkeypatch.setattr(os, "fsync", noting("fsync", os.fsync))
        monkeypatch.setattr(os, "rename", noting("rename", os.rename))
        monkeypatch.setattr(BoundedSocket, "sendall", noting_send, raising=False)
        assert send(at, source) == [0]
    assert order[:6] == ["fsync", "rename", "fsync", "audit", "ledger", "response"]
    assert order[6:] == ["audit"]  # what the association brought


def test_two_series_in_one_association(tmp_path: Path) -> None:
    paths = []
    for series, study in (("1.2.3.1", "1.2.3"), ("1.2.3.2", "1.2.3"), ("1.2.4.1", "1.2.4")):
        for number in (1, 2):
            paths.append(write_ct(tmp_path / f"{series}.{number}.dcm", number, series=series, study=study))
    random.Random(1).shuffle(paths)
    with listening(tmp_path / "spool") as at:
        assert send(at, *paths) == [0] * 6
    assert Counter(one.series_instance_uid for one in at.instances) == {"1.2.3.1": 2, "1.2.3.2": 2, "1.2.4.1": 2}
    assert Counter(detail["study_instance_uid"] for detail in at.audit.of(AuditEvent.RECEIVING_BEGAN)) == {
        "1.2.3": 1,
        "1.2.4": 1,
    }
    received = at.audit.of(AuditEvent.INSTANCES_RECEIVED)
    assert {one["study_instance_uid"]: one["instances"] for one in received} == {"1.2.3": 4, "1.2.4": 2}
    assert all(one["sop_class_uids"] == [CT] and one["calling_ae_title"] == "MODALITY" for one in received)


def test_a_repeat_is_acknowledged_and_kept_once(tmp_path: Path) -> None:
    source = write_ct(tmp_path / "ct.dcm", 1)
    with listening(tmp_path / "spool") as at:
        assert [send(at, source), send(at, source)] == [[0], [0]]
    assert len(list(at.spool.all_digests())) == 1
    assert len(at.instances) == 2  # the ledger decides that it knows it
    assert at.instances[0] == at.instances[1]


def test_a_repeat_whose_file_was_removed_meanwhile_is_told_to_come_again(tmp_path: Path) -> None:
    """Retention removes a file until its record says that it came back: between the file and its record here."""
    source = write_ct(tmp_path / "ct.dcm", 1)
    spool = Spool(tmp_path / "spool", 0)
    with listening(tmp_path / "spool") as first:
        assert send(first, source) == [0]
    with listening(tmp_path / "spool", record=lambda one: spool.remove(one.digest)) as at:
        assert send(at, source) == [0xA700]
    with listening(tmp_path / "spool") as again:
        assert send(again, source) == [0]
    assert list(spool.all_digests()) == [first.instances[0].digest]


def test_changed_content_under_the_same_uid_is_kept_beside(tmp_path: Path) -> None:
    first = write_ct(tmp_path / "a.dcm", 1)
    image = make_ct(1)
    image.PatientName = "Roe^Jane"
    image.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    with listening(tmp_path / "spool") as at:
        assert send(at, first, tmp_path / "b.dcm", first) == [0, 0, 0]
    assert len(list(at.spool.all_digests())) == 2
    [changed] = at.audit.of(AuditEvent.INSTANCE_CHANGED)
    assert changed["sop_instance_uid"] == image.SOPInstanceUID
    assert "Roe" not in str(changed)


def test_below_the_watermark_a_repeat_is_acknowledged_and_the_rest_told_to_come_again(tmp_path: Path) -> None:
    known, new = make_ct(1), make_ct(2)
    with listening(tmp_path / "spool") as at:
        assert store_raw(at.port, encode(known), known.SOPInstanceUID) == 0
        with RawPeer(at.port) as raw:
            raw.associate()
            at.spool._low_water_bytes = 1 << 62
            for image, status in ((known, 0), (new, 0xA700), (new, 0xA700)):
                raw.send_store_command(image.SOPInstanceUID)
                raw.send_fragment(encode(image), command=False, last=True)
                assert raw.read_status() == status
        echo(peer(at.port))
    assert [one.sop_instance_uid for one in at.instances] == [known.SOPInstanceUID] * 2
    assert [one["code"] for one in at.audit.of(AuditEvent.STORAGE_BELOW_WATERMARK)] == ["storage-below-watermark"]
    assert at.quarantined() == []


def test_a_ledger_that_fails_is_told_as_out_of_resources(tmp_path: Path) -> None:
    def record(_: Instance) -> None:
        raise OutOfResources("the database does not answer; mend it", code="records-unavailable")

    source = write_ct(tmp_path / "ct.dcm", 1)
    with listening(tmp_path / "spool", record=record) as at:
        assert send(at, source) == [0xA700]
    assert at.audit.of(AuditEvent.INSTANCES_RECEIVED) == []


def test_an_audit_log_that_fails_stops_acknowledgements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def append(*_: Any, **__: Any) -> None:
        raise AuditError("the audit log can't be written; free the disk")

    with listening(tmp_path / "spool") as at:
        with monkeypatch.context() as patched:
            patched.setattr(at.audit, "append", append)
            assert send(at, write_ct(tmp_path / "1.dcm", 1)) == [0xA700]
        assert at.instances == []
        assert send(at, tmp_path / "1.dcm") == [0]


def test_the_audit_log_takes_what_the_listener_tells(tmp_path: Path) -> None:
    with AuditLog(tmp_path / "audit") as log, listening(tmp_path / "spool", low_water_bytes=0) as at:
        at.listener._audit = at.listener._handlers._audit = log
        assert send(at, write_ct(tmp_path / "1.dcm", 1)) == [0]
        assert store_raw(at.port, encode(make_ct(2))[:-7], make_ct(2).SOPInstanceUID) == 0xC000
        with pytest.raises(DeliveryError):
            echo(peer(at.port, called="OTHER"))
        at.listener.stop()
    report = verify(tmp_path / "audit")
    assert report.ok, report.problems
    assert report.records >= 4


def test_an_error_of_ours_is_a_processing_failure_with_a_log_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def record(_: Instance) -> None:
        raise ZeroDivisionError

    with listening(tmp_path / "spool", record=record) as at:
        write_ct(tmp_path / "1.dcm", 1)
        syntax = read_file_syntax(tmp_path / "1.dcm")
        with associated(peer(at.port), [syntax]) as association:
            answer = association.send_c_store(tmp_path / "1.dcm")
            assert association.is_established
    assert answer.Status == 0x0110
    comment = str(answer.ErrorComment)
    assert comment.startswith("see log entry ")
    assert comment.split()[-1] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("instance", "sop_class"), [("1.2.999", CT), ("1.2.826.0.1.3680043.8.498.2.1", "1.2.840.10008.5.1.4.1.1.4")]
)
def test_a_command_that_names_another_object_is_a_mismatch(tmp_path: Path, instance: str, sop_class: str) -> None:
    with listening(tmp_path / "spool") as at:
        status = store_raw(at.port, encode(make_ct(1)), instance, sop_class, context_class=sop_class)
        assert status == 0xA900
        assert len(at.quarantined()) == 1
    assert at.instances == []
    [refused] = at.audit.of(AuditEvent.INSTANCE_REFUSED)
    assert (refused["code"], refused["status"], refused["sop_instance_uid"]) == (
        "data-set-mismatch",
        "0xA900",
        instance,
    )


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (encode(make_ct(1))[:-7], "truncated"),
        (b"x" * 64, "unreadable"),
        (encode(make_ct(1)).replace(b"1.2.826.0.1.3680043.8.498.1\0", b"\0" * 28), "uid-missing"),
        (encode(make_ct(1)).replace(b"1.2.826.0.1.3680043.8.498.1\0", b"../../../../../../etc/passwd"), "uid-invalid"),
        (
            (struct.pack("<HH2sxxI", 8, 0x1115, b"SQ", 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF))
            * 500,
            "nested-too-deep",
        ),
    ],
)
def test_what_cannot_be_understood_is_quarantined_and_the_association_goes_on(
    tmp_path: Path, data: bytes, code: str
) -> None:
    good = make_ct(2)
    with listening(tmp_path / "spool") as at:
        with RawPeer(at.port) as raw:
            raw.associate()
            raw.send_store_command(make_ct(1).SOPInstanceUID)
            raw.send_fragment(data, command=False, last=True)
            assert raw.read_status() == 0xC000
            raw.send_store_command(good.SOPInstanceUID)
            raw.send_fragment(encode(good), command=False, last=True)
            assert raw.read_status() == 0
        [kept] = at.quarantined()
        assert kept.read_bytes().endswith(data)
        assert code in kept.with_suffix(".json").read_text()
    assert [one.sop_instance_uid for one in at.instances] == [good.SOPInstanceUID]
    [(_, outcome, refused)] = [one for one in at.audit.records if one[0] is AuditEvent.INSTANCE_REFUSED]
    assert outcome is Outcome.MINOR_FAILURE
    assert (refused["code"], refused["status"]) == (code, "0xC000")


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_malformed_instance_uid_is_invalid_and_never_a_name(tmp_path: Path) -> None:
    with listening(tmp_path / "spool") as at:
        assert store_raw(at.port, encode(make_ct(1)), "../../../../tmp/evil") == 0x0117
    assert not list(tmp_path.rglob("*evil*"))
    assert at.instances == []


def test_a_class_other_than_the_contexts_is_not_supported(tmp_path: Path) -> None:
    with listening(tmp_path / "spool") as at:
        assert store_raw(at.port, encode(make_ct(1)), "1.2.3", context_class="1.2.840.10008.5.1.4.1.1.4") == 0x0122


def test_the_same_data_set_in_another_syntax_is_read_by_that_syntax(tmp_path: Path) -> None:
    """What is in explicit VR can't be read as implicit, where a peer negotiates one and sends the other."""
    with listening(tmp_path / "spool") as at, RawPeer(at.port) as raw:
        raw.associate(transfer_syntax=IMPLICIT)
        raw.send_store_command(make_ct(1).SOPInstanceUID)
        raw.send_fragment(encode(make_ct(1)), command=False, last=True)
        assert raw.read_status() == 0xC000


@pytest.mark.parametrize("way", ["close", "reset", "abort"])
def test_an_association_that_breaks_within_an_object_leaves_nothing(tmp_path: Path, way: str) -> None:
    whole = make_ct(1)
    with listening(tmp_path / "spool") as at:
        raw = RawPeer(at.port)
        raw.associate()
        raw.send_store_command(whole.SOPInstanceUID)
        raw.send_fragment(encode(whole), command=False, last=True)
        assert raw.read_status() == 0
        raw.send_store_command(make_ct(2).SOPInstanceUID)
        raw.send_fragment(encode(make_ct(2))[:1000], command=False, last=False)
        if way == "reset":
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if way == "abort":
            raw.send_pdu(7, bytes(4))
        raw.socket.close()
        wait_until(lambda: at.audit.of(AuditEvent.INSTANCES_RECEIVED))
        assert at.parts() == []
        echo(peer(at.port))
    assert [one.sop_instance_uid for one in at.instances] == [whole.SOPInstanceUID]
    assert [one["instances"] for one in at.audit.of(AuditEvent.INSTANCES_RECEIVED)] == [1]
    assert len(list(at.spool.all_digests())) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: limner\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # a TLS hello
        b"\x01\x00\xff\xff\xff\xff" + bytes(1000),  # an association request of 4 GiB
        b"\x04\x00\x00\x00\x00\x06" + bytes(6),  # data without an association
        b"\x01\x00\x00\x00\x00\x44" + bytes(0x44),
        b"",
    ],
)
def test_what_is_not_dicom_disturbs_nobody(tmp_path: Path, garbage: bytes) -> None:
    with listening(tmp_path / "spool", acse_timeout_seconds=1) as at:
        with RawPeer(at.port) as good:
            good.associate()
            with RawPeer(at.port) as bad:
                bad.socket.sendall(garbage)
                assert send(at, write_ct(tmp_path / "1.dcm", 1)) == [0]
                began = time.monotonic()
                while bad.read_pdu()[0]:  # an abort, perhaps, and then the end
                    assert time.monotonic() - began < 20
            good.send_store_command(make_ct(2).SOPInstanceUID)
            good.send_fragment(encode(make_ct(2)), command=False, last=True)
            assert good.read_status() == 0
        wait_until(lambda: not at.listener._server.active_associations)  # type: ignore[union-attr]


def test_peers_that_stall_within_a_pdu_give_their_places_back(tmp_path: Path) -> None:
    with listening(tmp_path / "spool", acse_timeout_seconds=1, maximum_associations=3) as at:
        stalled = [RawPeer(at.port) for _ in range(3)]
        for one in stalled:
            one.socket.sendall(b"\x01\x00\x00\x00\x01\x00half a request")

        def is_answered() -> bool:
            try:
                echo(peer(at.port))
            except DeliveryError:
                return False
            return True

        wait_until(is_answered)
        for one in stalled:
            one.socket.close()


def test_more_associations_than_allowed_are_rejected_for_now(tmp_path: Path) -> None:
    with listening(tmp_path / "spool", maximum_associations=2) as at:
        with RawPeer(at.port) as first, RawPeer(at.port) as second:
            first.associate()
            second.associate()
            with pytest.raises(DeliveryError, match="for now") as caught:
                echo(peer(at.port))
            assert caught.value.code == "association-rejected"
        wait_until(lambda: not at.listener._server.active_associations)  # type: ignore[union-attr]
        echo(peer(at.port))
    assert [one["code"] for one in at.audit.of(AuditEvent.ASSOCIATION_REFUSED)] == ["too-many-associations"]


def test_who_is_not_allowed_is_rejected_and_audited(tmp_path: Path) -> None:
    source = [{"ae_title": "CT1"}, {"ae_title": "MR1", "hosts": ["192.0.2.1"]}]
    with listening(tmp_path / "spool", source=source) as at:
        echo(peer(at.port, calling="CT1"))
        for called, calling in (("LIMNER", "MODALITY"), ("LIMNER", "MR1"), ("OTHER", "CT1")):
            with pytest.raises(DeliveryError, match="until something is changed") as caught:
                echo(peer(at.port, called=called, calling=calling))
            assert caught.value.code == "association-rejected"
    refused = at.audit.of(AuditEvent.ASSOCIATION_REFUSED)
    assert [one["code"] for one in refused] == [
        "calling-ae-title-not-recognized",
        "host-not-allowed",
        "called-ae-title-not-recognized",
    ]
    assert refused[1] == {
        "calling_ae_title": "MR1",
        "called_ae_title": "LIMNER",
        "source_host": HOST,
        "code": "host-not-allowed",
    }


def test_any_called_title_is_taken_where_it_is_not_checked(tmp_path: Path) -> None:
    with listening(tmp_path / "spool", check_called_ae_title=False) as at:
        echo(peer(at.port, called="WHATEVER"))


def test_what_cannot_be_judged_is_not_admitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toolkit swallows errors of the handler that judges, and would go on to accept."""
    with listening(tmp_path / "spool") as at:
        monkeypatch.setattr(at.listener, "_refusal", lambda _: 1 / 0)
        with pytest.raises(DeliveryError):
            echo(peer(at.port))
    assert [one["code"] for one in at.audit.of(AuditEvent.ASSOCIATION_REFUSED)] == ["listener-error"]


def test_deflated_syntaxes_are_not_accepted(tmp_path: Path) -> None:
    with listening(tmp_path / "spool") as at:
        wanted = [FileSyntax(UID(CT), UID("1.2.840.10008.1.2.1.99")), FileSyntax(UID(CT), UID(EXPLICIT))]
        with associated(peer(at.port), wanted) as association:
            assert [str(one.transfer_syntax[0]) for one in association.accepted_contexts] == [EXPLICIT]


def test_stopping_lets_a_transfer_finish_and_takes_no_new_one(tmp_path: Path) -> None:
    with listening(tmp_path / "spool", shutdown_seconds=20) as at:
        with RawPeer(at.port) as raw:
            raw.associate()
            raw.send_store_command(make_ct(1).SOPInstanceUID)
            raw.send_fragment(encode(make_ct(1))[:1000], command=False, last=False)
            stopping = threading.Thread(target=at.listener.stop)
            stopping.start()

            def is_closed() -> bool:
                with socket.socket() as probe:
                    return probe.connect_ex((HOST, at.port)) != 0

            wait_until(is_closed)
            raw.send_fragment(encode(make_ct(1))[1000:], command=False, last=True)
            assert raw.read_status() == 0
            raw.send_pdu(5, bytes(4))
            assert raw.read_pdu()[0] == 6
        stopping.join(10)
        assert not stopping.is_alive()
    assert len(at.instances) == 1
    assert [one["instances"] for one in at.audit.of(AuditEvent.INSTANCES_RECEIVED)] == [1]


def test_stopping_ends_within_its_time_though_a_peer_stays(tmp_path: Path) -> None:
    with listening(tmp_path / "spool", shutdown_seconds=0.5) as at, RawPeer(at.port) as raw:
        raw.associate()
        began = time.monotonic()
        at.listener.stop()
        assert time.monotonic() - began < 10
        assert raw.read_pdu()[0] in (7, 0)  # aborted


def test_an_instance_that_is_being_kept_when_time_is_up_is_finished(tmp_path: Path) -> None:
    recorded: list[Instance] = []
    keeping = threading.Event()

    def slowly(instance: Instance) -> None:
        keeping.set()
        time.sleep(2)
        recorded.append(instance)

    with listening(tmp_path / "spool", record=slowly, shutdown_seconds=0.1) as at, RawPeer(at.port) as raw:
        raw.associate()
        raw.send_store_command(make_ct(1).SOPInstanceUID)
        raw.send_fragment(encode(make_ct(1)), command=False, last=True)
        assert keeping.wait(20)
        at.listener.stop()
        assert len(recorded) == 1
    assert [one["instances"] for one in at.audit.of(AuditEvent.INSTANCES_RECEIVED)] == [1]


def test_a_listener_can_be_stopped_twice_and_its_port_taken_again(tmp_path: Path) -> None:
    with listening(tmp_path / "a") as at:
        port = at.port
        at.listener.stop()
        at.listener.stop()
        with listening(tmp_path / "b", port=port) as again:
            echo(peer(again.port))


def test_nothing_of_the_patient_is_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with listening(tmp_path / "spool") as at:
        send(at, write_ct(tmp_path / "1.dcm", 1))
        store_raw(at.port, encode(make_ct(1))[:-7], make_ct(1).SOPInstanceUID)
    said = "".join(capsys.readouterr()) + str(at.audit.records)
    assert "refused" in said
    for canary in ("Doe", "Jane", "canary-1234"):
        assert canary not in said


def test_the_toolkits_names_that_are_relied_on() -> None:
    """Not all of them are in its documentation; a new release must not drop them unnoticed."""
    from pynetdicom import AE, _config
    from pynetdicom.association import Association
    from pynetdicom.dimse_messages import DIMSEMessage
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.dul import DULServiceProvider
    from pynetdicom.fsm import ACTIONS, TRANSITION_TABLE
    from pynetdicom.service_class import StorageServiceClass
    from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

    for switch in (
        "LOG_HANDLER_LEVEL",
        "LOG_REQUEST_IDENTIFIERS",
        "LOG_RESPONSE_IDENTIFIERS",
        "UNRESTRICTED_STORAGE_SERVICE",
        "STORE_RECV_CHUNKED_DATASET",
        "STORE_SEND_CHUNKED_DATASET",
    ):
        assert hasattr(_config, switch)
    request = C_STORE()
    request.DataSet = BytesIO(b"data")
    assert bytes(request.DataSet.getbuffer()) == b"data"
    assert {"Status", "ErrorComment"} <= {"Status", *request.STATUS_OPTIONAL_KEYWORDS}
    for status in (0xA700, 0xA900, 0xC000, 0x0110, 0x0117, 0x0122, 0x0124):
        assert status in StorageServiceClass.statuses
    assert callable(AssociationServer.get_request)
    assert isinstance(AssociationServer.active_associations, property)
    assert callable(AssociationSocket.recv)
    assert callable(Association.kill)
    assert reception.SUCCESS == 0
    # where our own loop takes an association over
    for owner, name in (
        (Association, "_run_reactor"),
        (Association, "run_reactor"),
        (DULServiceProvider, "_is_transport_event"),
        (DULServiceProvider, "_decode_pdu"),
        (DULServiceProvider, "kill_dul"),
        (RequestHandler, "_create_association"),
    ):
        assert callable(getattr(owner, name, None)), (
            f"this pynetdicom has no {owner.__name__}.{name}; app/listener/takeover.py must take associations over "
            "in another way"
        )
    assert "supported_contexts = deepcopy(self.server.contexts)" in inspect.getsource(RequestHandler), (
        "contexts are given to associations in another way: app/listener/connection.py must not share them"
    )
    association = Association(AE("LIMNER"), "acceptor")
    assert association.dul.state_machine.current_state == "Sta1"
    assert association.dul.socket is None
    assert ACTIONS[TRANSITION_TABLE["Evt7", "Sta3"]][2] == "Sta6", "an association is established in another state"
    # where a peer has gone before it asked for anything, so that nobody waits on for its request
    association.dul.to_user_queue.put(None)
    assert association.dul.receive_pdu(wait=True) is None
    # where the toolkit's own loop is bounded
    assert TRANSITION_TABLE["Evt19", "Sta6"] == "AA-8", "app/listener/toolkit_bounds.py must abort in another way"
    assert association.dul.event_queue.empty()
    assert association.dimse.message is None
    message = DIMSEMessage()
    assert isinstance(message.encoded_command_set, BytesIO)
    assert isinstance(message.data_set, BytesIO)


class Receiver:
    """The receiver of `tests.contract.receiver` as a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.process: subprocess.Popen[str]

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.contract.receiver", str(self.folder), str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def ledger(self) -> dict[str, str]:
        lines = (self.folder / "ledger").read_text().splitlines()
        return dict(line.split() for line in lines if line.count(" ") == 1)


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # the toolkit drops what did not connect
def test_a_receiver_killed_under_its_senders_loses_no_acknowledged_instance(tmp_path: Path) -> None:
    paths = [write_ct(tmp_path / f"{number}.dcm", number, size=128) for number in range(1, 61)]
    receiver = Receiver(tmp_path)
    receiver.start()
    acknowledged: dict[str, float] = {}

    def send_all(mine: list[Path]) -> None:
        while mine:
            try:
                with associated(peer(receiver.port), [read_file_syntax(mine[0])]) as association:
                    while mine and association.is_established:
                        if send_file(association, mine[0], peer(receiver.port)) == 0:
                            acknowledged[make_ct(int(mine[0].stem)).SOPInstanceUID] = time.monotonic()
                            mine.pop(0)
                        time.sleep(0.05)
            except DeliveryError:
                time.sleep(0.1)

    senders = [threading.Thread(target=send_all, args=(paths[number::3],)) for number in range(3)]
    for sender in senders:
        sender.start()
    chance = random.Random(2)
    for _ in range(5):
        time.sleep(chance.uniform(0.1, 0.4))
        known = set(acknowledged)
        receiver.kill()
        assert known <= set(receiver.ledger())
        receiver.start()
    for sender in senders:
        sender.join(120)
        assert not sender.is_alive()
    receiver.kill()
    ledger = receiver.ledger()
    assert set(ledger) == set(acknowledged) == {make_ct(int(path.stem)).SOPInstanceUID for path in paths}
    kept = {path.stem: path for path in (tmp_path / "spool" / "instances").rglob("*.dcm")}
    assert set(kept) == set(ledger.values())  # nothing lost, nothing doubled, nothing unaccounted for
    for digest, path in kept.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
