"""The settings of the API for viewers: a section of `app.settings`."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from app.errors import SettingsError
from app.settings_section import Section

INTERACTIVE = "interactive"
"""What the records call the rule and the pipeline of what a person had a generalist draw through the API."""
_TOKEN_LENGTH = 32
_TOKEN = re.compile(rf"[!-~]{{{_TOKEN_LENGTH},}}")


class WebSettings(Section):
    """The API through which a viewer prompts a generalist interactively: ``[web]``.

    Whoever holds the token may read any series that was received and send results to any destination. Give it by
    ``LIMNER__WEB__TOKEN`` or in a file of its own; `openssl rand -hex 32` makes one. The API itself has no TLS: to
    reach it from other machines, let a proxy on this one end TLS, or set `allow_other_hosts` where the network does.
    """

    enabled: bool = Field(default=False, description="Whether `limner serve` offers the API.")
    host: str = Field(default="127.0.0.1", description="The address to listen on; one of this machine's loopback.")
    port: int = Field(default=8480, ge=0, le=65535, description="The TCP port to listen on.")
    allow_other_hosts: bool = Field(
        default=False, description="Allow a `host` that other machines reach; token and images go there unencrypted."
    )
    token: SecretStr | None = Field(
        default=None, description=f"What clients show as bearer token: {_TOKEN_LENGTH} printable characters or more."
    )
    token_file: Path | None = Field(default=None, description="A file that holds the token, in place of `token`.")
    models: tuple[str, ...] = Field(default=(), description="The generalists offered: folders in the model repository.")
    maximum_sessions: int = Field(default=4, ge=1, le=32, description="Sessions open at once; each is a process.")
    idle_seconds: float = Field(default=900.0, gt=0, description="A session without a request ends after this time.")
    request_seconds: float = Field(
        default=120.0, gt=0, description="A session that takes longer over a request, or over a slice in 3D, is ended."
    )
    memory_limit_bytes: int = Field(
        default=4 << 30, ge=256 << 20, description="A session that needs more memory is ended."
    )
    embedding_bytes: int = Field(
        default=2 << 30,
        ge=0,
        description="Room for slices' embeddings on disk, of all sessions and of all pipelines "
        "with `prompt` or `generalist` together; they share it whether the API is enabled or not.",
    )

    @model_validator(mode="after")
    def _host_is_loopback(self) -> WebSettings:
        if not self.allow_other_hosts and not _is_loopback(self.host):
            raise ValueError(
                "expected host to be an address of the loopback, such as 127.0.0.1 or ::1: the API has no TLS; set "
                "allow_other_hosts = true if the network keeps the token secret"
            )
        return self

    def read_token(self) -> str:
        """Return the token.

        Raises
        ------
        SettingsError
            ``web-token`` if there is none, its file can't be read, or it is too short or not printable ASCII.
        """
        if self.token is not None and self.token_file is not None:
            raise SettingsError("[web] has both token and token_file; keep one of them", code="web-token")
        if self.token_file is not None:
            try:
                token = self.token_file.read_text(encoding="ascii").strip()
            except (OSError, ValueError) as error:
                raise SettingsError(
                    f"web.token_file {self.token_file} can't be read as ASCII text ({type(error).__name__})",
                    code="web-token",
                ) from None
        else:
            token = "" if self.token is None else self.token.get_secret_value()
        if _TOKEN.fullmatch(token) is None:
            raise SettingsError(
                f"the API needs a token of at least {_TOKEN_LENGTH} printable ASCII characters without spaces, and "
                f"{'got another' if token else 'there is none'}; put one into LIMNER__WEB__TOKEN or the file "
                "web.token_file (`openssl rand -hex 32` makes one)",
                code="web-token",
            )
        return token


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
