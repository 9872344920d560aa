"""Senders that try until each object was acknowledged, and the check of what a receiver has of all that it did."""

from __future__ import annotations

import hashlib
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.figures import Figures
from tests.storing import Slices, StoreSender

SENDERS = 4
"""That send at once."""


class RetryingSender(threading.Thread):
    """Sends what it has until each was acknowledged, over as many associations as that takes."""

    def __init__(self, connect: Callable[[], StoreSender], slices: Slices, numbers: Iterator[int]) -> None:
        super().__init__()
        self.acknowledged: list[int] = []
        self.sent = 0
        self.other_statuses: list[int] = []
        self._connect, self._slices, self._numbers = connect, slices, numbers

    def run(self) -> None:
        number = next(self._numbers, None)
        while number is not None:
            # killed or cut: it refuses, resets, says nothing, or ends in the middle of a response
            try:
                with self._connect() as sender:
                    sender.associate()
                    while number is not None:
                        if self.store(sender, number):
                            number = next(self._numbers, None)
                    sender.release()
            except (OSError, AssertionError, struct.error):
                time.sleep(0.05)

    def store(self, sender: StoreSender, number: int) -> bool:
        """Send an object once; whether it was acknowledged."""
        self.sent += 1
        status = sender.store(self._slices.uid(number), self._slices.data_set(number))
        if status != 0:
            self.other_statuses.append(status)
            return False
        self.acknowledged.append(number)
        return True


@dataclass(frozen=True)
class Left:
    """What there is in the end."""

    acknowledged: list[int]
    ledger: Mapping[str, str]
    """Digests by UID."""
    kept: Mapping[str, Path]
    """The files of which others read, by the digest in their name."""
    parts: list[Path]


def show_nothing_lost(promise: str, figures: Figures, slices: Slices, left: Left) -> None:
    """Show that each object that was acknowledged is there, as it was sent, and that nothing else is."""
    ledger, kept = left.ledger, left.kept
    lost = [number for number in left.acknowledged if ledger.get(slices.uid(number)) not in kept]
    wrong = [path for digest, path in kept.items() if hashlib.sha256(path.read_bytes()).hexdigest() != digest]
    other = [number for number in left.acknowledged if ledger.get(slices.uid(number)) != slices.digest(number)]
    figures.show(promise, "acknowledged objects lost", seen=len(lost), exactly=0)
    figures.show(promise, "objects with wrong bytes", seen=len(wrong) + len(other), exactly=0)
    figures.show(promise, "files that no record names", seen=len(set(kept) - set(ledger.values())), exactly=0)
    figures.show(promise, "half-written files left", seen=len(left.parts), exactly=0)
