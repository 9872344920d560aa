"""Asks a receiver by C-ECHO again and again, from an address that does nothing else; prints the slowest.

PORT SECONDS [CERTIFICATES]: over TLS, if the folder of certificates is named.

In a process of its own: beside the attackers' threads it would measure them.
"""

from __future__ import annotations

import ssl
import sys
import time
from pathlib import Path

from tests.storing import StoreSender, peer_context

VERIFICATION = "1.2.840.10008.1.1"
ELSEWHERE = "127.0.0.21"


def echo_seconds(port: int, tls: ssl.SSLContext | None = None) -> float:
    """Associate, C-ECHO and release; return how long that took."""
    began = time.monotonic()
    with StoreSender(port, source=ELSEWHERE) as peer:
        if tls is not None:
            peer.speak_tls(tls)
        peer.associate(VERIFICATION)
        peer.send_echo_command()
        assert peer.read_status() == 0
        peer.release()
    return time.monotonic() - began


def main(port: int, seconds: float, certificates: str = "") -> None:
    """Ask for so long."""
    tls = peer_context(Path(certificates), "modality") if certificates else None
    until, slowest = time.monotonic() + seconds, 0.0
    while time.monotonic() < until:
        slowest = max(slowest, echo_seconds(port, tls))
        time.sleep(0.1)
    sys.stdout.write(f"{slowest}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:])
