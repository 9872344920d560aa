"""One request to a DICOMweb service at a time: TLS, credentials, and an answer that can neither hang nor flood.

No redirect is followed and no proxy of the environment is used: a result goes where the settings say, or nowhere.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from app.delivery.destination import SLOWEST_BYTES_PER_SECOND
from app.errors import DeliveryError
from app.identifiers import IMPLEMENTATION_VERSION_NAME
from app.settings import DestinationSettings

JSON_MEDIA_TYPE = "application/dicom+json"
_LARGEST_ANSWER = 1 << 20
"""Bytes. What is asked here is about one instance, or a page of a hundred studies."""
_LONGEST_RETRY_AFTER = 3600.0
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Answer:
    """What a service answered."""

    status: int
    media_type: str
    """Without its parameters, in lower case."""
    content: bytes
    retry_after_seconds: float | None
    """When to come again, if it said so and not beyond reason."""
    warned: bool
    """Whether it sent a Warning (RFC 9111 section 5.5), which in PS3.18 says that something was changed or left out."""

    @property
    def is_json(self) -> bool:
        """Whether it says of itself that it is DICOM JSON (PS3.18 annex F)."""
        return self.media_type in (JSON_MEDIA_TYPE, "application/json")


class WebService:
    """A DICOMweb service, as the settings of a destination describe it."""

    def __init__(self, settings: DestinationSettings) -> None:
        assert settings.url is not None  # noqa: S101 - only such destinations come here
        parts = urlsplit(settings.url)
        self._settings = settings
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._has_tls = parts.scheme == "https"
        self._path = parts.path

    def __str__(self) -> str:
        return f"the DICOMweb service {self._settings.url}"

    def get(self, path: str) -> Answer:
        """GET what is at `path` below the service's root, with its query; as DICOM JSON.

        Raises
        ------
        DeliveryError
            Code ``unreachable``, ``certificate-refused``, ``tls-failed``, ``no-answer``, ``answer-too-large`` or
            ``credentials-unreadable``.
        """
        return self._asked("GET", path, None, 0, {})

    def post(self, path: str, body: Iterable[bytes], length: int, content_type: str) -> Answer:
        """POST a body of `length` bytes, block by block; it is never whole in memory. Raises as `get`."""
        return self._asked("POST", path, body, length, {"Content-Type": content_type, "Content-Length": str(length)})

    def _asked(
        self, method: str, path: str, body: Iterable[bytes] | None, length: int, headers: dict[str, str]
    ) -> Answer:
        headers = {
            **headers,
            **self._authorization(),
            "Accept": JSON_MEDIA_TYPE,
            "Accept-Encoding": "identity",  # an answer must not unfold to more than it seems
            "User-Agent": IMPLEMENTATION_VERSION_NAME,
            "Connection": "close",
        }
        seconds = 2 * self._settings.timeout_seconds + length / SLOWEST_BYTES_PER_SECOND
        with self._connected() as connection, _cut_after(connection.sock, seconds) as is_cut:
            try:
                # who refuses may do so before the end of the body, and close: the answer is there all the same
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(
                        method, self._path + path, body, headers, preload_content=False, decode_content=False
                    )
                return self._read(connection)
            except (OSError, HTTPError, http.client.HTTPException) as error:
                limit = seconds if is_cut.is_set() else self._settings.timeout_seconds
                raise DeliveryError(
                    f"{self} broke the connection or did not answer within {limit:g} s ({type(error).__name__}); it "
                    "will be asked again",
                    code="no-answer",
                ) from error

    def _read(self, connection: HTTPConnection) -> Answer:
        with contextlib.closing(connection.getresponse()) as response:
            content = bytearray()
            for block in response.stream(_BLOCK, decode_content=False):
                content += block
                if len(content) > _LARGEST_ANSWER:
                    raise DeliveryError(
                        f"{self} answered with more than {_LARGEST_ANSWER} bytes, where less was expected; "
                        "check that the URL is that of a DICOMweb service",
                        code="answer-too-large",
                    )
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            after = _retry_after(response.headers.get("Retry-After", ""))
            return Answer(response.status, media_type, bytes(content), after, "Warning" in response.headers)

    @contextmanager
    def _connected(self) -> Iterator[HTTPConnection]:
        connection = self._connection()
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            raise DeliveryError(
                f"the certificate of {self} can't be trusted: {error.verify_message}; expected one for "
                f"{self._host}, by one of the authorities that the settings name",
                code="certificate-refused",
            ) from error
        except ssl.SSLError as error:
            raise DeliveryError(
                f"no TLS connection to {self} came about ({error.reason}); check that it speaks TLS 1.2 or newer, and "
                "whether it asks for a certificate",
                code="tls-failed",
            ) from error
        except (OSError, HTTPError) as error:
            raise DeliveryError(
                f"{self} can't be reached within {self._settings.timeout_seconds:g} s; check URL and network, and "
                "that it runs",
                code="unreachable",
            ) from error
        try:
            yield connection
        finally:
            connection.close()

    def _connection(self) -> HTTPConnection:
        timeout = self._settings.timeout_seconds
        if not self._has_tls:
            return HTTPConnection(self._host, self._port, timeout=timeout)
        try:
            context = ssl.create_default_context(cafile=self._settings.authorities)
            if self._settings.certificate is not None:
                context.load_cert_chain(self._settings.certificate, self._settings.private_key)
        except (OSError, ssl.SSLError) as error:
            raise self._unreadable("authorities, certificate or private_key", type(error).__name__) from error
        return HTTPSConnection(self._host, self._port, timeout=timeout, ssl_context=context)

    def _authorization(self) -> dict[str, str]:
        if self._settings.token_file is not None:
            return {"Authorization": f"Bearer {self._secret('token_file', self._settings.token_file)}"}
        if self._settings.user is not None and self._settings.password_file is not None:
            password = self._secret("password_file", self._settings.password_file)
            pair = base64.b64encode(f"{self._settings.user}:{password}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        return {}

    def _secret(self, key: str, path: Path) -> str:
        try:
            secret = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise self._unreadable(key, type(error).__name__) from None
        if not secret or not secret.isprintable() or (key == "token_file" and not secret.isascii()):
            raise self._unreadable(key, "it is not one printable line")
        return secret

    def _unreadable(self, key: str, why: str) -> DeliveryError:
        return DeliveryError(
            f"{key} of the destination {self._settings.name} can't be used ({why}); expected a file "
            "that the server's user can read, with one line of text or in PEM",
            code="credentials-unreadable",
        )


@contextmanager
def _cut_after(connected: socket.socket | None, seconds: float) -> Iterator[threading.Event]:
    """Shut a socket down after so many seconds: a peer that sends a byte now and then meets no other limit."""
    is_cut = threading.Event()

    def cut() -> None:
        is_cut.set()
        if connected is not None:
            with contextlib.suppress(OSError):
                # of the socket itself: that of TLS would change what the reading thread looks at
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield is_cut
    finally:
        timer.cancel()


def _retry_after(value: str) -> float | None:
    """The seconds of a Retry-After (RFC 9110 section 10.2.3); None if it says none, or none of sense."""
    try:
        seconds = float(value) if value.strip().isdigit() else _seconds_until(parsedate_to_datetime(value))
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds <= _LONGEST_RETRY_AFTER else None


def _seconds_until(moment: datetime) -> float:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return aware.timestamp() - time.time()
