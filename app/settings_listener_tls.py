"""TLS of the listener."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from app.settings_section import Section


class ListenerTlsSettings(Section):
    """TLS on the listener's port, and on nothing else: ``[listener.tls]``. Without it connections are in the clear."""

    certificate: Path = Field(description="The listener's certificate, with what is between it and its authority; PEM.")
    key: Path = Field(description="Its private key, without a passphrase; PEM.")
    authorities: Path | None = Field(default=None, description="The authorities whose peers are let in; PEM.")
    require_peer_certificate: bool = Field(
        default=True, description="Whether a peer must have a certificate of one of the authorities."
    )

    @model_validator(mode="after")
    def _authorities_are_there(self) -> ListenerTlsSettings:
        if self.require_peer_certificate and self.authorities is None:
            raise ValueError(
                "require_peer_certificate needs authorities: name the file with them, or set it to false, and then "
                "everybody who reaches the port may send"
            )
        return self

    def counted_from(self, base: Path) -> ListenerTlsSettings:
        """Return the same with relative paths counted from a folder."""
        authorities = base / self.authorities if self.authorities is not None else None
        paths = {"certificate": base / self.certificate, "key": base / self.key, "authorities": authorities}
        return self.model_copy(update=paths)
