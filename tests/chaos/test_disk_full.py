"""The spool's disk runs full: senders are told to come again, and come again."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.figures import Figures
from tests.chaos.small_disks import small_disk
from tests.database_fixture import fresh_database
from tests.storing import Receiver, Slices, StoreSender

FILLER_BYTES = 16 << 20
OUT_OF_RESOURCES = 0xA700


@pytest.mark.parametrize(
    ("low_water_bytes", "promise"),
    [(8 << 20, "2. Disk of 48 MB full to its watermark"), (0, "2. Disk of 48 MB full to its last byte")],
)
def test_what_finds_no_room_comes_again(
    tmp_path: Path, postgres: str, figures: Figures, low_water_bytes: int, promise: str
) -> None:
    slices, objects = Slices(), range(90)
    statuses: Counter[int] = Counter()
    with (
        fresh_database(postgres) as url,
        small_disk(tmp_path / "disk") as disk,
        Receiver(tmp_path / "receiver", url, low_water_bytes=low_water_bytes) as receiver,
    ):
        receiver.end()
        (tmp_path / "receiver" / "spool").rename(tmp_path / "receiver" / "empty")
        (tmp_path / "receiver" / "spool").symlink_to(disk / "spool", target_is_directory=True)
        filler = disk / "filler"
        filler.write_bytes(bytes(FILLER_BYTES))
        (disk / "spool").mkdir()
        receiver.start()
        with StoreSender(receiver.port) as sender:  # one association: none of this may end it
            sender.associate()
            acknowledged = set()
            for number in objects:
                status = sender.store(slices.uid(number), slices.data_set(number))
                statuses[status] += 1
                if status == 0:
                    acknowledged.add(number)
            refused = set(objects) - acknowledged
            assert refused, "the disk did not run full: it proves nothing"
            again = min(acknowledged)
            repeat = sender.store(slices.uid(again), slices.data_set(again))
            filler.unlink()
            began = time.monotonic()
            first = min(refused)
            while (status := sender.store(slices.uid(first), slices.data_set(first))) != 0:
                statuses[status] += 1
                assert time.monotonic() - began < 60
                time.sleep(0.2)
            acknowledged.add(first)
            accepted_after = time.monotonic() - began
            sender.release()
        ledger, kept, parts = receiver.ledger(), receiver.kept(), receiver.parts()
        wrong = sum(hashlib.sha256(path.read_bytes()).hexdigest() != digest for digest, path in kept.items())
    lost = [number for number in acknowledged if ledger.get(slices.uid(number)) not in kept]
    figures.show(promise, "objects told to come again (A700)", seen=statuses[OUT_OF_RESOURCES], least=1)
    figures.show(
        promise, "other answers than 0000 and A700", seen=statuses.total() - statuses[0] - statuses[OUT_OF_RESOURCES],
        exactly=0,
    )  # fmt: skip
    figures.show(promise, "acknowledged objects lost", seen=len(lost) + wrong, exactly=0)
    figures.show(promise, "answer to a repeat on the full disk", seen=repeat, exactly=0)
    figures.show(promise, "half-written files left", seen=len(parts), exactly=0)
    figures.show(
        promise, "accepted again after room was made, s", seen=accepted_after, most=figures.of(short=30, full=10)
    )
