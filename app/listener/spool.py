"""Received instances on disk, named by the SHA-256 of their bytes.

::

    incoming/                  being written; nothing here was acknowledged
    instances/ab/<sha256>.dcm  kept; the 256 folders exist from the start
    quarantine/<sha256>.dcm    refused bytes, with the reason's code beside them in <sha256>.json

An instance is written aside, synced, renamed, and its folder synced: then it survives a crash of the process or the
machine. The same bytes have the same name, so a repeat is kept once, and no name comes from a peer's text.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import struct
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from app.errors import CannotUnderstand, OutOfResources
from app.identifiers import IMPLEMENTATION_CLASS_UID, UID, parse_uid
from app.listener.durable import KeptFile, mapped, write_all, write_failed
from app.listener.incoming import IncomingFile
from app.listener.inspection import PREFIX, Buffer, InstanceHeader, inspect_data_set, split_part_10
from app.listener.presentation import TRANSFER_SYNTAXES
from operators.durable import sync_folder

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PREAMBLE_BYTES = 128
_ABANDONED_SECONDS = 3600.0


class Spool:
    """The folder of received instances. Safe to use from many threads, and from several processes at once.

    Parameters
    ----------
    folder
        Where the instances lie.
    low_water_bytes
        Free space that must stay; an instance that would take from it is refused.
    """

    is_shared = False
    """Whether what lies in the folder is this host's copy of what several have."""

    def __init__(self, folder: Path, low_water_bytes: int) -> None:
        self._folder = folder
        self._low_water_bytes = low_water_bytes
        self._incoming = folder / "incoming"
        self._instances = folder / "instances"
        self._quarantine = folder / "quarantine"

    def prepare(self) -> None:
        """Make the folders, and remove what was being received when a process ended: it was never acknowledged."""
        for folder in (self._folder, self._incoming, self._instances, self._quarantine):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(256):
            (self._instances / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
        self.sweep()
        for folder in (self._instances, self._folder, self._folder.parent):
            sync_folder(folder)

    def sweep(self) -> int:
        """Remove what is half received and has no process any more, or has not grown for an hour; return how many."""
        removed = 0
        for part in self._incoming.iterdir():
            try:
                if _is_abandoned(part):
                    part.unlink()
                    removed += 1
            except FileNotFoundError:  # it was kept or discarded meanwhile
                continue
        return removed

    def keep(self, *parts: Buffer) -> KeptFile:
        """Write a file made of `parts`, in order, so that it survives a crash; the same bytes are kept once.

        Raises
        ------
        OutOfResources
            If the free space is below its watermark, or the disk fails. Bytes that are already here need no room.
        """
        digest, size_bytes = _digest_of(parts)
        path = self.path_of(digest)
        kept = KeptFile(digest, size_bytes, path)
        try:
            if path.exists() and path.stat().st_size == size_bytes:
                # it may have been renamed by a thread, or a process that was killed, that has not synced it yet
                sync_folder(path.parent)
                is_new = False
            else:
                self.check_room(size_bytes)
                self._write(parts, path)
                is_new = True
        except OSError as error:
            raise write_failed(error) from error
        self.share(kept, is_new=is_new)
        return kept

    def share(self, kept: KeptFile, *, is_new: bool) -> None:
        """Let other hosts have a file that is kept here: they mount this folder, so nothing is to be done.

        Parameters
        ----------
        is_new
            Whether it was not here before.

        Raises
        ------
        OutOfResources
            If it can't be shared now: it must not be acknowledged.
        """

    def holds(self, kept: KeptFile) -> bool:
        """Whether a kept file is still there for all hosts; OutOfResources if that can't be told."""
        return kept.path.exists()

    def file_of(self, digest: str) -> Path:
        """Return where to read the file with this digest; there is none if this host can have none.

        Raises
        ------
        StorageError
            If another host may have it and that can't be told now.
        """
        return self.path_of(digest)

    def size_of(self, digest: str) -> int | None:
        """Return the size in bytes of a kept file; None if there is none."""
        try:
            return self.path_of(digest).stat().st_size
        except FileNotFoundError:
            return None

    def age_of(self, digest: str) -> float:
        """Return the seconds since a kept file was written; 0 if it is not there any more."""
        try:
            return time.time() - self.path_of(digest).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def read_digest(self, digest: str) -> str | None:
        """Read a kept file and return its SHA-256 in hexadecimal; None if there is none."""
        try:
            with self.path_of(digest).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return None

    def receive(self, head: bytes) -> IncomingFile:
        """Begin a file whose bytes come one after the other; `head` are its first ones. Never raises."""
        return IncomingFile(self, head)

    def quarantine(self, *parts: Buffer, code: str) -> str:
        """Keep refused bytes for whoever looks into the refusal, and return their digest.

        Best effort: below the watermark, or if the disk fails, nothing is kept.
        """
        digest, size_bytes = _digest_of(parts)
        try:
            self.check_room(size_bytes)
            self._write(parts, self.quarantine_path_of(digest))
            self.write_reason(digest, size_bytes, code)
        except (OSError, OutOfResources):
            return digest
        return digest

    def path_of(self, digest: str) -> Path:
        """Return where the file with this digest lies, whether or not it exists.

        Raises
        ------
        ValueError
            If it is not a SHA-256 as 64 lower-case hexadecimal digits.
        """
        if _DIGEST.fullmatch(digest) is None:
            raise ValueError("not a digest: expected 64 lower-case hexadecimal digits")
        return self._instances / digest[:2] / f"{digest}.dcm"

    def remove(self, digest: str) -> None:
        """Remove the file with this digest, for good; nothing happens if there is none."""
        path = self.path_of(digest)
        path.unlink(missing_ok=True)
        sync_folder(path.parent)

    def all_digests(self) -> Iterator[str]:
        """Yield the digest of every kept file, in order."""
        for folder in sorted(self._instances.iterdir()):
            for path in sorted(folder.glob("*.dcm")):
                yield path.stem

    @property
    def incoming_folder(self) -> Path:
        """Where files are written before they are kept."""
        return self._incoming

    def quarantine_path_of(self, digest: str) -> Path:
        """Return where refused bytes with this digest lie."""
        return self._quarantine / f"{digest}.dcm"

    def write_reason(self, digest: str, size_bytes: int, code: str) -> None:
        """Write why bytes are in quarantine beside them; OSError if the disk fails."""
        reason = json.dumps({"code": code, "size_bytes": size_bytes}).encode()
        self._write((reason,), self._quarantine / f"{digest}.json")

    def all_files(self) -> Iterator[tuple[str, int]]:
        """Yield digest and size in bytes of every kept file; one that is removed meanwhile may be left out."""
        return self.local_files()

    def local_files(self) -> Iterator[tuple[str, int]]:
        """Yield the same of what lies on this host's disk."""
        for folder in sorted(self._instances.glob("??")):  # none before the first start
            for entry in os.scandir(folder):
                if entry.name.endswith(".dcm"):
                    with contextlib.suppress(FileNotFoundError):
                        yield entry.name.removesuffix(".dcm"), entry.stat().st_size

    def quarantined(self) -> Counter[str]:
        """Count the refused files by their codes; ``unknown`` where that could not be written beside the file."""
        codes: Counter[str] = Counter()
        for path in self._quarantine.glob("*.dcm"):
            try:
                codes[json.loads(path.with_suffix(".json").read_text())["code"]] += 1
            except (OSError, ValueError, KeyError):
                codes["unknown"] += 1
        return codes

    def free_bytes(self) -> int:
        """Return the space that is free for what is kept."""
        return self.disk_free_bytes()

    def disk_free_bytes(self) -> int:
        """Return the space on its disk that is free for this user; before the first start, where the folder will be."""
        try:
            room = os.statvfs(self._folder)
        except FileNotFoundError:
            room = os.statvfs(next(one for one in self._folder.absolute().parents if one.exists()))
        return room.f_bavail * room.f_frsize

    def remove_all(self, digests: Collection[str], check: Callable[[], None] = lambda: None) -> None:
        """Remove the files with these digests, for good; those that are not there do no harm.

        Parameters
        ----------
        check
            Asked before each file whether it may still go: it raises if not.
        """
        folders = set()
        for digest in digests:
            check()
            path = self.path_of(digest)
            path.unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in folders:
            sync_folder(folder)

    def refused_files(self) -> Iterator[tuple[str, int, float]]:
        """Yield name, size in bytes and age in seconds of each object in the quarantine."""
        now = time.time()
        for path in sorted(self._quarantine.glob("*.dcm")):
            with contextlib.suppress(FileNotFoundError):
                facts = path.stat()
                yield path.stem, facts.st_size, max(0.0, now - facts.st_mtime)

    def remove_refused(self, name: str) -> None:
        """Remove an object from the quarantine, with the file that says why it is there."""
        for suffix in (".dcm", ".json"):
            (self._quarantine / f"{name}{suffix}").unlink(missing_ok=True)

    def check_room(self, size_bytes: int) -> None:
        """Raise OutOfResources if the disk would be below its watermark with `size_bytes` more."""
        free = self.disk_free_bytes()
        if free - size_bytes < self._low_water_bytes:
            raise OutOfResources(
                f"the spool's disk has {free} bytes free and must keep {self._low_water_bytes}; free some space",
                code="storage-below-watermark",
            )

    def _write(self, parts: tuple[Buffer, ...], path: Path) -> None:
        aside = self._incoming / f"{uuid.uuid4().hex}.part"
        try:
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb", buffering=0) as file:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                for part in parts:
                    write_all(descriptor, part)
                os.fsync(file.fileno())
            os.rename(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def encode_file_meta(sop_class_uid: UID, sop_instance_uid: UID, transfer_syntax_uid: UID) -> bytes:
    """Return preamble, prefix and File Meta Information of a Part 10 file (PS3.10 section 7.1).

    They depend on nothing but the arguments (no source AE title, no version name), so that an instance sent again,
    also to a later release, has the same digest.
    """
    elements = b"".join(
        (
            _VERSION,
            _uid_element(0x0002, sop_class_uid),
            _uid_element(0x0003, sop_instance_uid),
            _uid_element(0x0010, transfer_syntax_uid),
            _IMPLEMENTATION,
        )
    )
    return b"".join((bytes(_PREAMBLE_BYTES), PREFIX, _GROUP_LENGTH.pack(2, 0, b"UL", 4, len(elements)), elements))


def _uid_element(number: int, uid: str) -> bytes:
    """Encode an element of group 0002 with VR UI in Explicit VR Little Endian (PS3.5 section 7.1.2)."""
    value = uid.encode("ascii")
    value += b"\0" * (len(value) % 2)
    return _UID_HEADER.pack(2, number, b"UI", len(value)) + value


_GROUP_LENGTH = struct.Struct("<HH2sHI")
_UID_HEADER = struct.Struct("<HH2sH")
_VERSION = struct.pack("<HH2sHI2s", 2, 1, b"OB", 0, 2, b"\0\1")
_IMPLEMENTATION = _uid_element(0x0012, IMPLEMENTATION_CLASS_UID)


def read_instance_header(source: Path | Buffer) -> InstanceHeader:
    """Return what identifies the instance in a Part 10 file, and check that the file is whole.

    Parameters
    ----------
    source
        The file, or its bytes. Values other than the identifying ones are passed over.

    Raises
    ------
    CannotUnderstand
        If it is no Part 10 file (code ``not-dicom``), is in a transfer syntax that the listener refuses
        (``transfer-syntax-refused``), or its data set does not pass `inspect_data_set`.
    """
    data = _map_file(source) if isinstance(source, Path) else memoryview(source)
    transfer_syntax, start = split_part_10(data)
    try:
        transfer_syntax_uid = parse_uid(transfer_syntax)
    except ValueError as error:
        raise CannotUnderstand(f"the file's Transfer Syntax UID is {error}", code="uid-invalid") from None
    if transfer_syntax_uid not in TRANSFER_SYNTAXES:
        raise CannotUnderstand(
            "the file's transfer syntax is not accepted; convert it, for instance to Explicit VR Little Endian",
            code="transfer-syntax-refused",
        )
    return inspect_data_set(data[start:], transfer_syntax_uid)


def _is_abandoned(part: Path) -> bool:
    """Whether nobody writes a file: whoever does holds its lock, until the process ends (also on another host)."""
    if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
        return True
    descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _map_file(path: Path) -> memoryview:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return mapped(descriptor) if os.fstat(descriptor).st_size else memoryview(b"")
    finally:
        os.close(descriptor)


def _digest_of(parts: tuple[Buffer, ...]) -> tuple[str, int]:
    """Return SHA-256 in hexadecimal and length in bytes of `parts` put together."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest(), sum(len(part) for part in parts)
