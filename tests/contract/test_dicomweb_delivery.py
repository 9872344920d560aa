"""Delivery by STOW-RS to Orthanc, through nginx with TLS, and to services that refuse, stall, flood and break off."""

import hashlib
import http.client
import json
import ssl
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from app.delivery.destination import TellsWhatItHolds
from app.delivery.dicomweb import DicomWebDestination
from app.errors import DeliveryError, DeliveryRefused
from app.settings import DestinationSettings
from app.sweeping import not_held
from operators.object_kinds import NEEDS
from tests import peers, web_peers
from tests.listening import make_ct, write_ct
from tests.web_peers import Act, Authority, answer, answering, scripted

PASSWORD = "correct horse"  # noqa: S105 - of a server that lives for seconds
STORED = "00081199"
FAILED = "00081198"


def destination(url: str, *, seconds: float = 20, **keys: Any) -> DicomWebDestination:
    keys.setdefault("plain_http", url.startswith("http:"))
    return DicomWebDestination(DestinationSettings(name="web", url=url, timeout_seconds=seconds, **keys))


def written(folder: Path, content: str) -> Path:
    path = folder / f"{hashlib.sha256(content.encode()).hexdigest()[:8]}.txt"
    path.write_text(content + "\n")
    return path


@pytest.fixture(scope="module")
def network() -> Iterator[peers.PeerNetwork]:
    with peers.peer_network() as one:
        yield one


@pytest.fixture(scope="module")
def running(network: peers.PeerNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[peers.Orthanc]:
    with peers.running_orthanc(network, tmp_path_factory.mktemp("orthanc"), password=PASSWORD) as one:
        yield one


@pytest.fixture
def orthanc(running: peers.Orthanc) -> peers.Orthanc:
    running.delete_everything()
    return running


def root(orthanc: peers.Orthanc) -> str:
    return f"http://{orthanc.host}:{orthanc.HTTP_PORT}/dicom-web"


def uids(path: Path) -> tuple[str, str, str]:
    header = pydicom.dcmread(path, stop_before_pixels=True)
    return str(header.StudyInstanceUID), str(header.SeriesInstanceUID), str(header.SOPInstanceUID)


def item(path: Path, tag: str = "", reason: int = 0) -> dict[str, Any]:
    """What an answer says of a file."""
    found: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uids(path)[2]]}}
    return {**found, tag: {"vr": "US", "Value": [reason]}} if tag else found


def said(tag: str, *items: dict[str, Any]) -> bytes:
    return json.dumps({tag: {"vr": "SQ", "Value": list(items)}}).encode()


# --- Orthanc --------------------------------------------------------------------------------------------------------


def test_orthanc_has_the_very_bytes_and_says_so(orthanc: peers.Orthanc, tmp_path: Path) -> None:
    source = write_ct(tmp_path / "ct.dcm", 1)
    to = destination(root(orthanc), user=orthanc.USER, password_file=written(tmp_path, PASSWORD))
    to.check()
    assert to.accepted_kinds() == tuple(NEEDS)
    assert isinstance(to, TellsWhatItHolds)
    assert to.can_be_asked
    assert not to.holds(*uids(source))
    to.deliver(source)
    assert to.holds(*uids(source))
    study, series, _ = uids(source)
    assert not to.holds(study, series, "1.2.3")
    to.deliver(source)  # the same again does no harm
    (found,) = orthanc.find("Instance")
    assert orthanc.download(found["ID"], tmp_path / "back.dcm").read_bytes() == source.read_bytes()


def test_the_sweep_asks_over_the_web_what_it_holds(orthanc: peers.Orthanc, tmp_path: Path) -> None:
    sources = [write_ct(tmp_path / f"ct-{number}.dcm", number) for number in (1, 2)]
    to = destination(root(orthanc), user=orthanc.USER, password_file=written(tmp_path, PASSWORD))
    to.deliver(sources[0])
    keys = ("study_instance_uid", "series_instance_uid", "sop_instance_uid")
    rows = [{"destination": "web", **dict(zip(keys, uids(one), strict=True))} for one in sources]
    found = not_held({"web": to}, [{"job_id": "j", "digest": "d", **row} for row in rows])
    assert [(one.code, one.sop_instance_uid) for one in found.discrepancies] == [
        ("result-not-held", uids(sources[1])[2])
    ]
    assert found.unasked == {}


@pytest.mark.parametrize("given", ["another password", None])
def test_a_wrong_password_is_refused_with_what_to_do(orthanc: peers.Orthanc, tmp_path: Path, given: str | None) -> None:
    keys: dict[str, Any] = {} if given is None else {"user": orthanc.USER, "password_file": written(tmp_path, given)}
    to = destination(root(orthanc), **keys)
    source = write_ct(tmp_path / "ct.dcm")
    for act in (to.check, lambda: to.deliver(source), lambda: to.holds("1.2", "1.3", "1.4"), to.accepted_kinds):
        with pytest.raises(DeliveryRefused, match="look at token_file, or user and password_file") as caught:
            act()
        assert caught.value.code == "http-401"
        assert given is None or given not in str(caught.value)
    assert orthanc.find("Instance") == []


def test_what_orthanc_cannot_read_is_refused_and_not_stored(orthanc: peers.Orthanc, tmp_path: Path) -> None:
    """A file cut off in its data set: nothing of it arrives."""
    source = write_ct(tmp_path / "ct.dcm")
    source.write_bytes(source.read_bytes()[:500])
    to = destination(root(orthanc), user=orthanc.USER, password_file=written(tmp_path, PASSWORD))
    with pytest.raises(DeliveryError):
        to.deliver(source)
    assert orthanc.find("Instance") == []


def test_a_wrong_path_is_told_as_such(orthanc: peers.Orthanc, tmp_path: Path) -> None:
    wrong = root(orthanc).replace("dicom-web", "no-such-thing")
    to = destination(wrong, user=orthanc.USER, password_file=written(tmp_path, PASSWORD))
    for act in (to.check, lambda: to.deliver(write_ct(tmp_path / "ct.dcm")), lambda: to.holds("1.2", "1.3", "1.4")):
        with pytest.raises(DeliveryRefused, match="correct url") as caught:
            act()
        assert caught.value.code == "http-404"


# --- nginx with TLS before it ---------------------------------------------------------------------------------------


def test_tls_with_certificates_on_both_sides(
    orthanc: peers.Orthanc, network: peers.PeerNetwork, tmp_path: Path
) -> None:
    authority, stranger = Authority.make(tmp_path / "ca"), Authority.make(tmp_path / "stranger")
    password = written(tmp_path, PASSWORD)
    source = write_ct(tmp_path / "ct.dcm")
    certificate, key = authority.issue("limner", network.host_address)
    with web_peers.nginx_before_orthanc(network, tmp_path / "nginx", authority, wants_certificate=True) as url:
        base: dict[str, Any] = {"user": orthanc.USER, "password_file": password}

        for authorities in (stranger.certificate, None):  # None: those of the system
            with pytest.raises(DeliveryError, match="can't be trusted") as caught:
                destination(url, **base, authorities=authorities).deliver(source)
            assert (caught.value.code, caught.value.retryable) == ("certificate-refused", True)

        with pytest.raises(DeliveryError) as caught:
            destination(url, **base, authorities=authority.certificate).deliver(source)
        assert caught.value.code == "http-400"  # nginx: no required certificate was sent
        assert orthanc.find("Instance") == []

        to = destination(url, **base, authorities=authority.certificate, certificate=certificate, private_key=key)
        to.check()
        to.deliver(source)
        assert to.holds(*uids(source))

        by_name = url.replace(network.peer_address, "localhost")  # nobody there by that name, or another
        with pytest.raises(DeliveryError):
            destination(by_name, **base, authorities=authority.certificate, seconds=2).check()


def test_a_result_beyond_the_services_limit_is_refused_for_good(
    orthanc: peers.Orthanc, network: peers.PeerNetwork, tmp_path: Path
) -> None:
    authority = Authority.make(tmp_path / "ca")
    image = make_ct(1, size=2048)  # 8 MB: nginx refuses while it is on its way
    image.save_as(tmp_path / "ct.dcm", enforce_file_format=True)
    with web_peers.nginx_before_orthanc(network, tmp_path / "nginx", authority, largest="100k") as url:
        to = destination(url, authorities=authority.certificate)
        with pytest.raises(DeliveryRefused, match="raise its limit") as caught:
            to.deliver(tmp_path / "ct.dcm")
    assert caught.value.code == "http-413"


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path)
    certificate, key = authority.issue("server", "192.0.2.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    refused = pytest.raises(DeliveryError, match=r"expected one for 127\.0\.0\.1")
    with scripted(answering(200), tls=context) as service, refused as caught:
        destination(service.url, authorities=authority.certificate).check()
    assert caught.value.code == "certificate-refused"
    assert service.requests == []


# --- services by the book of errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, DeliveryRefused, "http-400"),
        (401, DeliveryRefused, "http-401"),
        (403, DeliveryRefused, "http-403"),
        (404, DeliveryRefused, "http-404"),
        (409, DeliveryRefused, "http-409"),
        (413, DeliveryRefused, "http-413"),
        (415, DeliveryRefused, "context-refused"),
        (408, DeliveryError, "http-408"),
        (429, DeliveryError, "http-429"),
        (500, DeliveryError, "http-500"),
        (501, DeliveryRefused, "http-501"),
        (503, DeliveryError, "http-503"),
        (505, DeliveryRefused, "http-505"),
        (507, DeliveryError, "http-507"),
        (204, DeliveryRefused, "http-204"),
    ],
)
def test_each_http_status_is_judged(tmp_path: Path, status: int, kind: type[DeliveryError], code: str) -> None:
    content = b"" if status == 204 else b"<html>no</html>"
    with scripted(answering(status, content, media_type="text/html")) as service, pytest.raises(kind) as caught:
        destination(service.url).deliver(write_ct(tmp_path / "ct.dcm"))
    assert type(caught.value) is kind
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("status", "reason", "kind", "code"),
    [
        (409, 0xA700, DeliveryError, "status-a700"),
        (409, 0x0110, DeliveryError, "status-0110"),
        (202, 0xA700, DeliveryError, "status-a700"),
        (409, 0xA900, DeliveryRefused, "status-a900"),
        (409, 0xC000, DeliveryRefused, "status-c000"),
        (409, 0x0122, DeliveryRefused, "context-refused"),
        (409, 0xC122, DeliveryRefused, "context-refused"),
        (200, 0x0124, DeliveryRefused, "status-0124"),
    ],
)
def test_the_failure_reason_decides_where_there_is_one(
    tmp_path: Path, status: int, reason: int, kind: type[DeliveryError], code: str
) -> None:
    path = write_ct(tmp_path / "ct.dcm")
    act = answering(status, said(FAILED, item(path, "00081197", reason)))
    with scripted(act) as service, pytest.raises(kind) as caught:
        destination(service.url).deliver(path)
    assert type(caught.value) is kind
    assert caught.value.code == code


@pytest.mark.parametrize("reason", [0x0111, 45070])
def test_a_duplicate_was_stored_before(tmp_path: Path, reason: int) -> None:
    path = write_ct(tmp_path / "ct.dcm")
    with scripted(answering(409, said(FAILED, item(path, "00081197", reason)))) as service:
        destination(service.url).deliver(path)


def test_a_warning_is_a_success(tmp_path: Path) -> None:
    path = write_ct(tmp_path / "ct.dcm")
    with scripted(
        answering(202, said(STORED, item(path, "00081196", 0xB000)), 'Warning: 299 pacs "changed"')
    ) as service:
        destination(service.url).deliver(path)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{}", "not-acknowledged"),
        (said(STORED, {"00081155": {"vr": "UI", "Value": ["1.2.3"]}}), "not-acknowledged"),
        (b'{"00081199": 5, "00081198": {"Value": 7}}', "not-acknowledged"),
        (b"[" * 100000, "answer-unreadable"),
        (b"", "answer-unreadable"),
    ],
)
def test_no_word_about_the_object_is_no_success(tmp_path: Path, content: bytes, code: str) -> None:
    with scripted(answering(200, content)) as service, pytest.raises(DeliveryError) as caught:
        destination(service.url).deliver(write_ct(tmp_path / "ct.dcm"))
    assert (caught.value.code, caught.value.retryable) == (code, True)


def test_the_page_of_a_portal_is_no_success(tmp_path: Path) -> None:
    page = answering(200, b"<html>please sign in</html>", media_type="text/html")
    with scripted(page) as service, pytest.raises(DeliveryError, match="no page of a portal") as caught:
        destination(service.url).deliver(write_ct(tmp_path / "ct.dcm"))
    assert caught.value.code == "answer-unreadable"


def test_no_redirect_is_followed(tmp_path: Path) -> None:
    with scripted(answering(200)) as other:
        act = answering(307, b"", f"Location: {other.url}/studies")
        with scripted(act) as service, pytest.raises(DeliveryRefused, match="redirects are not followed") as caught:
            destination(service.url, token_file=written(tmp_path, "secret")).deliver(write_ct(tmp_path / "ct.dcm"))
    assert caught.value.code == "http-307"
    assert other.requests == []


def test_what_is_sent(tmp_path: Path) -> None:
    path = write_ct(tmp_path / "ct.dcm")
    token = written(tmp_path, "first")
    with scripted(answering(200, said(STORED, item(path)))) as service:
        to = destination(service.url, token_file=token)
        to.deliver(path)
        token.write_text("second\n")  # a token that was renewed is taken up
        to.deliver(path)
    first, second = service.requests
    head, _, body = first.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert head.startswith(b"POST /dicom-web/studies HTTP/1.1\r\n")
    assert headers["Authorization"] == "Bearer first"
    assert b"Authorization: Bearer second" in second
    boundary = headers["Content-Type"].partition("boundary=")[2]
    assert headers["Content-Type"] == f'multipart/related; type="application/dicom"; boundary={boundary}'
    assert headers["Accept"] == "application/dicom+json"
    expected = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    assert body == expected + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    assert int(headers["Content-Length"]) == len(body)


def test_credentials_that_cannot_be_read_are_told_without_them(tmp_path: Path) -> None:
    two_lines = written(tmp_path, "one\ntwo")
    for token in (tmp_path / "missing", two_lines):
        with scripted(answering(200)) as service, pytest.raises(DeliveryError, match="token_file of the") as caught:
            destination(service.url, token_file=token).check()
        assert (caught.value.code, caught.value.retryable) == ("credentials-unreadable", True)
        assert "two" not in str(caught.value)
        assert service.requests == []


# --- when it is to be asked again -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Retry-After: 120", 120),
        ("Retry-After: 0", 0),
        ("Retry-After: 999999", None),
        ("Retry-After: -3", None),
        ("Retry-After: soon", None),
        ("Retry-After: Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("X-Other: 1", None),
    ],
)
def test_retry_after_is_kept_if_it_makes_sense(tmp_path: Path, header: str, expected: float | None) -> None:
    with scripted(answering(503, b"", header)) as service, pytest.raises(DeliveryError) as caught:
        destination(service.url).deliver(write_ct(tmp_path / "ct.dcm"))
    assert caught.value.retry_after_seconds == expected


def test_retry_after_as_a_date(tmp_path: Path) -> None:
    from email.utils import formatdate

    header = f"Retry-After: {formatdate(time.time() + 60, usegmt=True)}"
    with scripted(answering(429, b"", header)) as service, pytest.raises(DeliveryError) as caught:
        destination(service.url).deliver(write_ct(tmp_path / "ct.dcm"))
    assert caught.value.retry_after_seconds is not None
    assert 50 < caught.value.retry_after_seconds <= 60


def test_a_refused_form_is_remembered_for_a_while(tmp_path: Path) -> None:
    image = make_ct(1)
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = NEEDS["report"][0]
    path = tmp_path / "report.dcm"
    image.save_as(path, enforce_file_format=True)

    def act(connection: Any, request: bytes) -> None:
        connection.sendall(answer(415) if request.startswith(b"POST") else answer(204))

    with scripted(act) as service:
        to = destination(service.url, probe_seconds=0.5)
        with pytest.raises(DeliveryRefused):
            to.deliver(path)
        assert set(NEEDS) - set(to.accepted_kinds()) == {"report", "report-on-labelmap", "report-alone"}
        time.sleep(0.6)
        assert to.accepted_kinds() == tuple(NEEDS)


# --- services that break ----------------------------------------------------------------------------------------------


def test_nobody_there_is_unreachable(tmp_path: Path) -> None:
    with scripted(answering(200)) as service:
        url = service.url
    for nobody in (url, "https://no-such-host.invalid/dicom-web"):
        with pytest.raises(DeliveryError, match="check URL and network") as caught:
            destination(nobody, seconds=2).deliver(write_ct(tmp_path / "ct.dcm"))
        assert (caught.value.code, caught.value.retryable) == ("unreachable", True)


def _hangs(connection: Any, _: bytes) -> None:
    time.sleep(1.5)


def _drips(connection: Any, _: bytes) -> None:
    for _number in range(40):
        time.sleep(0.1)
        connection.sendall(b"X")


def _drips_its_content(connection: Any, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nContent-Length: 1000\r\n\r\n")
    _drips(connection, b"")


def _breaks_off(connection: Any, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nContent-Length: 1000\r\n\r\n{")


def _is_no_http(connection: Any, _: bytes) -> None:
    connection.sendall(b"220 mail.example ESMTP\r\n")


@pytest.mark.parametrize("act", [_hangs, _drips, _drips_its_content, _breaks_off, _is_no_http, lambda *_: None])
def test_no_whole_answer_within_the_time_is_no_answer(tmp_path: Path, act: Act) -> None:
    path = write_ct(tmp_path / "ct.dcm")
    with scripted(act) as service:
        began = time.monotonic()
        with pytest.raises(DeliveryError) as caught:
            destination(service.url, seconds=0.5).deliver(path)
        assert time.monotonic() - began < 3
    assert (caught.value.code, caught.value.retryable) == ("no-answer", True)


def test_an_endless_answer_is_cut(tmp_path: Path) -> None:
    def act(connection: Any, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\n\r\n")
        while True:
            connection.sendall(b" " * 65536)

    with scripted(act) as service, pytest.raises(DeliveryError) as caught:
        destination(service.url).deliver(write_ct(tmp_path / "ct.dcm"))
    assert caught.value.code == "answer-too-large"


def test_endless_headers_are_cut(tmp_path: Path) -> None:
    def act(connection: Any, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"X-More: 1\r\n" * 1000)

    with scripted(act) as service, pytest.raises(DeliveryError) as caught:
        destination(service.url).deliver(write_ct(tmp_path / "ct.dcm"))
    assert caught.value.code == "no-answer"


def test_a_refusal_before_the_end_of_the_body_is_understood(tmp_path: Path) -> None:
    image = make_ct(1, size=2048)
    image.save_as(tmp_path / "ct.dcm", enforce_file_format=True)

    def act(connection: Any, _: bytes) -> None:
        connection.sendall(answer(413))
        time.sleep(0.3)

    with scripted(act, reads_body=False) as service, pytest.raises(DeliveryError) as caught:
        destination(service.url).deliver(tmp_path / "ct.dcm")
    assert caught.value.code in ("http-413", "no-answer")  # a reset may overtake the answer


def test_a_large_result_is_never_whole_in_memory(tmp_path: Path) -> None:
    path = write_ct(tmp_path / "ct.dcm")
    with path.open("r+b") as file:
        file.truncate(200 << 20)
    received: list[int] = []

    def act(connection: Any, request: bytes) -> None:
        head, _, body = request.partition(b"\r\n\r\n")
        (length,) = (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
        got, block = len(body), bytearray(1 << 16)
        while got < length and (more := connection.recv_into(block)):
            got += more
        received.append(got)
        connection.sendall(answer(200, said(STORED, item(path))))

    with scripted(act, reads_body=False) as service:
        to = destination(service.url)
        tracemalloc.start()
        try:
            to.deliver(path)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert received[0] > 200 << 20
    assert peak < 4 << 20


def test_nothing_of_http_client_is_changed() -> None:
    """Its limit of headers bounds an answer without end."""
    assert http.client._MAXHEADERS <= 100  # type: ignore[attr-defined]
