"""The receiver is killed again and again under senders that try until they have an answer."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.figures import Figures
from tests.database_fixture import fresh_database
from tests.peers import running_object_storage
from tests.storing import Receiver, Slices, StoreSender

PROMISE = "1. Receiver killed -9 under 4 retrying senders"
SHARED = "1. Receiver killed -9 whose spool is in S3-compatible storage"
SENDERS = 4


class RetryingSender(threading.Thread):
    """Sends what it has until each was acknowledged, over as many associations as that takes."""

    def __init__(self, receiver: Receiver, slices: Slices, numbers: range) -> None:
        super().__init__()
        self.acknowledged: list[int] = []
        self.sent = 0
        self.other_statuses: list[int] = []
        self._receiver, self._slices, self._numbers = receiver, slices, numbers

    def run(self) -> None:
        left = list(self._numbers)
        while left:
            try:
                with StoreSender(self._receiver.port) as sender:
                    sender.associate()
                    while left:
                        self.sent += 1
                        status = sender.store(self._slices.uid(left[0]), self._slices.data_set(left[0]))
                        if status == 0:
                            self.acknowledged.append(left.pop(0))
                        else:
                            self.other_statuses.append(status)
                    sender.release()
            except (OSError, AssertionError):  # killed: it refuses, resets or ends in the middle of a response
                time.sleep(0.05)


@dataclass(frozen=True)
class Left:
    """What there is in the end."""

    acknowledged: list[int]
    ledger: Mapping[str, str]
    """Digests by UID."""
    kept: Mapping[str, Path]
    """The files of which others read, by the digest in their name."""
    parts: list[Path]


def test_nothing_acknowledged_is_lost(tmp_path: Path, postgres: str, figures: Figures) -> None:
    kills, objects = figures.of(short=3, full=100), figures.of(short=200, full=10_000)
    with fresh_database(postgres) as url:
        receiver = Receiver(tmp_path / "receiver", url)
        _show(PROMISE, figures, kills, objects, _killed_again_and_again(receiver, kills, objects, receiver.kept))


@pytest.mark.timeout(900)
def test_nothing_acknowledged_is_lost_that_hosts_share(tmp_path: Path, postgres: str, figures: Figures) -> None:
    kills, objects = figures.of(short=2, full=50), figures.of(short=80, full=2_000)
    with fresh_database(postgres) as url, running_object_storage(tmp_path / "storage") as storage:
        receiver = Receiver(tmp_path / "receiver", url, shared_storage=storage.settings())

        def stored() -> dict[str, Path]:
            return {path.stem: path for path in storage.folder.rglob("*") if path.is_file()}

        _show(SHARED, figures, kills, objects, _killed_again_and_again(receiver, kills, objects, stored))


def _killed_again_and_again(
    receiver: Receiver, kills: int, objects: int, kept: Callable[[], Mapping[str, Path]]
) -> Left:
    slices, chance = Slices(size=64), random.Random(7)
    receiver.start()
    senders = [RetryingSender(receiver, slices, range(first, objects, SENDERS)) for first in range(SENDERS)]
    for sender in senders:
        sender.start()
    for kill in range(1, kills + 1):
        while sum(len(one.acknowledged) for one in senders) < kill * objects // (kills + 1):
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.03))
        receiver.kill()
        receiver.start()
    for sender in senders:
        sender.join(600)
        assert not sender.is_alive()
    receiver.end()
    assert sum(one.sent for one in senders) > objects, "no kill hit an object on its way: it proves nothing"
    assert [status for one in senders for status in one.other_statuses] == []
    acknowledged = [number for one in senders for number in one.acknowledged]
    return Left(acknowledged, receiver.ledger(), kept(), receiver.parts())


def _show(promise: str, figures: Figures, kills: int, objects: int, left: Left) -> None:
    slices, ledger, kept = Slices(size=64), left.ledger, left.kept
    lost = [number for number in left.acknowledged if ledger.get(slices.uid(number)) not in kept]
    wrong = [path for digest, path in kept.items() if hashlib.sha256(path.read_bytes()).hexdigest() != digest]
    other = [number for number in left.acknowledged if ledger.get(slices.uid(number)) != slices.digest(number)]
    figures.show(promise, "kills", seen=kills, least=kills)
    figures.show(promise, "objects acknowledged", seen=len(left.acknowledged), exactly=objects)
    figures.show(promise, "acknowledged objects lost", seen=len(lost), exactly=0)
    figures.show(promise, "objects with wrong bytes", seen=len(wrong) + len(other), exactly=0)
    figures.show(promise, "files that no record names", seen=len(set(kept) - set(ledger.values())), exactly=0)
    figures.show(promise, "half-written files left", seen=len(left.parts), exactly=0)
