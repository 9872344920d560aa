"""DCMTK's storescp behind TLS as a destination, and Limner's own listener as the one that is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.delivery.archive import DimseArchive
from app.delivery.query import DimseQuery
from app.delivery.sending import send_folder
from app.delivery.storage import DimseDestination
from app.delivery.tls import tls_to_own_listener
from app.errors import DeliveryError, DeliveryRefused
from app.health import check_listener
from app.settings import ArchiveSettings, DestinationSettings, Settings
from app.settings_listener import ListenerSettings
from tests import peers
from tests.listening import Listening, listening, write_ct
from tests.web_peers import Authority

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def network() -> Iterator[peers.PeerNetwork]:
    with peers.peer_network() as one:
        yield one


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("stranger"), "stranger")


@contextmanager
def storescp(network: peers.PeerNetwork, folder: Path, authority: Authority, name: str) -> Iterator[Any]:
    """It has a certificate for `name`, and takes those who have one of the same authority."""
    certificate, key = authority.issue(f"archive-{name}", name)
    options = ("+tls", str(key), str(certificate), "+cf", str(authority.certificate), "--require-peer-cert")
    with peers.running_storescp(network, folder, options=options) as one:
        yield one


def destination(scp: Any, authority: Authority, own: tuple[Path, Path] | None, **tls: Any) -> DimseDestination:
    files = {} if own is None else {"certificate": own[0], "private_key": own[1]}
    settings = {
        "name": "archive",
        "ae_title": scp.ae_title,
        "host": scp.host,
        "port": scp.port,
        "timeout_seconds": 10,
        "tls": {"authorities": authority.certificate, **files, **tls},
    }
    return DimseDestination(DestinationSettings.model_validate(settings), "LIMNER")


def test_a_result_arrives_over_tls(tmp_path: Path, network: peers.PeerNetwork, authority: Authority) -> None:
    source = write_ct(tmp_path / "ct.dcm", 1, size=512)
    own = authority.issue("limner", HOST)
    with storescp(network, tmp_path / "scp", authority, network.peer_address) as scp:
        to = destination(scp, authority, own)
        to.check()
        assert to.accepted_kinds()
        to.deliver(source)
        (file,) = scp.files()
        assert file.read_bytes()[-512 * 1024 :] == source.read_bytes()[-512 * 1024 :]


def test_who_is_not_vouched_for_gets_nothing(
    tmp_path: Path, network: peers.PeerNetwork, authority: Authority, stranger: Authority
) -> None:
    source, own = write_ct(tmp_path / "ct.dcm", 1), authority.issue("limner", HOST)
    with storescp(network, tmp_path / "scp", authority, "192.0.2.7") as scp:
        for to in (
            destination(scp, stranger, own),
            destination(scp, authority, own),  # another host's certificate
            destination(scp, authority, own, host_name="archive.example"),
        ):
            with pytest.raises(DeliveryError, match="certificate that is not accepted") as caught:
                to.deliver(source)
            assert caught.value.code == "certificate-refused"
        assert scp.files() == []
        destination(scp, authority, own, host_name="192.0.2.7").deliver(source)
        destination(scp, authority, own, check_host_name=False).check()
        assert len(scp.files()) == 1


@pytest.mark.parametrize("has_certificate", [False, True], ids=["none", "a stranger's"])
def test_a_destination_that_does_not_take_our_certificate_is_said_to(
    tmp_path: Path, network: peers.PeerNetwork, authority: Authority, stranger: Authority, has_certificate: bool
) -> None:
    own = stranger.issue("limner", HOST) if has_certificate else None
    with storescp(network, tmp_path / "scp", authority, network.peer_address) as scp:
        with pytest.raises(DeliveryError, match="takes the certificate of its \\[tls\\]") as caught:
            destination(scp, authority, own).deliver(write_ct(tmp_path / "ct.dcm", 1))
        assert caught.value.code in ("tls-failed", "association-aborted")
        assert scp.files() == []


def test_a_destination_in_the_clear_is_told_from_one_that_is_down(
    tmp_path: Path, network: peers.PeerNetwork, authority: Authority
) -> None:
    with peers.running_storescp(network, tmp_path / "scp") as scp:
        to = destination(scp, authority, None)
        with pytest.raises(DeliveryError, match="speaks TLS on that port") as caught:
            to.check()
        assert caught.value.code == "tls-failed"
    with pytest.raises(DeliveryError) as caught:
        to.check()
    assert caught.value.code == "unreachable"


def test_an_archive_is_asked_over_tls(tmp_path: Path, network: peers.PeerNetwork, authority: Authority) -> None:
    certificate, key = authority.issue("limner", HOST)
    tls = {"authorities": authority.certificate, "certificate": certificate, "private_key": key}
    with storescp(network, tmp_path / "scp", authority, network.peer_address) as scp:
        address = {"name": "pacs", "ae_title": scp.ae_title, "host": scp.host, "port": scp.port}
        settings = ArchiveSettings.model_validate({**address, "timeout_seconds": 10, "tls": tls})
        DimseArchive(settings, "LIMNER").check()
        with pytest.raises(DeliveryRefused) as caught:  # it is reached, and is no archive
            DimseQuery.of_archive(settings, "LIMNER").find("STUDY", {"StudyInstanceUID": "1.2"})
        assert caught.value.code == "context-refused"


@pytest.mark.parametrize("file", ["authorities", "certificate", "private_key"])
def test_files_that_cannot_be_used_are_named(tmp_path: Path, authority: Authority, file: str) -> None:
    certificate, key = authority.issue("limner", HOST)
    (tmp_path / "text").write_text("not PEM")
    tls = {"authorities": authority.certificate, "certificate": certificate, "private_key": key}
    settings = {"name": "a", "ae_title": "A", "host": HOST, "port": 1, "tls": {**tls, file: tmp_path / "text"}}
    with pytest.raises(DeliveryError, match="readable PEM files") as caught:
        DimseDestination(DestinationSettings.model_validate(settings), "LIMNER").check()
    assert caught.value.code == "tls-files"


@contextmanager
def _own_listener(folder: Path, authority: Authority, vouching: Authority) -> Iterator[tuple[Listening, Settings]]:
    """A listener with a certificate of `vouching`, which lets in who has one of `authority`."""
    certificate, key = vouching.issue("own", HOST)
    tls = {"certificate": certificate, "key": key, "authorities": authority.certificate}
    with listening(folder / "spool", tls=tls) as at:
        listener = ListenerSettings.model_validate({"port": at.port, "host": HOST, "tls": tls})
        yield at, Settings(data_folder=folder, listener=listener)


def test_limner_calls_its_own_listener(tmp_path: Path, authority: Authority) -> None:
    source = write_ct(tmp_path / "ct.dcm", 1)
    with _own_listener(tmp_path, authority, authority) as (at, settings):
        found = check_listener(settings)
        assert (found.ok, "answers C-ECHO" in found.detail) == (True, True), found
        tls = tls_to_own_listener(settings.listener.tls)
        report = send_folder(source, HOST, at.port, "LIMNER", "SENDER", tls=tls)
        assert [one.accepted for one in report.files] == [True]
    down = check_listener(settings)
    assert (down.ok, down.advice) == (False, "start the server with `limner serve`")


def test_a_listener_that_does_not_let_its_own_certificate_in_is_alive(
    tmp_path: Path, authority: Authority, stranger: Authority
) -> None:
    with _own_listener(tmp_path, authority, stranger) as (_, settings):
        found = check_listener(settings)
    assert found.ok
    assert "takes no certificate of its own" in found.detail
