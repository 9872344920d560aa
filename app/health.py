"""What a container's health check asks, each half minute: it imports nothing that reads models or computes."""

from __future__ import annotations

from dataclasses import dataclass

from app.delivery.storage import DimseDestination
from app.delivery.tls import refuses_certificate, tls_to_own_listener
from app.errors import LimnerError
from app.settings import DestinationSettings, Settings

_LISTENER_SECONDS = 5.0


@dataclass(frozen=True)
class CheckResult:
    """One line of `limner check`."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


def check_listener(settings: Settings) -> CheckResult:
    """Ask the running listener by C-ECHO: the health check of a container."""
    listener = settings.listener
    host = "127.0.0.1" if listener.host == "0.0.0.0" else listener.host  # noqa: S104 - compared, not bound
    tls = tls_to_own_listener(listener.tls)
    itself = DestinationSettings(
        name="listener",
        ae_title=listener.ae_title,
        host=host,
        port=listener.port,
        timeout_seconds=_LISTENER_SECONDS,
        tls=tls,
    )
    known = [source.ae_title for source in listener.source]
    calling = listener.ae_title if not known or listener.ae_title in known else known[0]
    try:
        DimseDestination(itself, calling).check()
    except LimnerError as error:
        if error.code == "association-rejected" and known:
            # who rejects, lives; but each rejection is an audit record
            advice = f"add a [[listener.source]] with ae_title {listener.ae_title} and hosts 127.0.0.1 for this check"
            return CheckResult("listener", True, f"answers, and rejects this check: {advice}")
        if tls is not None and refuses_certificate(host, listener.port, tls, timeout_seconds=_LISTENER_SECONDS):
            advice = "have its certificate issued for clients too, by one of [listener.tls] authorities, for this check"
            return CheckResult("listener", True, f"answers, and takes no certificate of its own: {advice}")
        return CheckResult("listener", False, str(error), "start the server with `limner serve`")
    return CheckResult("listener", True, f"{listener.ae_title} answers C-ECHO on {host}:{listener.port}")
