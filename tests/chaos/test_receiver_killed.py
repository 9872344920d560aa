"""The receiver is killed again and again under senders that try until they have an answer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.chaos.figures import Figures
from tests.chaos.retrying import SENDERS, Left, RetryingSender, show_nothing_lost
from tests.database_fixture import fresh_database
from tests.peers import running_object_storage
from tests.storing import Receiver, Slices, StoreSender

PROMISE = "1. Receiver killed -9 under 4 retrying senders"
SHARED = "1. Receiver killed -9 whose spool is in S3-compatible storage"


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
    senders = [
        RetryingSender(lambda: StoreSender(receiver.port), slices, iter(range(first, objects, SENDERS)))
        for first in range(SENDERS)
    ]
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
    figures.show(promise, "kills", seen=kills, least=kills)
    figures.show(promise, "objects acknowledged", seen=len(left.acknowledged), exactly=objects)
    show_nothing_lost(promise, figures, Slices(size=64), left)
