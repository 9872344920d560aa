"""How a destination is reached by DICOMweb: the keys of ``[[destination]]`` that go with ``url``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from app.settings_section import Section

_FILES = ("password_file", "token_file", "authorities", "certificate", "private_key")


class DicomWebSettings(Section):
    """The keys of a destination that takes results by STOW-RS (PS3.18 section 10.5)."""

    url: str | None = Field(
        default=None,
        description="The root of a DICOMweb service, such as `https://pacs.example/dicom-web`: results go there by "
        "STOW-RS, and `ae_title`, `host` and `port` are left out.",
    )
    token_file: Path | None = Field(
        default=None, description="With `url`: a file that holds a bearer token; it is read anew for each request."
    )
    user: str | None = Field(default=None, min_length=1, description="With `url`: the user's name, for HTTP Basic.")
    password_file: Path | None = Field(
        default=None, description="With `user`: a file that holds the password; it is read anew for each request."
    )
    authorities: Path | None = Field(
        default=None,
        description="With `url`: a PEM file of the certificate authorities that may vouch for it; those of the system "
        "if not given.",
    )
    certificate: Path | None = Field(default=None, description="With `url`: a PEM file of Limner's own certificate.")
    private_key: Path | None = Field(
        default=None, description="With `certificate`: its private key in PEM; if not given, it is in the same file."
    )
    plain_http: bool = Field(
        default=False,
        description="With `url`: whether it may begin with http://; patients' data and credentials can then be read "
        "by everyone on the way.",
    )

    @field_validator("url")
    @classmethod
    def _is_a_root(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            is_root = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_root = False
        if not is_root or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("expected the root of a DICOMweb service, such as https://pacs.example/dicom-web")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError(
                "expected neither credentials nor query nor fragment in it; `user` and `password_file`, or "
                "`token_file`, say who asks"
            )
        return url.rstrip("/")

    def check_address(self, dimse: Mapping[str, object]) -> None:
        """Check that there is exactly one way to reach the destination; ValueError says what to change.

        Parameters
        ----------
        dimse
            What the settings say of the other way, by key; empty values are missing ones.
        """
        if self.url is None:
            missing = [key for key in ("ae_title", "host", "port") if not dimse[key]]
            if missing:
                raise ValueError(
                    "expected either url (DICOMweb) or ae_title, host and port (DIMSE); "
                    f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
                )
            web = [key for key in (*_FILES, "user", "plain_http") if getattr(self, key)]
            if web:
                raise ValueError(f"{', '.join(web)} can only be given with url: the destination is reached by DIMSE")
            return
        doubled = [key for key, value in dimse.items() if value]
        if doubled:
            raise ValueError(
                "expected either url (DICOMweb) or ae_title, host and port (DIMSE), and got both: leave "
                f"{', '.join(doubled)} out"
            )
        self._check_credentials(self.url)

    def _check_credentials(self, url: str) -> None:
        if self.token_file is not None and self.user is not None:
            raise ValueError("expected either token_file or user and password_file, and got both; keep one of them")
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file belong together; give both or none")
        if self.user is not None and (":" in self.user or not self.user.isprintable()):
            raise ValueError("a user of HTTP Basic can hold neither a colon nor control characters (RFC 7617)")
        if self.private_key is not None and self.certificate is None:
            raise ValueError("private_key is that of certificate, which is missing")
        if url.startswith("https:"):
            return
        if not self.plain_http:
            raise ValueError(
                "url has no TLS, so that patients' data and credentials can be read by everyone on the way; expected "
                "https://, or plain_http = true if the network is trusted with them"
            )
        if self.authorities is not None or self.certificate is not None:
            raise ValueError("authorities and certificate are for https://; leave them out, or correct url")

    def in_folder(self, folder: Path) -> Self:
        """Return the same with its files counted from `folder`."""
        given = {key: getattr(self, key) for key in _FILES}
        return self.model_copy(update={key: folder / path for key, path in given.items() if path is not None})
