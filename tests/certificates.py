"""Certificates of a hospital's own authority, and of another, made by OpenSSL for tests of TLS."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.peers import program, require


def make_certificates(folder: Path) -> Path:
    """Fill the folder: authorities `hospital` and `other`; `limner` and `modality` of the one, `stranger` of the other.

    Each has a certificate NAME.crt and a key NAME.key.
    """
    require("openssl")
    for authority in ("hospital", "other"):
        _authority(folder, authority)
    for name, authority in (("limner", "hospital"), ("modality", "hospital"), ("stranger", "other")):
        _certificate(folder, name, authority)
    return folder


def listener_tls(certificates: Path) -> dict[str, str]:
    """What `[listener.tls]` says of a listener that lets in whom the hospital knows."""
    return {
        "certificate": str(certificates / "limner.crt"),
        "key": str(certificates / "limner.key"),
        "authorities": str(certificates / "hospital.crt"),
    }


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run([program("openssl"), *arguments], cwd=folder, check=True, capture_output=True)


def _authority(folder: Path, name: str) -> None:
    names = ("-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN=test {name}")
    basic = ("-addext", "basicConstraints=critical,CA:TRUE")
    _openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", *names, *basic)


def _certificate(folder: Path, name: str, authority: str) -> None:
    (folder / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    request = ("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
    _openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", *request)
    signer = ("-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-CAcreateserial", "-extfile", "ext")
    _openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-days", "30", *signer, "-out", f"{name}.crt")
