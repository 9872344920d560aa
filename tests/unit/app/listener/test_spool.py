import errno
import fcntl
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import CannotUnderstand, OutOfResources
from app.identifiers import IMPLEMENTATION_CLASS_UID, UID
from app.listener.spool import Spool, encode_file_meta, read_instance_header
from tests.listening import CT, EXPLICIT, make_ct, write_ct


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool", 0)
    made.prepare()
    return made


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is synced and renamed, in order, as (call, name of the file or folder)."""
    found: list[tuple[str, str]] = []
    fsync, rename, write = os.fsync, os.rename, os.write

    def name(descriptor: int) -> str:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        return path.suffix or path.name

    def recorded_fsync(descriptor: int) -> None:
        found.append(("fsync", name(descriptor)))
        fsync(descriptor)

    def recorded_rename(source: Any, target: Any) -> None:
        found.append(("rename", Path(target).suffix))
        rename(source, target)

    def recorded_write(descriptor: int, data: Any) -> int:
        found.append(("write", name(descriptor)))
        return write(descriptor, data)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    monkeypatch.setattr(os, "write", recorded_write)
    return found


def test_a_file_is_synced_before_its_name_and_its_folder_after(spool: Spool, calls: list[tuple[str, str]]) -> None:
    kept = spool.keep(b"one", b"two")
    folder = kept.digest[:2]
    assert calls == [
        ("write", ".part"),
        ("write", ".part"),
        ("fsync", ".part"),
        ("rename", ".dcm"),
        ("fsync", folder),
    ]


def test_known_bytes_are_not_written_but_their_folder_is_synced(spool: Spool, calls: list[tuple[str, str]]) -> None:
    """A process that was killed may have renamed the file and not synced its folder."""
    kept = spool.keep(b"one")
    calls.clear()
    assert spool.keep(b"one") == kept
    assert calls == [("fsync", kept.digest[:2])]


@settings(max_examples=5)  # each makes the spool's 256 folders
@given(st.lists(st.binary(max_size=100), min_size=1, max_size=4))
def test_the_name_is_the_digest_however_the_bytes_come(parts: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder), 0)
        spool.prepare()
        kept = spool.keep(*parts)
        assert kept.digest == hashlib.sha256(b"".join(parts)).hexdigest()
        assert kept.path.read_bytes() == b"".join(parts)
        assert kept.size_bytes == sum(map(len, parts))
        assert kept == spool.keep(b"".join(parts))
        assert list(spool.all_digests()) == [kept.digest]


def test_a_file_of_the_wrong_length_is_written_again(spool: Spool) -> None:
    kept = spool.keep(b"whole")
    kept.path.write_bytes(b"who")
    spool.keep(b"whole")
    assert kept.path.read_bytes() == b"whole"


def test_what_was_half_received_is_removed_at_the_start(spool: Spool, tmp_path: Path) -> None:
    kept = spool.keep(b"one")
    (tmp_path / "spool/incoming/123.part").write_bytes(b"half")
    Spool(tmp_path / "spool", 0).prepare()
    assert list((tmp_path / "spool/incoming").iterdir()) == []
    assert kept.path.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_failing_disk_leaves_nothing_and_is_retryable(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(OutOfResources) as caught:
            spool.keep(b"one")
    assert caught.value.code == "spool-write-failed"
    assert caught.value.dimse_status == 0xA700
    assert list(spool.all_digests()) == []
    assert list((tmp_path / "spool/incoming").iterdir()) == []


def test_below_the_watermark_only_known_bytes_are_kept(tmp_path: Path) -> None:
    plenty = Spool(tmp_path, 0)
    plenty.prepare()
    known = plenty.keep(b"known")
    full = Spool(tmp_path, 1 << 62)
    assert full.keep(b"known") == known
    with pytest.raises(OutOfResources, match="free some space") as caught:
        full.keep(b"new")
    assert caught.value.code == "storage-below-watermark"
    assert list(full.all_digests()) == [known.digest]


def test_before_the_first_start_there_is_the_room_of_the_disk_where_the_folder_will_be(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "data" / "spool", 0)
    assert spool.free_bytes() > 0
    spool.check_room(1)
    assert not (tmp_path / "data").exists()


def test_the_watermark_counts_the_instance_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)
    spool = Spool(tmp_path, 1000)
    spool.prepare()

    class Room:
        f_bavail, f_frsize = 1, 1100

    monkeypatch.setattr(os, "statvfs", lambda _: Room)
    spool.keep(bytes(100))
    with pytest.raises(OutOfResources):
        spool.keep(bytes(101))
    assert real.f_frsize > 0


def test_remove(spool: Spool) -> None:
    kept = spool.keep(b"one")
    spool.remove(kept.digest)
    spool.remove(kept.digest)
    assert list(spool.all_digests()) == []


@pytest.mark.parametrize("digest", ["../../etc/passwd", "", "AB" * 32, "ab" * 31, "ab" * 32 + "\n"])
def test_only_a_digest_names_a_file(spool: Spool, digest: str) -> None:
    with pytest.raises(ValueError, match="64"):
        spool.path_of(digest)


def test_quarantine_keeps_the_bytes_and_the_code_alone(spool: Spool, tmp_path: Path) -> None:
    digest = spool.quarantine(b"Doe^", b"Jane", code="truncated")
    folder = tmp_path / "spool/quarantine"
    assert (folder / f"{digest}.dcm").read_bytes() == b"Doe^Jane"
    assert json.loads((folder / f"{digest}.json").read_text()) == {"code": "truncated", "size_bytes": 8}
    assert list(spool.all_digests()) == []


def test_quarantine_keeps_nothing_below_the_watermark(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 62)
    spool.prepare()
    spool.quarantine(b"bytes", code="truncated")
    assert list((tmp_path / "quarantine").iterdir()) == []


def test_only_the_owner_reads_the_spool(spool: Spool, tmp_path: Path) -> None:
    kept = spool.keep(b"one")
    assert kept.path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700


def test_file_meta_is_the_same_each_time_and_pydicom_reads_it(tmp_path: Path) -> None:
    meta = encode_file_meta(UID(CT), UID("1.2.3"), UID(EXPLICIT))
    assert meta == encode_file_meta(UID(CT), UID("1.2.3"), UID(EXPLICIT))
    path = tmp_path / "one.dcm"
    path.write_bytes(meta)
    read = pydicom.filereader.read_file_meta_info(path)
    assert [element.keyword for element in read] == [
        "FileMetaInformationGroupLength",
        "FileMetaInformationVersion",
        "MediaStorageSOPClassUID",
        "MediaStorageSOPInstanceUID",
        "TransferSyntaxUID",
        "ImplementationClassUID",  # no version name: an instance sent again after an upgrade has the same digest
    ]
    assert str(read.ImplementationClassUID) == IMPLEMENTATION_CLASS_UID


def test_the_header_of_a_file(tmp_path: Path) -> None:
    path = write_ct(tmp_path / "ct.dcm", 3)
    header = read_instance_header(path)
    assert header == read_instance_header(path.read_bytes())
    image = make_ct(3)
    assert header.sop_instance_uid == image.SOPInstanceUID
    assert header.transfer_syntax_uid == EXPLICIT


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "not-dicom"),
        (b"GET / HTTP/1.1\r\n" * 20, "not-dicom"),
        (bytes(128) + b"DICM", "uid-invalid"),
        (encode_file_meta(UID(CT), UID("1.2.3"), UID("1.2.840.10008.1.2.1.99")), "transfer-syntax-refused"),
        (encode_file_meta(UID(CT), UID("1.2.3"), UID(EXPLICIT)), "uid-missing"),
        (encode_file_meta(UID(CT), UID("1.2.3"), UID(EXPLICIT))[:-5], "truncated"),
    ],
)
def test_what_is_no_usable_file_is_refused(content: bytes, code: str) -> None:
    with pytest.raises(CannotUnderstand) as caught:
        read_instance_header(content)
    assert caught.value.code == code


def test_what_another_process_is_receiving_is_left_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 0)
    spool.prepare()
    incoming = tmp_path / "spool" / "incoming"
    for name, age in (("young.part", 10), ("old.part", 7200), ("abandoned.part", 10)):
        (incoming / name).write_bytes(b"half")
        then = time.time() - age
        os.utime(incoming / name, (then, then))
    with (incoming / "young.part").open() as young, (incoming / "old.part").open() as old:
        for held in (young, old):
            fcntl.flock(held, fcntl.LOCK_EX)
        spool.prepare()
        assert [one.name for one in incoming.iterdir()] == ["young.part"]
    spool.prepare()
    assert not list(incoming.iterdir())
