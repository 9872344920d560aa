"""The names of pynetdicom that requests touch, and its races: a response is the request's, a rejection is one."""

from __future__ import annotations

import threading
import time
from io import BytesIO
from typing import Any

import pytest
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance, Verification

from app.delivery.commitment import request_commitment
from app.delivery.destination import CommitmentRequest, ReportedCommitment
from app.delivery.dimse import IMPLICIT_VR_LITTLE_ENDIAN, FileSyntax, Peer, associated
from app.delivery.toolkit_pause import Checkpoint
from app.errors import DeliveryError
from app.identifiers import UID

HOST = "127.0.0.1"
ECHOES = 3
REQUESTS = 20
ECHO = FileSyntax(UID(str(Verification)), IMPLICIT_VR_LITTLE_ENDIAN)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine: it stops the reactor right before it says that it is not paused any more, and the request between
    sending and waiting for the response.
    """

    def said(association: Any, value: bool) -> None:
        if association.__dict__.get("is_paused") and not value and association.is_requestor:
            time.sleep(0.1)
        association.__dict__["is_paused"] = value

    told = property(lambda association: association.__dict__["is_paused"], said)
    monkeypatch.setattr(Association, "_is_paused", told, raising=False)
    send = DIMSEServiceProvider.send_msg

    def sent(provider: DIMSEServiceProvider, *message: Any) -> None:
        send(provider, *message)
        if provider.assoc.is_requestor:
            time.sleep(0.3)

    monkeypatch.setattr(DIMSEServiceProvider, "send_msg", sent)


def _report_at_once(event: evt.Event) -> tuple[int, None]:
    """Report on a request for storage commitment before it is answered."""
    report = N_EVENT_REPORT()
    report.MessageID, report.EventTypeID = 7, 1
    report.AffectedSOPClassUID = StorageCommitmentPushModel
    report.AffectedSOPInstanceUID = StorageCommitmentPushModelInstance
    report.EventInformation = BytesIO(encode(event.action_information, True, True) or b"")
    event.assoc.dimse.send_msg(report, event.context.context_id)
    return 0x0000, None


@pytest.fixture
def port() -> Any:
    entity = AE("PACS")
    entity.add_supported_context(Verification)
    entity.add_supported_context(StorageCommitmentPushModel)
    entity.require_calling_aet = ["LIMNER"]
    server = entity.start_server((HOST, 0), block=False, evt_handlers=[(evt.EVT_N_ACTION, _report_at_once)])
    yield server.server_address[1]
    server.shutdown()


@pytest.mark.usefixtures("interrupted")
def test_a_response_is_not_taken_by_the_reactor(port: int) -> None:
    with associated(Peer(HOST, port, "PACS", "LIMNER", 2.0), [ECHO]) as association:
        assert isinstance(association._reactor_checkpoint, Checkpoint)
        for _ in range(ECHOES):
            assert association.send_c_echo().get("Status") == 0x0000


def test_a_report_before_the_response_does_not_hold_up_the_release(port: int) -> None:
    """The toolkit serves it in a thread of its own, whose end says that the reactor is not paused, though it is."""
    kept: list[str] = []

    def keep(report: ReportedCommitment) -> bool:
        kept.append(report.transaction_uid)
        return True

    transactions = [f"1.2.3.{number}" for number in range(1, REQUESTS + 1)]

    def ask() -> None:
        for one in transactions:
            request = CommitmentRequest(one, ((UID("1.2.840.10008.5.1.4.1.1.66.4"), UID("1.2.3")),))
            request_commitment(Peer(HOST, port, "PACS", "LIMNER", 5.0), request, keep)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(30.0)
    assert not asking.is_alive()
    assert kept == transactions


def test_a_release_does_not_wait_for_the_reactor_without_end(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped, over = threading.Event(), threading.Event()

    def stop(*_: Any) -> None:
        stopped.set()
        over.wait()

    def open_and_end() -> None:
        with associated(Peer(HOST, port, "PACS", "LIMNER", 1.0), [ECHO]) as association:
            monkeypatch.setattr(Checkpoint, "wait", stop)
            stopped.wait()
            association._is_paused = False

    ending = threading.Thread(target=open_and_end, daemon=True)
    ending.start()
    ending.join(20.0)
    over.set()
    assert not ending.is_alive()


def test_a_rejection_that_comes_before_the_requester_looks_is_one(port: int) -> None:
    """The toolkit's requester finds the connection closed, and takes that for none that came about."""
    stranger = Peer(HOST, port, "PACS", "STRANGER", 2.0)
    busy = (evt.EVT_REQUESTED, lambda _: time.sleep(0.5))
    with (
        pytest.raises(DeliveryError, match="Calling AE title not recognised") as caught,
        associated(stranger, [ECHO], [busy]),
    ):
        pass
    assert caught.value.code == "association-rejected"


def test_what_is_replaced_is_what_the_toolkit_has() -> None:
    association = Association(AE("LIMNER"), "requestor")
    assert type(association._reactor_checkpoint) is threading.Event
    assert association._reactor_checkpoint.is_set()
    assert association._is_paused is False
