"""Delivery to DCMTK's storescp, and to archives that refuse, stall and break off."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, MRImageStorage, Verification

from app.delivery.sending import send_folder
from app.delivery.storage import DimseDestination
from app.errors import DeliveryError, DeliveryRefused
from app.settings import DestinationSettings
from tests import peers
from tests.listening import CT, listening, make_ct, write_ct

HOST = "127.0.0.1"
EXPLICIT = "1.2.840.10008.1.2.1"
RLE = "1.2.840.10008.1.2.5"


def destination(port: int, *, host: str = HOST, ae_title: str = "PACS", seconds: float = 20) -> DimseDestination:
    settings = DestinationSettings(name="pacs", ae_title=ae_title, host=host, port=port, timeout_seconds=seconds)
    return DimseDestination(settings, "LIMNER")


@contextmanager
def archive(
    store: Callable[[evt.Event], Any] = lambda _: 0x0000,
    *,
    syntaxes: tuple[str, ...] = (EXPLICIT,),
    sop_class: str = str(CTImageStorage),
    entity: AE | None = None,
    seconds_a_pdu: float = 0.0,
) -> Iterator[int]:
    """A storage SCP that answers as `store` does, at the end of a line as slow as that; yields its port."""
    entity = entity or AE("PACS")
    entity.add_supported_context(sop_class, list(syntaxes))
    entity.add_supported_context(Verification)
    handlers: list[Any] = [(evt.EVT_C_STORE, store)]
    if seconds_a_pdu:
        handlers.append((evt.EVT_PDU_RECV, lambda _: time.sleep(seconds_a_pdu)))
    server = entity.start_server((HOST, 0), block=False, evt_handlers=handlers)
    try:
        yield server.server_address[1]
    finally:
        for association in server.active_associations:
            association.abort()
        server.shutdown()


def test_storescp_gets_the_very_data_set(tmp_path: Path, network: peers.PeerNetwork) -> None:
    source = write_ct(tmp_path / "ct.dcm", 1)
    with peers.running_storescp(network, tmp_path) as provider:
        to = destination(provider.port, host=provider.host, ae_title=provider.ae_title)
        to.check()
        to.deliver(source)
        to.deliver(source)  # the same again does no harm
        [arrived] = provider.files()
    assert pydicom.dcmread(arrived) == pydicom.dcmread(source)


def test_a_compressed_file_is_sent_as_it_is(tmp_path: Path) -> None:
    received: list[tuple[str, bytes]] = []

    def store(event: evt.Event) -> int:
        received.append((str(event.context.transfer_syntax), event.request.DataSet.getvalue()))
        return 0x0000

    image = make_ct(1)
    image.file_meta.TransferSyntaxUID = JPEG2000Lossless
    image.PixelData = encapsulate([b"not really JPEG 2000"])
    image["PixelData"].is_undefined_length = True
    image.save_as(tmp_path / "j2k.dcm", enforce_file_format=True)
    with archive(store, syntaxes=(EXPLICIT, str(JPEG2000Lossless))) as port:
        destination(port).deliver(tmp_path / "j2k.dcm")
    [(syntax, data)] = received
    assert syntax == JPEG2000Lossless
    assert (tmp_path / "j2k.dcm").read_bytes().endswith(data)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (0xA700, DeliveryError, "status-a700"),
        (0x0110, DeliveryError, "status-0110"),
        (0xA900, DeliveryRefused, "status-a900"),
        (0xC001, DeliveryRefused, "status-c001"),
        (0x0122, DeliveryRefused, "status-0122"),
    ],
)
def test_a_failure_status_is_told_with_what_to_do(
    tmp_path: Path, status: int, kind: type[DeliveryError], code: str
) -> None:
    with archive(lambda _: status) as port, pytest.raises(DeliveryError, match=r"PACS at 127\.0\.0\.1") as caught:
        destination(port).deliver(write_ct(tmp_path / "ct.dcm"))
    assert type(caught.value) is kind
    assert caught.value.code == code


def test_a_warning_is_a_success(tmp_path: Path) -> None:
    with archive(lambda _: 0xB000) as port:
        destination(port).deliver(write_ct(tmp_path / "ct.dcm"))


@pytest.mark.parametrize("offer", [{"sop_class": str(MRImageStorage)}, {"syntaxes": (RLE,)}])
def test_an_archive_that_does_not_take_the_class_or_syntax_refuses(tmp_path: Path, offer: dict[str, Any]) -> None:
    with archive(**offer) as port, pytest.raises(DeliveryRefused, match=f"{CT} in {EXPLICIT}") as caught:
        destination(port).deliver(write_ct(tmp_path / "ct.dcm"))
    assert caught.value.code == "context-refused"


def test_a_rejected_association_may_be_accepted_later(tmp_path: Path) -> None:
    entity = AE("PACS")
    entity.require_called_aet = True
    with archive(entity=entity) as port:
        for act in (destination(port, ae_title="OTHER").check, lambda: _deliver_to_other(port, tmp_path)):
            with pytest.raises(DeliveryError, match="Called AE title not recognised") as caught:
                act()
            assert caught.value.code == "association-rejected"
            assert caught.value.retryable
        destination(port).check()


def _deliver_to_other(port: int, folder: Path) -> None:
    destination(port, ae_title="OTHER").deliver(write_ct(folder / "ct.dcm"))


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # the toolkit drops what did not connect
def test_nobody_there_is_unreachable(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind((HOST, 0))
        nobody = destination(closed.getsockname()[1])
        with pytest.raises(DeliveryError, match="check host, port and network") as caught:
            nobody.deliver(write_ct(tmp_path / "ct.dcm"))
        assert caught.value.code == "unreachable"
    with pytest.raises(DeliveryError) as caught:
        destination(104, host="no-such-host.invalid").check()
    assert caught.value.code == "unreachable"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 400 Bad Request\r\n\r\n"])
def test_what_is_there_but_no_archive_is_said_so(answer: bytes) -> None:
    with socket.create_server((HOST, 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(10000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(DeliveryError) as caught:
            destination(server.getsockname()[1]).check()
        thread.join()
    assert caught.value.code == "association-aborted"


def test_an_archive_that_says_nothing_is_not_waited_for_without_end() -> None:
    with socket.create_server((HOST, 0)) as server:
        began = time.monotonic()
        with pytest.raises(DeliveryError, match="within 0.5 s") as caught:
            destination(server.getsockname()[1], seconds=0.5).check()
        assert time.monotonic() - began < 15
    assert caught.value.code == "association-aborted"


def test_an_archive_that_breaks_off_may_have_it_or_not(tmp_path: Path) -> None:
    def store(event: evt.Event) -> int:
        event.assoc.abort()
        return 0x0000

    with archive(store) as port, pytest.raises(DeliveryError) as caught:
        destination(port).deliver(write_ct(tmp_path / "ct.dcm"))
    assert caught.value.code == "no-answer"
    assert caught.value.retryable


def test_an_archive_that_does_not_answer_in_time(tmp_path: Path) -> None:
    release = threading.Event()

    def store(_: evt.Event) -> int:
        release.wait(20)
        return 0x0000

    with archive(store) as port:
        with pytest.raises(DeliveryError) as caught:
            destination(port, seconds=0.5).deliver(write_ct(tmp_path / "ct.dcm"))
        release.set()
    assert caught.value.code == "no-answer"


def test_a_large_object_has_the_time_that_a_slow_line_takes(tmp_path: Path) -> None:
    """The answer is waited for from when the object is on its way, and that may take longer than any answer."""
    path = write_ct(tmp_path / "large.dcm", size=1200)  # 2.9 MB

    with archive(seconds_a_pdu=0.02) as port:  # of 16 kB: 0.8 MB a second
        began = time.monotonic()
        destination(port, seconds=1).deliver(path)
        assert time.monotonic() - began > 2  # else nothing was shown


# --- as a modality sends --------------------------------------------------------------------------------------------


def test_a_folder_is_sent_over_one_association(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    (folder / "deep").mkdir(parents=True)
    write_ct(folder / "1.dcm", 1)
    write_ct(folder / "deep/2.dcm", 2)
    image = make_ct(3)
    image.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    image.save_as(folder / "3.dcm", enforce_file_format=True, implicit_vr=True)
    (folder / "notes.txt").write_text("not DICOM")
    told: list[tuple[int, int]] = []
    with listening(tmp_path / "spool") as at:
        report = send_folder(folder, HOST, at.port, "LIMNER", "MODALITY", lambda *one: told.append(one))
        received = at.instances
    assert {one.path.name: (one.accepted, one.status, one.code) for one in report.files} == {
        "1.dcm": (True, 0, ""),
        "2.dcm": (True, 0, ""),
        "3.dcm": (True, 0, ""),
        "notes.txt": (False, None, "not-dicom"),
    }
    assert told == [(2, 4), (3, 4), (4, 4)]
    assert {str(one.transfer_syntax_uid) for one in received} == {EXPLICIT, "1.2.840.10008.1.2"}


def test_what_the_receiver_refuses_is_told_for_each_file(tmp_path: Path) -> None:
    good, cut = write_ct(tmp_path / "1.dcm", 1), write_ct(tmp_path / "2.dcm", 2)
    cut.write_bytes(cut.read_bytes()[:-9])
    with listening(tmp_path / "spool") as at:
        report = send_folder([cut, good], HOST, at.port, "LIMNER", "MODALITY")
    assert [(one.path, one.accepted, one.code) for one in report.files] == [
        (cut, False, "status-c000"),
        (good, True, ""),
    ]
    assert report.files[0].message


def test_after_a_break_the_rest_is_not_sent(tmp_path: Path) -> None:
    def store(event: evt.Event) -> int:
        if event.request.AffectedSOPInstanceUID == make_ct(2).SOPInstanceUID:
            event.assoc.abort()
        return 0x0000

    paths = [write_ct(tmp_path / f"{number}.dcm", number) for number in (1, 2, 3)]
    with archive(store) as port:
        report = send_folder(paths, HOST, port, "PACS", "MODALITY")
    assert [one.code for one in report.files] == ["", "no-answer", "not-sent"]


def test_more_syntaxes_than_an_association_can_propose(tmp_path: Path) -> None:
    """130 files of as many classes: 128 are proposed at a time."""
    from app.listener.presentation import STORAGE_SOP_CLASSES

    paths = []
    for number, sop_class in enumerate(STORAGE_SOP_CLASSES[:130], start=1):
        image = make_ct(number, size=2)
        image.SOPClassUID = sop_class
        image.file_meta.MediaStorageSOPClassUID = pydicom.uid.UID(sop_class)
        image.save_as(tmp_path / f"{number:03}.dcm", enforce_file_format=True)
        paths.append(tmp_path / f"{number:03}.dcm")
    with listening(tmp_path / "spool") as at:
        report = send_folder(paths, HOST, at.port, "LIMNER", "MODALITY")
    assert all(one.accepted for one in report.files)
    assert [one.path for one in report.files] == paths
    assert {str(one.sop_class_uid) for one in at.instances} == set(STORAGE_SOP_CLASSES[:130])


def test_an_empty_folder_is_an_empty_report(tmp_path: Path) -> None:
    assert send_folder(tmp_path, HOST, 1, "LIMNER", "MODALITY").files == ()


def test_the_judges_program_is_dcmtks() -> None:
    """pynetdicom installs programs of the same names; the contract is with DCMTK."""
    peers.require("storescp")
    version = subprocess.run([peers.program("storescp"), "--version"], capture_output=True, text=True, check=False)
    assert "dcmtk" in version.stdout.lower()
    assert shutil.which("storescp") is not None
