"""What a destination is asked after it was sent results: a part of `app.settings.DestinationSettings`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Literal, Protocol

from pydantic import Field, field_validator

from app.identifiers import parse_ae_title
from app.settings_section import Section

CommitmentKind = Literal["none", "storage-commitment", "query"]
"""How a destination says that it keeps what it took."""
_SERVICE = re.compile(r"(?P<title>[^@]+)@(?P<host>[^@]+):(?P<port>\d{1,5})")


class ReturnSettings(Section):
    """What becomes of a result after it was sent: keys of ``[[destination]]``."""

    ask: str = Field(
        default="same",
        description="Whom to ask by C-FIND whether an object arrived, where its sending was cut off: `same`, the "
        "destination itself, by QIDO-RS where it has a `url`; another application entity as `TITLE@host:port`; "
        "`never`.",
    )
    commitment: CommitmentKind = Field(
        default="none",
        description="How it commits itself before a job counts as done: `none`, it took the objects; "
        "`storage-commitment`, it reports that it keeps them, or is asked as by `query` where it takes no such "
        "requests; `query`, it finds each of them by C-FIND, or by QIDO-RS where it has a `url`.",
    )
    commitment_seconds: float = Field(
        default=600.0, gt=0, description="Longest wait for its report; then it is asked anew."
    )
    commitment_rounds: int = Field(
        default=5,
        ge=1,
        description="How often it is asked to commit itself to an object, which is sent again where it is missing.",
    )

    @field_validator("ask")
    @classmethod
    def _names_a_service(cls, ask: str) -> str:
        if ask in ("same", "never"):
            return ask
        found = _SERVICE.fullmatch(ask)
        if found is None or not 0 < int(found["port"]) < 1 << 16:
            raise ValueError("expected 'same', 'never', or an application entity as TITLE@host:port")
        parse_ae_title(found["title"])
        return ask

    @property
    def query_service(self) -> tuple[str, str, int] | None:
        """Title, host and port, where `ask` names another application entity."""
        found = _SERVICE.fullmatch(self.ask)
        return None if found is None else (found["title"], found["host"], int(found["port"]))


class _Reporter(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def ae_title(self) -> str: ...
    @property
    def url(self) -> str | None: ...
    @property
    def ask(self) -> str: ...
    @property
    def commitment(self) -> CommitmentKind: ...


def check_reporters(destinations: Sequence[_Reporter], sources: Collection[str]) -> None:
    """Refuse settings by which a commitment could never come: ValueError.

    Parameters
    ----------
    sources
        The titles that the listener lets in; none means any.
    """
    for one in destinations:
        if one.url is not None and (one.commitment == "storage-commitment" or one.ask not in ("same", "never")):
            raise ValueError(
                f"destination '{one.name}' has a url, and is asked over the web alone: "
                'write ask = "same" or "never", and commitment = "none" or "query"'
            )
        if one.commitment == "query" and one.ask == "never":
            raise ValueError(
                f"destination '{one.name}' commits itself by query, and ask says that it is never asked; change one"
            )
        if one.commitment == "storage-commitment" and sources and one.ae_title not in sources:
            raise ValueError(
                f"destination '{one.name}' reports its commitment to the listener, which does not let {one.ae_title} "
                "in; add a [[listener.source]] with that ae_title"
            )
