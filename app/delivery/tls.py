"""TLS to a peer that Limner calls (PS3.15 annex B.12): 1.2 at least, with the certificates that the settings name."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from app.errors import DeliveryError
from app.settings_listener_tls import ListenerTlsSettings
from app.settings_peer_tls import PeerTlsSettings

TlsArguments = tuple["ClientContext", str | None]
"""A context, and the name that the peer's certificate must have: what the toolkit takes for an association."""


class ClientContext(ssl.SSLContext):
    """Makes TLS of one connection, and remembers why that failed: the toolkit says no more than that there is none."""

    failure: OSError | None = None
    """What ended the handshake; `ssl.SSLError` is one."""
    _connection: ssl.SSLSocket | None = None

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        """Make TLS of a connection."""
        self._connection = super().wrap_socket(*arguments, **named)
        return self._connection

    def close(self) -> None:
        """Close the connection: the toolkit leaves one open that did not come about, or that the peer has ended."""
        if self._connection is not None:
            self._connection.close()


class _TellingSocket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError as error:
            if isinstance(self.context, ClientContext):
                self.context.failure = error
            raise


def tls_to(host: str, settings: PeerTlsSettings) -> TlsArguments:
    """Return what makes TLS of one connection to `host`. The files are read anew: certificates are renewed.

    Raises
    ------
    DeliveryError
        Code ``tls-files`` if one can't be read, or a key is not the certificate's.
    """
    context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = _TellingSocket
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = settings.check_host_name
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a peer's own certificate may stand for its authority
    try:
        context.load_verify_locations(settings.authorities)
        if settings.certificate is not None:
            context.load_cert_chain(settings.certificate, settings.private_key)
    except OSError as error:  # ssl.SSLError is one
        raise DeliveryError(
            f"the files of its [tls] can't be used ({error.strerror or type(error).__name__}); authorities, "
            "certificate and private_key must be readable PEM files, and the key the certificate's",
            code="tls-files",
        ) from error
    return context, settings.host_name or host


def tls_to_own_listener(settings: ListenerTlsSettings | None) -> PeerTlsSettings | None:
    """Return how Limner's own listener is called: its certificate is known, and is shown to it as the caller's."""
    if settings is None:
        return None
    return PeerTlsSettings(
        authorities=settings.certificate,
        certificate=settings.certificate,
        private_key=settings.key,
        check_host_name=False,
    )


def refuses_certificate(host: str, port: int, settings: PeerTlsSettings, *, timeout_seconds: float) -> bool:
    """Whether a peer is there, speaks TLS, and does not take the certificate that it is shown."""
    context, name = tls_to(host, settings)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # the next one tells it only when something is read
    try:
        with socket.create_connection((host, port), timeout=timeout_seconds) as connection:
            context.wrap_socket(connection, server_hostname=name).close()
    except OSError:
        failure = context.failure
        return isinstance(failure, ssl.SSLError) and "ALERT" in (failure.reason or "")
    return False
