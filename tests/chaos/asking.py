"""Asks a receiver by C-ECHO again and again, from an address that does nothing else: PORT SECONDS; prints the slowest.

In a process of its own: beside the attackers' threads it would measure them.
"""

from __future__ import annotations

import sys
import time

from tests.storing import StoreSender

VERIFICATION = "1.2.840.10008.1.1"
ELSEWHERE = "127.0.0.21"


def echo_seconds(port: int) -> float:
    """Associate, C-ECHO and release; return how long that took."""
    began = time.monotonic()
    with StoreSender(port, source=ELSEWHERE) as peer:
        peer.associate(VERIFICATION)
        peer.send_echo_command()
        assert peer.read_status() == 0
        peer.release()
    return time.monotonic() - began


def main(port: int, seconds: float) -> None:
    """Ask for so long."""
    until, slowest = time.monotonic() + seconds, 0.0
    while time.monotonic() < until:
        slowest = max(slowest, echo_seconds(port))
        time.sleep(0.1)
    sys.stdout.write(f"{slowest}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
