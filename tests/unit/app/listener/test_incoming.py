import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from app.errors import OutOfResources
from app.listener import incoming
from app.listener.spool import Spool


def spool_in(folder: Path, low_water_bytes: int = 0) -> Spool:
    made = Spool(folder / "spool", low_water_bytes)
    made.prepare()
    return made


def parts(folder: Path) -> list[Path]:
    return list((folder / "spool" / "incoming").iterdir())


def test_what_comes_in_blocks_is_kept_as_one_file(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    file = spool.receive(b"head")
    for block in (b"one", bytearray(b"two"), memoryview(b"three")):
        file.write(block)
    assert bytes(file.data_set()) == b"onetwothree"
    kept = file.keep()
    assert kept == spool.keep(b"headonetwothree")
    assert kept.path.read_bytes() == b"headonetwothree"
    assert kept.digest == hashlib.sha256(b"headonetwothree").hexdigest()
    assert parts(tmp_path) == []


def test_bytes_that_are_known_are_kept_once(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    known = spool.keep(b"headbytes")
    before = known.path.stat().st_ino
    file = spool.receive(b"head")
    file.write(b"bytes")
    assert file.keep() == known
    assert known.path.stat().st_ino == before
    assert parts(tmp_path) == []


def test_a_file_that_is_discarded_leaves_nothing_and_no_open_file(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    file = spool.receive(b"head")
    file.write(b"bytes")
    [part] = parts(tmp_path)
    assert part.stat().st_mode & 0o777 == 0o600
    file.discard()
    file.discard()
    assert parts(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_refused_bytes_lie_in_quarantine_with_their_reason(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    file = spool.receive(b"head")
    file.write(b"bytes")
    digest = file.refuse("truncated")
    assert spool.quarantine_path_of(digest).read_bytes() == b"headbytes"
    assert '"truncated"' in spool.quarantine_path_of(digest).with_suffix(".json").read_text()
    assert parts(tmp_path) == []


def test_below_the_watermark_nothing_is_written_and_known_bytes_are_found(tmp_path: Path) -> None:
    known = spool_in(tmp_path).keep(b"headbytes")
    full = spool_in(tmp_path, low_water_bytes=1 << 62)
    file = full.receive(b"head")
    file.write(b"bytes")
    assert parts(tmp_path) == []
    assert bytes(file.data_set()) == b"bytes"
    assert file.keep() == known
    new = full.receive(b"head")
    new.write(b"other")
    with pytest.raises(OutOfResources) as caught:
        new.data_set()
    assert caught.value.code == "storage-below-watermark"
    with pytest.raises(OutOfResources):
        new.keep()
    new.refuse("truncated")
    assert not list((tmp_path / "spool" / "quarantine").iterdir())


def test_a_disk_that_fills_up_in_mid_object_gives_its_room_back_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = spool_in(tmp_path)
    file = spool.receive(b"head")
    file.write(b"one")
    write = os.write

    def full(descriptor: int, data: Any) -> int:
        if len(data) > 1:
            return write(descriptor, data[:1])
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        file.write(b"two")
    assert parts(tmp_path) == []
    file.write(b"three")
    with pytest.raises(OutOfResources) as caught:
        file.keep()
    assert caught.value.code == "spool-write-failed"
    assert "No space left" in str(caught.value)
    again = spool.receive(b"head")
    again.write(b"onetwothree")
    assert again.keep().path.read_bytes() == b"headonetwothree"


def test_the_watermark_holds_while_an_object_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "_ROOM_STEP_BYTES", 100)
    spool = spool_in(tmp_path)
    file = spool.receive(b"head")
    asked: list[int] = []

    def no_room(size_bytes: int) -> None:
        asked.append(size_bytes)
        raise OutOfResources("no room", code="storage-below-watermark")

    monkeypatch.setattr(spool, "check_room", no_room)
    file.write(bytes(50))
    assert asked == []
    file.write(bytes(50))
    assert asked == [100]
    assert parts(tmp_path) == []
    with pytest.raises(OutOfResources):
        file.keep()


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_disk_that_fails_at_the_end_is_a_shortage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    spool = spool_in(tmp_path)
    file = spool.receive(b"head")

    def fails(*_: Any) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fails)
        with pytest.raises(OutOfResources) as caught:
            file.keep()
    assert caught.value.code == "spool-write-failed"
    assert parts(tmp_path) == []
    assert list(spool.all_digests()) == []


def test_a_folder_that_is_gone_is_a_shortage(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    (tmp_path / "spool" / "incoming").rmdir()
    file = spool.receive(b"head")
    file.write(b"bytes")
    with pytest.raises(OutOfResources):
        file.keep()
