"""TLS of the listener (PS3.15 annex B.12): 1.2 at least, with the certificates that the settings name."""

from __future__ import annotations

import ssl

from app.errors import SettingsError
from app.settings_listener_tls import ListenerTlsSettings


def server_context(settings: ListenerTlsSettings) -> ssl.SSLContext:
    """Return what makes TLS of accepted connections.

    Raises
    ------
    SettingsError
        If a file can't be read, or a key is not the certificate's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.certificate, settings.key)
        if settings.authorities is not None:
            context.load_verify_locations(settings.authorities)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(
            f"[listener.tls] can't be used ({error}); certificate, key and authorities must be readable PEM files, and "
            "the key the certificate's",
            code="listener-tls",
        ) from error
    context.verify_mode = ssl.CERT_REQUIRED if settings.require_peer_certificate else ssl.CERT_NONE
    return context
