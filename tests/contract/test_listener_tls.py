"""The listener behind TLS (PS3.15 annex B.12), with DCMTK as its peers, and peers that do not shake hands."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.audit.events import AuditEvent
from app.errors import SettingsError
from tests.certificates import listener_tls
from tests.listening import Listening, RawPeer, listening, reset, wait_until, write_ct
from tests.peers import ENVIRONMENT, program, require

HOST = "127.0.0.1"


@contextmanager
def listening_with_tls(folder: Path, certificates: Path, **settings: Any) -> Iterator[Listening]:
    require("echoscu", "storescu")
    with listening(folder / "spool", tls=listener_tls(certificates), **settings) as at:
        yield at


def run(name: str, at: Listening, certificates: Path, who: str, *more: str) -> int:
    """Whether DCMTK's program ends well; `who` names its certificate, empty for none."""
    own = ["+tls", f"{certificates / who}.key", f"{certificates / who}.crt"] if who else ["+tla"]
    trusted = ["+cf", str(certificates / "hospital.crt")]
    command = [program(name), "-to", "10", "-ta", "10", *own, *trusted, "-aec", "LIMNER", HOST, str(at.port), *more]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, timeout=60, check=False).returncode


def test_storescu_with_a_certificate_is_served_by_our_loop(tmp_path: Path, certificates: Path) -> None:
    source = write_ct(tmp_path / "ct.dcm", 1, size=512)
    with listening_with_tls(tmp_path, certificates) as at:
        assert run("echoscu", at, certificates, "modality") == 0
        assert run("storescu", at, certificates, "modality", str(source)) == 0
        [instance] = at.instances
        assert at.spool.path_of(instance.digest).read_bytes().endswith(source.read_bytes()[-512 * 1024 :])
    assert at.audit.of(AuditEvent.ASSOCIATION_REFUSED) == []


def test_who_has_no_certificate_of_the_authority_is_refused_and_audited(tmp_path: Path, certificates: Path) -> None:
    with listening_with_tls(tmp_path, certificates) as at:
        for who in ("", "stranger"):
            assert run("echoscu", at, certificates, who) != 0
        with RawPeer(at.port) as in_the_clear:
            in_the_clear.request()
            assert in_the_clear.read_pdu()[0] not in (2, 4)
        assert run("echoscu", at, certificates, "modality") == 0
    refused = at.audit.of(AuditEvent.ASSOCIATION_REFUSED)
    assert refused == [{"source_host": HOST, "code": "tls-handshake-failed"}]  # one a minute


def test_a_certificate_is_not_asked_for_where_none_is_required(tmp_path: Path, certificates: Path) -> None:
    tls = {
        "certificate": certificates / "limner.crt",
        "key": certificates / "limner.key",
        "require_peer_certificate": False,
    }
    with listening(tmp_path / "spool", tls=tls) as at:
        assert run("echoscu", at, certificates, "") == 0


def test_a_peer_that_says_no_hello_holds_up_nobody(tmp_path: Path, certificates: Path) -> None:
    with listening_with_tls(tmp_path, certificates, acse_timeout_seconds=3) as at:
        silent = [RawPeer(at.port) for _ in range(5)]
        dripping = RawPeer(at.port)
        dripping.socket.sendall(b"\x16\x03\x01\x02")
        garbage = RawPeer(at.port)
        garbage.socket.sendall(b"garbage in place of a hello\r\n" * 20)
        began = time.monotonic()
        assert run("echoscu", at, certificates, "modality") == 0
        assert time.monotonic() - began < 15
        for one in (*silent, dripping):
            assert one.read_pdu() == (0, b"")  # cut off after the time for a request
        for one in (*silent, dripping, garbage):
            one.socket.close()
        wait_until(lambda: not at.listener._server.active_associations)  # type: ignore[union-attr]
        assert run("echoscu", at, certificates, "modality") == 0


def test_connections_that_are_reset_at_once_end_nothing(tmp_path: Path, certificates: Path) -> None:
    with listening_with_tls(tmp_path, certificates) as at:
        for _ in range(300):
            reset(RawPeer(at.port).socket)
        wait_until(lambda: not at.listener._server.active_associations)  # type: ignore[union-attr]
        assert run("echoscu", at, certificates, "modality") == 0


def test_old_versions_of_tls_are_not_spoken(tmp_path: Path, certificates: Path) -> None:
    with listening_with_tls(tmp_path, certificates) as at:
        client = [program("openssl"), "s_client", "-connect", f"{HOST}:{at.port}", "-tls1_1"]
        said = subprocess.run(client, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode != 0


@pytest.mark.parametrize("broken", ["missing", "no certificate", "of another"])
def test_files_that_cannot_be_used_are_an_error_of_the_settings(
    tmp_path: Path, certificates: Path, broken: str
) -> None:
    key = {"missing": tmp_path / "none", "no certificate": tmp_path / "text", "of another": certificates / "other.key"}
    (tmp_path / "text").write_text("not PEM")
    tls = {"certificate": certificates / "limner.crt", "key": key[broken], "require_peer_certificate": False}
    with pytest.raises(SettingsError) as caught, listening(tmp_path / "spool", tls=tls):
        pass
    assert caught.value.code == "listener-tls"
