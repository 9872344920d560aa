"""The settings of what several hosts share where they mount no common file system: ``[shared_storage]``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from app.settings_section import Section

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_FILES = ("secret_key_file", "authorities")


class SharedStorageSettings(Section):
    """S3-compatible storage through which hosts share instances and results: ``[shared_storage]``.

    Without `url` nothing is shared so: one host works alone, or all mount the data folder.
    """

    url: str | None = Field(
        default=None,
        description="The bucket, and a prefix in it if it holds more: `s3://bucket/prefix`. It must exist.",
    )
    endpoint: str | None = Field(
        default=None,
        description="The root of the storage, such as `https://s3.example:9000`; Amazon's if not given.",
    )
    region: str | None = Field(default=None, min_length=1, description="The bucket's region, if there are any.")
    access_key: str | None = Field(
        default=None,
        min_length=1,
        description="Who asks; if not given, this and the secret come from `AWS_ACCESS_KEY_ID` and "
        "`AWS_SECRET_ACCESS_KEY`, or from where else the host has them for S3.",
    )
    secret_key_file: Path | None = Field(
        default=None,
        description="With `access_key`: a file that holds the secret key; it is read once, when the storage is first "
        "asked.",
    )
    authorities: Path | None = Field(
        default=None,
        description="A PEM file of the certificate authorities that may vouch for `endpoint`; the usual ones if not "
        "given.",
    )
    plain_http: bool = Field(
        default=False,
        description="Whether `endpoint` may begin with http://; patients' data can then be read by everyone on the "
        "way.",
    )
    timeout_seconds: float = Field(
        default=10.0,
        gt=0,
        description="Longest wait for the storage's answer; a transfer has a second more for each 4 MiB.",
    )

    @field_validator("url")
    @classmethod
    def _is_a_bucket(cls, url: str | None) -> str | None:
        if url is None:
            return None
        bucket, _, prefix = url.removeprefix("s3://").rstrip("/").partition("/")
        parts = prefix.split("/") if prefix else []
        if not url.startswith("s3://") or _BUCKET.fullmatch(bucket) is None or {".", ".."} & set(parts):
            raise ValueError("expected a bucket, with or without a prefix, such as s3://bucket/prefix")
        if prefix and _PREFIX.fullmatch(prefix) is None:
            raise ValueError("expected a prefix of letters, digits, '.', '_', '-' and '/', such as s3://bucket/prefix")
        return url.rstrip("/")

    @field_validator("endpoint")
    @classmethod
    def _is_a_root(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        try:
            parts = urlsplit(endpoint)
            is_root = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_root = False
        if not is_root or not endpoint.isascii() or not endpoint.isprintable() or " " in endpoint:
            raise ValueError("expected the root of an S3-compatible storage, such as https://s3.example:9000")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError(
                "expected neither credentials nor query nor fragment in it; `access_key` and `secret_key_file` say "
                "who asks"
            )
        return endpoint.rstrip("/")

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if self.url is None:
            given = sorted(self.model_fields_set - {"url"})
            if given:
                raise ValueError(f"url is missing, and {', '.join(given)} can only be given with it")
            return self
        if (self.access_key is None) != (self.secret_key_file is None):
            raise ValueError("access_key and secret_key_file belong together; give both or none")
        if self.endpoint is not None and self.endpoint.startswith("http:") and not self.plain_http:
            raise ValueError(
                "endpoint has no TLS, so that patients' data can be read by everyone on the way; expected https://, or "
                "plain_http = true if the network is trusted with them"
            )
        return self

    @property
    def bucket(self) -> str:
        """The bucket's name; empty without `url`."""
        return (self.url or "").removeprefix("s3://").partition("/")[0]

    @property
    def prefix(self) -> str:
        """What the names of all objects begin with: empty, or with a slash at its end."""
        prefix = (self.url or "").removeprefix("s3://").partition("/")[2]
        return f"{prefix}/" if prefix else ""

    def in_folder(self, folder: Path) -> Self:
        """Return the same with its files counted from `folder`."""
        given = {key: getattr(self, key) for key in _FILES}
        return self.model_copy(update={key: folder / path for key, path in given.items() if path is not None})
