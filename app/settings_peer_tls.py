"""TLS to the application entities that Limner calls: ``[destination.tls]`` and ``[archive.tls]``."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from app.settings_section import Section

_FILES = ("authorities", "certificate", "private_key")


class PeerTlsSettings(Section):
    """TLS to a destination or an archive that is reached by DIMSE: ``[destination.tls]``, ``[archive.tls]``."""

    authorities: Path = Field(description="A PEM file of the certificate authorities that may vouch for the peer.")
    certificate: Path | None = Field(default=None, description="A PEM file of Limner's own certificate.")
    private_key: Path | None = Field(
        default=None, description="With `certificate`: its private key in PEM; if not given, it is in the same file."
    )
    host_name: str | None = Field(
        default=None, min_length=1, description="The name or address in the peer's certificate; `host` if not given."
    )
    check_host_name: bool = Field(
        default=True,
        description="Whether the peer's certificate must name it; if not, anyone with a certificate of the authorities "
        "is taken for it.",
    )

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if self.private_key is not None and self.certificate is None:
            raise ValueError("private_key is that of certificate, which is missing")
        if self.host_name is not None and not self.check_host_name:
            raise ValueError("host_name is what check_host_name = false does not look at; leave one of them out")
        return self


class SecuredSettings(Section):
    """What those have in common that can be called over TLS."""

    tls: PeerTlsSettings | None = Field(
        default=None, description="A table of its own; without it the connection is in the clear."
    )

    def secured_in(self, folder: Path) -> Self:
        """Return the same with the files of `tls` counted from `folder`."""
        if self.tls is None:
            return self
        given = {key: getattr(self.tls, key) for key in _FILES}
        paths = {key: folder / path for key, path in given.items() if path is not None}
        return self.model_copy(update={"tls": self.tls.model_copy(update=paths)})
