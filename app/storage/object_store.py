"""The one door to S3: files go into a bucket and come back as what they were, or not at all.

Any thread may ask. The work is done by the client's own event loop, and every wait for it has an end. What comes back
is written aside, held to its SHA-256, synced and renamed: a name on this host always has the bytes it stands for.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from s3fs import S3FileSystem
from s3fs import core as s3fs_core

from app.errors import StorageError
from app.settings_shared_storage import SharedStorageSettings
from app.storage import PART_SUFFIX
from operators.durable import sync_folder

AWAY = "shared-storage-away"
REFUSED = "shared-storage-refused"

_BLOCK_BYTES = 8 << 20
_SLOWEST_BYTES_PER_SECOND = 4 << 20
_GRACE_SECONDS = 2.0
_TRIES = 2
_PAGE = 1000
_REMOVED_AT_ONCE = 100
_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSALS = frozenset({"NoSuchBucket", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403"})

_MAY_PASS = frozenset({500, 502, 503, 504})
"""HTTP statuses of a storage that was not well for a moment; 500 is InternalError, after which S3 has one try again."""

_log = structlog.get_logger(__name__)


def _may_pass(error: Exception) -> bool:
    """Whether the client is to try again at once, if it has a try left."""
    if not isinstance(error, ClientError):
        return False
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in _MAY_PASS


s3fs_core.set_custom_error_handler(_may_pass)


class ObjectStore:
    """A bucket, or what in it begins with a prefix. Names are relative to that.

    Every method raises `StorageError` if the storage does not answer in time (``shared-storage-away``) or refuses
    (``shared-storage-refused``): both may pass, and nothing was lost by it.
    """

    def __init__(self, settings: SharedStorageSettings) -> None:
        self._settings = settings
        self._seconds = settings.timeout_seconds
        self._lock = threading.Lock()
        self._system: S3FileSystem | None = None

    def put(self, name: str, path: Path, digest: str) -> None:
        """Store a file under a name; a whole object is there under it when this returns.

        Parameters
        ----------
        digest
            The file's SHA-256 as 64 hexadecimal digits. The storage refuses, where it can tell, what differs from it.

        Raises
        ------
        OSError
            If the file can't be read.
        """
        size_bytes = path.stat().st_size
        checksum = base64.b64encode(bytes.fromhex(digest)).decode()
        is_stored = self._ask(
            lambda system: _and_say_so(
                system._put_file(str(path), self._path(name), chunksize=_BLOCK_BYTES, ChecksumSHA256=checksum)
            ),
            size_bytes,
        )
        if is_stored is None:
            raise _refused("it has no place for an object")

    def get(self, name: str, path: Path, digest: str, check_room: Callable[[int], None] = lambda _: None) -> bool:
        """Fetch an object to `path`, whose folder must exist; False, and nothing is, if there is none.

        Bytes that are not those of `digest` are as good as none: that is logged as an error, and `path` stays away.

        Parameters
        ----------
        check_room
            Raises if there is no room for so many bytes.

        Raises
        ------
        OSError
            If the disk does not take it.
        """
        aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PART_SUFFIX}")
        try:
            if not self._download(name, aside, check_room):
                return False
            found = _sealed_digest(aside)
            if found != digest:
                _log.error("shared_storage.changed", digest=digest, object_digest=found)
                return False
            os.rename(aside, path)
            sync_folder(path.parent)
        finally:
            aside.unlink(missing_ok=True)
        return True

    def digest_of(self, name: str) -> str | None:
        """Read a whole object and return its SHA-256 in hexadecimal; None if there is none."""
        with tempfile.TemporaryDirectory(prefix="limner-storage-") as folder:
            aside = Path(folder) / "object"
            return _sealed_digest(aside) if self._download(name, aside) else None

    def size(self, name: str) -> int | None:
        """Return an object's size in bytes; None if there is none."""
        bucket, key = self._settings.bucket, self._settings.prefix + name
        answer = self._ask(lambda system: system._call_s3("head_object", Bucket=bucket, Key=key))
        return None if answer is None else int(answer["ContentLength"])

    def remove(self, names: Sequence[str]) -> None:
        """Remove objects for good; those that are not there do no harm."""
        for start in range(0, len(names), _REMOVED_AT_ONCE):
            self._remove(names[start : start + _REMOVED_AT_ONCE])

    def listed(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield name and size in bytes of each object whose name begins with `folder`, in order, page by page."""
        own = self._settings.prefix
        asked: dict[str, Any] = {"Bucket": self._settings.bucket, "Prefix": own + folder, "MaxKeys": _PAGE}
        while True:
            page = self._page(asked)
            for one in page.get("Contents", ()):
                yield one["Key"].removeprefix(own), int(one["Size"])
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def check(self) -> None:
        """Store, read and remove a small object: all that is ever asked of the storage."""
        with tempfile.TemporaryDirectory(prefix="limner-storage-") as folder:
            path = Path(folder) / "check"
            path.write_bytes(uuid.uuid4().bytes)
            name, digest = f"check/{uuid.uuid4().hex}", hashlib.sha256(path.read_bytes()).hexdigest()
            self.put(name, path, digest)
            is_back = self.digest_of(name) == digest
            self.remove([name])
        if not is_back:
            raise StorageError("the shared storage gives back other bytes than it was given", code=REFUSED)

    def close(self) -> None:
        """End the connections; whoever asks afterwards opens new ones."""
        with self._lock:
            system, self._system = self._system, None
        client = getattr(system, "_s3creator", None)  # there is none before the first request
        if system is not None and client is not None:
            with contextlib.suppress(Exception):  # they end with the process too
                asyncio.run_coroutine_threadsafe(client.__aexit__(None, None, None), system.loop).result(_GRACE_SECONDS)

    def _remove(self, names: Sequence[str]) -> None:
        objects = {"Objects": [{"Key": self._settings.prefix + name} for name in names], "Quiet": True}
        bucket = self._settings.bucket
        answer = self._ask(lambda system: system._call_s3("delete_objects", Bucket=bucket, Delete=objects))
        failed = {one.get("Code", "") for one in (answer or {}).get("Errors", ())} - {"NoSuchKey"}
        if failed:
            raise _refused(f"to remove an object: {', '.join(sorted(failed))}")

    def _page(self, asked: Mapping[str, Any]) -> Any:
        return self._ask(lambda system: system._call_s3("list_objects_v2", **asked))

    def _download(self, name: str, path: Path, check_room: Callable[[int], None] = lambda _: None) -> bool:
        """Write an object to `path`; False, and the file may be there in part, if there is none."""
        size_bytes = self.size(name)
        if size_bytes is None:
            next(self.listed(name), None)  # refused where the bucket is gone: that is another matter than an object
            return False
        check_room(size_bytes)
        asked = self._ask(
            lambda system: _and_say_so(system._get_file(self._path(name), str(path), chunksize=_BLOCK_BYTES)),
            size_bytes,
        )
        return asked is not None

    def _path(self, name: str) -> str:
        return f"{self._settings.bucket}/{self._settings.prefix}{name}"

    def _ask(self, request: Callable[[S3FileSystem], Coroutine[Any, Any, Any]], size_bytes: int = 0) -> Any:
        """Return what the storage answers in time; None if what is asked for is not there."""
        seconds = self._seconds + size_bytes / _SLOWEST_BYTES_PER_SECOND
        system = self._client()
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(request(system), seconds), system.loop)
        try:
            return future.result(seconds + _GRACE_SECONDS)
        except (TimeoutError, asyncio.CancelledError) as error:
            future.cancel()
            raise StorageError(
                f"the shared storage gave no answer within {seconds:.0f} s; see whether it runs and can be reached",
                code=AWAY,
            ) from error
        except FileNotFoundError as error:
            if error.filename is not None:  # a file here, not an object there
                raise
            if _code_of(error) in _REFUSALS:
                raise _refused(_code_of(error)) from error
            return None
        except (PermissionError, NoCredentialsError, PartialCredentialsError) as error:
            raise _refused(_code_of(error) or type(error).__name__) from error
        except (OSError, BotoCoreError, ClientError, aiohttp.ClientError) as error:
            if isinstance(error, OSError) and (error.filename is not None or error.errno in _OF_THE_DISK):
                raise
            raise StorageError(
                f"the shared storage does not answer as it should ({_code_of(error) or type(error).__name__}); see "
                "whether it runs and can be reached",
                code=AWAY,
            ) from error

    def _client(self) -> S3FileSystem:
        """Return the client, which is made when it is first needed: its thread must not be there before a fork."""
        with self._lock:
            if self._system is None:
                self._system = self._make_client()
            return self._system

    def _make_client(self) -> S3FileSystem:
        settings = self._settings
        config: dict[str, Any] = {
            "connect_timeout": self._seconds,
            "read_timeout": self._seconds,
            "retries": {"total_max_attempts": 1},  # the client's own are enough
            "proxies": {},  # never through one of the environment
            # what a storage must understand is what it was asked for: older ones refuse checksums at the end of a body
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
        if settings.endpoint is not None:
            config["s3"] = {"addressing_style": "path"}
        client: dict[str, Any] = {} if settings.region is None else {"region_name": settings.region}
        if settings.authorities is not None:
            client["verify"] = str(settings.authorities)
        system = S3FileSystem(
            key=settings.access_key,
            secret=None if settings.secret_key_file is None else _secret(settings.secret_key_file),
            endpoint_url=settings.endpoint,
            client_kwargs=client,
            config_kwargs=config,
            max_concurrency=4,
            default_block_size=_BLOCK_BYTES,
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        system.retries = _TRIES
        return system


async def _and_say_so(work: Coroutine[Any, Any, None]) -> bool:
    await work
    return True


def _secret(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise StorageError(
            f"shared_storage.secret_key_file {path} can't be read ({os.strerror(error.errno or 0)}); it must hold the "
            "secret key and be readable for the server's user",
            code=REFUSED,
        ) from error


def _refused(why: str) -> StorageError:
    return StorageError(
        f"the shared storage refuses ({why}); check bucket and keys in [shared_storage], and that they may read, "
        "write, list and delete there",
        code=REFUSED,
    )


def _code_of(error: BaseException) -> str:
    """The storage's own code of an error, such as NoSuchBucket; empty if it gave none."""
    cause = error if isinstance(error, ClientError) else error.__cause__
    return str(cause.response.get("Error", {}).get("Code", "")) if isinstance(cause, ClientError) else ""


def _sealed_digest(path: Path) -> str:
    """Sync a file and return its SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
