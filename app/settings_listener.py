"""What the listener offers and allows, and who may send: ``[listener]`` and ``[[listener.source]]``."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from app.identifiers import parse_ae_title
from app.settings_listener_tls import ListenerTlsSettings
from app.settings_section import Section

_OF_A_TITLE = ("quiet_seconds", "ask", "complete_on_release")
"""What holds for all that a title sends: nothing else is known of a series' source."""


class SourceSettings(Section):
    """A peer that may send: ``[[listener.source]]``. With no source listed, any peer may.

    Tables of one AE title must agree in all but their hosts.
    """

    ae_title: str = Field(description="The calling AE title of the peer.")
    hosts: tuple[str, ...] = Field(default=(), description="Addresses it may call from; none listed means any.")
    quiet_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Its own quiet time; the routing section's if not given.",
    )
    ask: str | None = Field(
        default=None, description="The archive that knows how much it sends; the routing section's if not given."
    )
    complete_on_release: bool = Field(
        default=False,
        description="Whether a series is complete as soon as the association that brought it is released: for a peer "
        "that sends a series in one association.",
    )

    _ae_title = field_validator("ae_title")(staticmethod(parse_ae_title))


class ListenerSettings(Section):
    """What the listener offers and allows: ``[listener]``."""

    ae_title: str = Field(default="LIMNER", description="The AE title that peers call.")
    host: str = Field(default="127.0.0.1", description="The address to listen on; 0.0.0.0 for all.")
    port: int = Field(default=11112, ge=0, le=65535, description="The TCP port to listen on.")
    check_called_ae_title: bool = Field(default=True, description="Reject associations that call another AE title.")
    maximum_associations: int = Field(
        default=40,
        ge=1,
        le=200,
        description="Associations served at once; 40 connections more get an answer, any other is closed.",
    )
    maximum_associations_per_address: int = Field(
        default=20, ge=1, le=200, description="Associations served at once for one address."
    )
    maximum_pdu_size: int = Field(default=131072, ge=4096, le=1048576, description="Largest P-DATA PDU to ask for.")
    acse_timeout_seconds: float = Field(default=5.0, gt=0, description="Longest wait for an association request.")
    dimse_timeout_seconds: float = Field(default=60.0, gt=0, description="Longest wait for a message once it began.")
    network_timeout_seconds: float = Field(default=30.0, gt=0, description="Longest silence on an association.")
    low_water_bytes: int = Field(
        default=1 << 30, ge=0, description="Free space below which instances are answered with 0xA700."
    )
    backlog_limit: int = Field(
        default=10_000,
        ge=0,
        description="Undecided series and queued jobs from which on associations are rejected for now; 0: no limit.",
    )
    maximum_object_bytes: int = Field(
        default=4 << 30,
        ge=1 << 20,
        description="Longest data set of an instance; longer ones are answered with 0xC000.",
    )
    shutdown_seconds: float = Field(default=20.0, gt=0, description="Time that running associations get to finish.")
    source: tuple[SourceSettings, ...] = Field(default=(), description="The peers that may send; none means any.")
    tls: ListenerTlsSettings | None = Field(default=None, description="TLS; without it connections are in the clear.")

    _ae_title = field_validator("ae_title")(staticmethod(parse_ae_title))

    @model_validator(mode="after")
    def _titles_agree(self) -> ListenerSettings:
        """Refuse two tables of one title of which only the first would count."""
        first: dict[str, SourceSettings] = {}
        for one in self.source:
            before = first.setdefault(one.ae_title, one)
            differing = [key for key in _OF_A_TITLE if getattr(one, key) != getattr(before, key)]
            if differing:
                raise ValueError(
                    f"two [[listener.source]] tables for the AE title {one.ae_title} differ in {', '.join(differing)}, "
                    "which holds for all that this title sends: say the same in both, put their hosts into one table, "
                    "or give one of the peers another title"
                )
        return self
