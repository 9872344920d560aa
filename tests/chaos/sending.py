"""Senders in a process of their own, behind a link that is cut: HOST PORT.

They send, each until it is acknowledged, one object after the other until standard input ends. Each sends slowly, as
over a hospital's line, has a patience of its own, and tells standard output of every object what it does: `begun 7`,
then `acknowledged 7` or `answered 7 42752`.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time

from tests.chaos.retrying import SENDERS, RetryingSender
from tests.storing import Slices, StoreSender

SIZE = 256
"""Rows and columns of an object, of 128 kB then."""
PATIENCE_SECONDS = (0.5, 1.0, 2.0, 3.0)
"""How long each sender waits for an answer, or for room to send."""

_PIECE = 1 << 14
_PAUSE_SECONDS = 0.008


class SlowSender(StoreSender):
    """A sender that takes most of its time with the data set, so that most cuts meet one on its way."""

    def send_data_set(self, data: bytes | memoryview) -> None:
        """Send it piece by piece."""
        for start in range(0, len(data), _PIECE):
            piece = bytes(data[start : start + _PIECE])
            self.send_fragment(piece, command=False, last=start + _PIECE >= len(data))
            time.sleep(_PAUSE_SECONDS)


class TellingSender(RetryingSender):
    """Tells what it does."""

    def store(self, sender: StoreSender, number: int) -> bool:
        """Send an object once; whether it was acknowledged."""
        _tell(f"begun {number}")
        is_acknowledged = super().store(sender, number)
        _tell(f"acknowledged {number}" if is_acknowledged else f"answered {number} {self.other_statuses[-1]}")
        return is_acknowledged


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")  # one call: no other thread's line comes between
    sys.stdout.flush()


def main(host: str, port: int) -> None:
    """Send until standard input ends, and then until what was begun is acknowledged."""
    over = threading.Event()

    def connect(patience: float) -> StoreSender:
        return SlowSender(port, host=host, patience=patience)

    senders = [
        TellingSender(
            lambda patience=patience: connect(patience),  # type: ignore[misc]
            Slices(size=SIZE),
            itertools.takewhile(lambda _: not over.is_set(), itertools.count(first, SENDERS)),
        )
        for first, patience in zip(range(SENDERS), PATIENCE_SECONDS, strict=True)
    ]
    for one in senders:
        one.start()
    sys.stdin.read()
    over.set()
    for one in senders:
        one.join()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
