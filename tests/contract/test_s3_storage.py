"""S3-compatible storage, spoken to with rclone's: what goes in comes back as it was, in time, or not at all."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from app.errors import OutOfResources, StorageError
from app.listener.shared_spool import SharedSpool
from app.settings_shared_storage import SharedStorageSettings
from app.storage.object_store import ObjectStore
from tests.peers import ObjectStorage, running_object_storage

SECONDS = 6.0  # a busy machine may need some of them


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[ObjectStorage]:
    with running_object_storage(tmp_path / "storage") as running:
        yield running


def store_of(storage: ObjectStorage, **keys: Any) -> ObjectStore:
    return ObjectStore(SharedStorageSettings.model_validate({**storage.settings(), "timeout_seconds": SECONDS, **keys}))


@pytest.fixture
def store(storage: ObjectStorage) -> Iterator[ObjectStore]:
    one = store_of(storage)
    yield one
    one.close()


def written(path: Path, size_bytes: int) -> str:
    path.write_bytes(os.urandom(size_bytes))
    return digest_of(path)


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("size_bytes", [0, 1, 513_000, 40 << 20])  # the last in several parts
def test_a_file_comes_back_as_it_was(tmp_path: Path, store: ObjectStore, size_bytes: int) -> None:
    digest = written(tmp_path / "file", size_bytes)
    store.put("instances/ab/file.dcm", tmp_path / "file", digest)
    assert store.size("instances/ab/file.dcm") == size_bytes
    assert store.get("instances/ab/file.dcm", tmp_path / "back", digest)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()
    assert store.digest_of("instances/ab/file.dcm") == digest
    assert sorted(one.name for one in tmp_path.iterdir()) == ["back", "file", "storage"]  # nothing is left aside


def test_names_lie_under_the_prefix_and_are_listed_page_by_page(tmp_path: Path, storage: ObjectStorage) -> None:
    store = store_of(storage, timeout_seconds=60)  # rclone reads a folder anew for each that it removes
    digest = written(tmp_path / "file", 3)
    store.put("results/7/a.dcm", tmp_path / "file", digest)
    assert storage.names() == ["one/two/results/7/a.dcm"]
    many = storage.folder / "one" / "two" / "instances"
    many.mkdir()
    for number in range(1203):
        (many / f"{number:04}.dcm").write_bytes(b"1" * (number % 7))
    found = list(store.listed("instances/"))
    assert found == [(f"instances/{number:04}.dcm", number % 7) for number in range(1203)]
    store.remove([name for name, _ in found] + ["instances/never"])
    assert list(store.listed("")) == [("results/7/a.dcm", 3)]
    store.close()


def test_what_is_not_there_is_told_and_nothing_is_written(tmp_path: Path, store: ObjectStore) -> None:
    assert store.size("nothing") is None
    assert store.digest_of("nothing") is None
    assert not store.get("nothing", tmp_path / "back", "0" * 64)
    assert not (tmp_path / "back").exists()


def test_bytes_that_are_not_those_of_the_digest_never_get_their_name(
    tmp_path: Path, storage: ObjectStorage, store: ObjectStore
) -> None:
    digest = written(tmp_path / "file", 5000)
    store.put("file.dcm", tmp_path / "file", digest)
    stored = storage.folder / "one" / "two" / "file.dcm"
    stored.write_bytes(stored.read_bytes()[:-1] + b"?")
    assert not store.get("file.dcm", tmp_path / "back", digest)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "storage"]
    assert store.digest_of("file.dcm") == digest_of(stored)


def test_a_storage_that_is_away_is_told_at_once_and_comes_back(
    tmp_path: Path, storage: ObjectStorage, store: ObjectStore
) -> None:
    digest = written(tmp_path / "file", 5000)
    store.put("file.dcm", tmp_path / "file", digest)
    storage.stop()
    asked = [
        lambda: store.put("file.dcm", tmp_path / "file", digest),
        lambda: store.get("file.dcm", tmp_path / "back", digest),
        lambda: store.size("file.dcm"),
        lambda: store.remove(["file.dcm"]),
        lambda: list(store.listed("")),
    ]
    for ask in asked:
        with pytest.raises(StorageError) as told:
            ask()
        assert told.value.code == "shared-storage-away"
        assert told.value.retryable
    storage.start()
    assert store.get("file.dcm", tmp_path / "back", digest)


def test_one_that_hangs_is_waited_for_no_longer_than_the_settings_say(
    tmp_path: Path, storage: ObjectStorage, store: ObjectStore
) -> None:
    digest = written(tmp_path / "file", 5000)
    store.put("file.dcm", tmp_path / "file", digest)
    storage.hang()
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(StorageError, match="no answer within"):
            store.get("file.dcm", tmp_path / "back", digest)
    assert time.monotonic() - began < 2 * (SECONDS + 3)
    storage.go_on()
    assert store.get("file.dcm", tmp_path / "back", digest)


@pytest.mark.parametrize("keys", [{"url": "s3://nobucket"}, {"access_key": "stranger"}])
def test_a_wrong_bucket_or_key_is_a_refusal_and_never_an_object_that_is_missing(
    tmp_path: Path, storage: ObjectStorage, keys: dict[str, str]
) -> None:
    digest = written(tmp_path / "file", 10)
    store = store_of(storage, **keys)
    for ask in (
        lambda: store.put("file.dcm", tmp_path / "file", digest),
        lambda: store.get("file.dcm", tmp_path / "back", digest),
        lambda: list(store.listed("")),
        store.check,
    ):
        with pytest.raises(StorageError) as told:
            ask()
        assert told.value.code == "shared-storage-refused"
        assert storage.SECRET_KEY not in str(told.value)
    store.close()


class _Vanishing(type(Path())):  # type: ignore[misc]
    """A file that goes after its size was asked for."""

    def stat(self, **options: Any) -> os.stat_result:
        facts: os.stat_result = super().stat(**options)
        os.unlink(self)
        return facts


def test_a_file_that_goes_while_it_is_sent_is_not_said_to_be_stored(
    tmp_path: Path, storage: ObjectStorage, store: ObjectStore
) -> None:
    digest = written(tmp_path / "file", 10)
    with pytest.raises(FileNotFoundError):
        store.put("file.dcm", _Vanishing(tmp_path / "file"), digest)
    assert storage.names() == []


def test_a_disk_that_takes_no_copy_is_the_disks_matter(tmp_path: Path, store: ObjectStore) -> None:
    digest = written(tmp_path / "file", 10)
    store.put("file.dcm", tmp_path / "file", digest)
    with pytest.raises(FileNotFoundError):
        store.get("file.dcm", tmp_path / "nowhere" / "back", digest)


class _UnwellOnce(BaseHTTPRequestHandler):
    """Answers the first request as S3 does when it could not; then takes everything."""

    protocol_version = "HTTP/1.1"
    status: HTTPStatus
    asked: ClassVar[list[str]] = []

    def do_PUT(self) -> None:  # noqa: N802 - the library's name
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(self.command)
        is_first = len(self.asked) == 1
        body = b"<Error><Code>InternalError</Code></Error>" if is_first else b""
        self.send_response(self.status if is_first else HTTPStatus.OK)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Keep still."""


@pytest.mark.parametrize(
    ("status", "is_tried_again"), [(500, True), (502, True), (503, True), (504, True), (501, False), (409, False)]
)
def test_one_that_is_unwell_for_a_moment_is_asked_again(tmp_path: Path, status: int, is_tried_again: bool) -> None:
    asked: list[str] = []
    handler = type("Unwell", (_UnwellOnce,), {"status": HTTPStatus(status), "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        secret = tmp_path / "secret"
        secret.write_text("secret")
        endpoint = f"http://127.0.0.1:{server.server_port}"
        keys = {"access_key": "key", "secret_key_file": secret, "plain_http": True, "timeout_seconds": SECONDS}
        store = ObjectStore(SharedStorageSettings.model_validate({"url": "s3://limner", "endpoint": endpoint, **keys}))
        digest = written(tmp_path / "file", 5000)
        with nullcontext() if is_tried_again else pytest.raises(StorageError, match="InternalError"):
            store.put("file.dcm", tmp_path / "file", digest)
        store.close()
        server.shutdown()
    assert len(asked) == (2 if is_tried_again else 1)


def test_threads_may_ask_at_once(tmp_path: Path, store: ObjectStore) -> None:
    begin = threading.Barrier(8)

    def both(number: int) -> bool:
        path = tmp_path / f"{number}.out"
        digest = written(path, 100_000 + number)
        begin.wait(10)
        store.put(f"{number}.dcm", path, digest)
        return store.get(f"{number}.dcm", tmp_path / f"{number}.in", digest)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(both, range(8)))
    assert [digest_of(tmp_path / f"{n}.in") for n in range(8)] == [digest_of(tmp_path / f"{n}.out") for n in range(8)]


def test_the_check_leaves_nothing(storage: ObjectStorage, store: ObjectStore) -> None:
    store.check()
    assert storage.names() == []


# --- the spool over it ----------------------------------------------------------------------------------------------


def spool_of(folder: Path, store: ObjectStore, low_water_bytes: int = 0) -> SharedSpool:
    spool = SharedSpool(folder, low_water_bytes, store)
    spool.prepare()
    return spool


def test_what_one_host_keeps_another_reads(tmp_path: Path, storage: ObjectStorage, store: ObjectStore) -> None:
    first, second = spool_of(tmp_path / "first", store), spool_of(tmp_path / "second", store)
    kept = first.keep(b"DICM", b"pixels")
    assert first.holds(kept)
    assert storage.names() == [f"one/two/instances/{kept.digest[:2]}/{kept.digest}.dcm"]
    assert not second.path_of(kept.digest).exists()
    assert second.file_of(kept.digest).read_bytes() == b"DICMpixels"
    assert list(second.all_files()) == [(kept.digest, 10)]
    first.drop_copy(kept.digest)
    assert first.file_of(kept.digest).read_bytes() == b"DICMpixels"
    assert not second.file_of("0" * 64).exists()


def test_a_repeat_is_stored_again_only_where_the_storage_lost_it(
    tmp_path: Path, storage: ObjectStorage, store: ObjectStore
) -> None:
    spool = spool_of(tmp_path / "spool", store)
    kept = spool.keep(b"bytes")
    stored = storage.folder / storage.names()[0]
    before = stored.stat().st_mtime_ns
    assert spool.keep(b"bytes") == kept
    assert stored.stat().st_mtime_ns == before
    stored.unlink()
    assert not spool.holds(kept)
    incoming = spool.receive(b"by")
    incoming.write(b"tes")
    assert incoming.keep() == kept
    assert spool.holds(kept)


def test_nothing_is_kept_for_good_while_the_storage_is_away(
    tmp_path: Path, storage: ObjectStorage, store: ObjectStore
) -> None:
    spool = spool_of(tmp_path / "spool", store)
    kept = spool.keep(b"before")
    storage.stop()
    incoming = spool.receive(b"af")
    incoming.write(b"ter")
    for ask in (lambda: spool.keep(b"after"), incoming.keep, lambda: spool.keep(b"before"), lambda: spool.holds(kept)):
        with pytest.raises(OutOfResources) as told:
            ask()
        assert (told.value.code, told.value.dimse_status) == ("shared-storage-away", 0xA700)
    storage.start()
    assert spool.holds(spool.keep(b"after"))


def test_a_copy_is_refused_where_the_disk_has_no_room_and_where_the_bytes_are_others(
    tmp_path: Path, storage: ObjectStorage, store: ObjectStore
) -> None:
    kept = spool_of(tmp_path / "spool", store).keep(b"bytes")
    full = spool_of(tmp_path / "full", store, low_water_bytes=1 << 60)
    with pytest.raises(StorageError) as told:
        full.file_of(kept.digest)
    assert told.value.code == "storage-below-watermark"
    other = spool_of(tmp_path / "other", store)
    (storage.folder / storage.names()[0]).write_bytes(b"bytez")
    assert not other.file_of(kept.digest).exists()
    assert other.read_digest(kept.digest) == hashlib.sha256(b"bytez").hexdigest()


def test_what_is_removed_goes_from_the_storage_and_from_here(
    tmp_path: Path, storage: ObjectStorage, store: ObjectStore
) -> None:
    spool = spool_of(tmp_path / "spool", store)
    kept = [spool.keep(bytes([number])) for number in range(3)]
    spool.remove_all([one.digest for one in kept[:2]])
    assert [one.path.exists() for one in kept] == [False, False, True]
    assert list(spool.all_files()) == [(kept[2].digest, 1)]
