"""Peers of the DICOMweb client: nginx with TLS before Orthanc, and services that keep to no rule."""

from __future__ import annotations

import contextlib
import select
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import create_connection, create_server, socket
from typing import Any

from tests import peers

TLS_PORT = 8443
Act = Callable[[socket, bytes], None]


@dataclass(frozen=True)
class Authority:
    """A certificate authority of its own, and what it vouches for."""

    folder: Path
    name: str

    @property
    def certificate(self) -> Path:
        return self.folder / f"{self.name}.crt"

    @classmethod
    def make(cls, folder: Path, name: str = "authority") -> Authority:
        peers.require("openssl")
        folder.mkdir(parents=True, exist_ok=True)
        made = cls(folder, name)
        _openssl(
            folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.crt",
            "-days", "2", "-subj", f"/CN={name}",
        )  # fmt: skip
        return made

    def issue(self, name: str, address: str) -> tuple[Path, Path]:
        """Certificate and key for an address."""
        _openssl(
            self.folder, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
            "-subj", f"/CN={name}",
        )  # fmt: skip
        (self.folder / f"{name}.ext").write_text(
            f"subjectAltName=IP:{address}\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        _openssl(
            self.folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{self.name}.crt", "-CAkey", f"{self.name}.key",
            "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.crt",
        )  # fmt: skip
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"


def _openssl(folder: Path, *arguments: str) -> None:
    result = subprocess.run(
        [peers.program("openssl"), *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


_NGINX = """
daemon off;
user root;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen {address}:{port} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_client_certificate {authority};
    ssl_verify_client {verify};
    client_max_body_size {largest};
    location / {{ proxy_pass http://{address}:{http}; }}
  }}
}}
"""


@contextmanager
def nginx_before_orthanc(
    network: peers.PeerNetwork,
    folder: Path,
    authority: Authority,
    *,
    wants_certificate: bool = False,
    largest: str = "0",
) -> Iterator[str]:
    """nginx with TLS before the Orthanc of the network; yields the URL of the DICOMweb root."""
    peers.require("nginx")
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = authority.issue("server", network.peer_address)
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _NGINX.format(
            folder=folder,
            address=network.peer_address,
            port=TLS_PORT,
            certificate=certificate,
            key=key,
            authority=authority.certificate,
            verify="on" if wants_certificate else "off",
            largest=largest,
            http=peers.Orthanc.HTTP_PORT,
        )
    )
    command = network.command(peers.program("nginx"), "-e", str(folder / "start.log"), "-c", str(configuration))
    with peers.running_process(command, folder / "nginx.log", network.peer_address, TLS_PORT):
        yield f"https://{network.peer_address}:{TLS_PORT}/dicom-web"


@dataclass
class Scripted:
    """A service that does with each request what `act` says; `requests` are their heads and bodies."""

    url: str
    requests: list[bytes] = field(default_factory=list)


@contextmanager
def scripted(act: Act, *, reads_body: bool = True, tls: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    """A service on loopback. `act` gets the connection and what came; the connection is closed after it."""
    stop = threading.Event()
    with create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        service = Scripted(f"http{'s' if tls else ''}://127.0.0.1:{server.getsockname()[1]}/dicom-web")

        def serve() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError, OSError):
                    connection: Any = server.accept()[0]
                    connection.settimeout(10)
                    with connection if tls is None else tls.wrap_socket(connection, server_side=True) as one:
                        service.requests.append(_request(one, reads_body))
                        act(one, service.requests[-1])

        thread = threading.Thread(target=serve, name="scripted-service")
        thread.start()
        try:
            yield service
        finally:
            stop.set()
            thread.join()


def _request(connection: socket, reads_body: bool) -> bytes:
    got = b""
    while b"\r\n\r\n" not in got and (block := connection.recv(65536)):
        got += block
    head, _, body = got.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    parts = [body]
    left = int(lengths[0]) - len(body) if lengths and reads_body else 0
    while left > 0 and (block := connection.recv(65536)):
        parts.append(block)
        left -= len(block)
    return head + b"\r\n\r\n" + b"".join(parts)


def answer(status: int, content: bytes = b"", *headers: str, media_type: str = "application/dicom+json") -> bytes:
    lines = [f"HTTP/1.1 {status} Because", f"Content-Type: {media_type}", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


def answering(status: int, content: bytes = b"", *headers: str, media_type: str = "application/dicom+json") -> Act:
    """What answers each request so."""
    return lambda connection, _: connection.sendall(answer(status, content, *headers, media_type=media_type))


@dataclass
class CuttingProxy:
    """What stands between a client and a server: it calls `on_cut` once, and drops that connection.

    It does so after `cut_after` bytes of a POST, or, with None, when the server has begun to answer one.
    """

    upstream: tuple[str, int]
    cut_after: int | None
    on_cut: Callable[[], None]
    cuts: int = 0
    posts: int = 0

    @contextmanager
    def running(self) -> Iterator[int]:
        """Yields its port on loopback."""
        stop = threading.Event()
        with create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0.1)

            def serve() -> None:
                while not stop.is_set():
                    with contextlib.suppress(OSError):
                        connection = server.accept()[0]
                        with connection, create_connection(self.upstream, timeout=10) as to:
                            self._forward(connection, to)

            thread = threading.Thread(target=serve, name="cutting-proxy")
            thread.start()
            try:
                yield server.getsockname()[1]
            finally:
                stop.set()
                thread.join()

    def _forward(self, client: socket, server: socket) -> None:
        passed, is_post = 0, False
        while True:
            for one in select.select([client, server], [], [], 10)[0]:
                data = one.recv(65536)
                if not data:
                    return
                if one is client:
                    if not passed and (is_post := data.startswith(b"POST")):
                        self.posts += 1
                    passed += len(data)
                    server.sendall(data)
                if is_post and not self.cuts and self._is_time(passed, answered=one is server):
                    self.cuts += 1
                    self.on_cut()
                    return
                if one is server:
                    client.sendall(data)

    def _is_time(self, passed: int, *, answered: bool) -> bool:
        return answered if self.cut_after is None else passed >= self.cut_after
