"""Embeddings on disk, so that a second prompt on a slice never pays for the encoder.

An embedding is found by the digest of the pixels it was made of, of the weights that made it, and of how the image was
brought to them. That digest is its file's name: no patient, study or instance stands there. The embedding itself shows
what is in the picture, so that the folder is private to its user.

Several processes may share a folder. Files are put in place whole, under a lock that a killed process lets go of;
readers take no lock. A file that is damaged is dropped, and its embedding made again. Together the files never hold
more than the bound: those not used for the longest time go first.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.durable import write_durably
from operators.sam.contract import ImageContract

Embedding = Mapping[str, NDArray[np.float32]]
"""What the encoder gives for one image, by name."""

_LOCK = "lock"
_DIGEST_BYTES = 32
_FORMAT = 1
"""Of the files; another one finds none of the old ones, which then go by and by."""


def embedding_key(image: NDArray[np.uint8], encoder_digest: str, contract: ImageContract) -> str:
    """Return the name of an image's embedding, 64 hexadecimal digits.

    Parameters
    ----------
    image
        (rows, columns), as the encoder's frame is made of it.
    encoder_digest
        SHA-256 of the encoder's weights.
    contract
        How the image is brought into that frame.
    """
    said = {"format": _FORMAT, "encoder": encoder_digest, "image": asdict(contract), "shape": list(image.shape)}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


@dataclass
class Counts:
    """What happened to what was asked of a cache, since it was opened."""

    found: int = 0
    made: int = 0
    damaged: int = 0
    """Files that were dropped because they are not what was written."""
    not_kept: int = 0
    """Embeddings that could not be written, or are larger than the bound: the next prompt pays again."""


class EmbeddingCache:
    """A folder of embeddings.

    Parameters
    ----------
    folder
        Where they lie; made if it is missing. Where it can't be, nothing is kept.
    most_bytes
        What its files may hold together; 0 keeps nothing.
    half
        Keep half precision, half as large; every answer is then rounded to it, the first one too, so that a prompt's
        result does not depend on whether it came first. Otherwise single precision is kept exactly.
    """

    def __init__(self, folder: Path, *, most_bytes: int, half: bool = False) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._half = half
        self._suffix = ".half" if half else ".single"
        self.counts = Counts()
        with suppress(OSError):  # slower without it, not broken: each embedding is then counted as not kept
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def get(self, key: str, make: Callable[[], Embedding]) -> dict[str, NDArray[np.float32]]:
        """Return the embedding called `key` (`embedding_key`), from `make` if it is not kept; and keep it."""
        path = self._folder / f"{key}{self._suffix}"
        kept = self._read(path)
        if kept is not None:
            self.counts.found += 1
            return kept
        self.counts.made += 1
        kind = np.float16 if self._half else np.float32
        made: dict[str, NDArray[Any]] = {name: np.asarray(array, kind) for name, array in make().items()}
        try:
            is_kept = self._write(path, _packed(made))
        except OSError:  # the folder is full, or gone: slower from here on, not broken
            is_kept = False
        self.counts.not_kept += not is_kept
        return {name: array.astype(np.float32, copy=False) for name, array in made.items()}

    def _read(self, path: Path) -> dict[str, NDArray[np.float32]] | None:
        try:
            content = path.read_bytes()
        except OSError:
            return None
        try:
            found = _unpacked(content)
        except ValueError:
            self.counts.damaged += 1
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # another process may have dropped it meanwhile
            os.utime(path)
        return found

    def _write(self, path: Path, content: bytes) -> bool:
        """Put it in place; return whether it fits."""
        if len(content) > self._most_bytes:
            return False
        with self._locked():
            self._make_room(self._most_bytes - len(content), path)
            write_durably(path, content)
        return True

    def _make_room(self, most_bytes: int, coming: Path) -> None:
        """Drop what was not used for the longest time until the rest holds `most_bytes` at most."""
        ages: list[tuple[int, int, Path]] = []
        for path in self._folder.iterdir():
            if path.name == _LOCK:
                continue
            if path.suffix == ".part" or path == coming:  # left by a killed process; written again at once
                path.unlink(missing_ok=True)
                continue
            with suppress(FileNotFoundError):  # a reader found it damaged
                status = path.stat()
                ages.append((status.st_mtime_ns, status.st_size, path))
        held = sum(size for _, size, _ in ages)
        for _, size, path in sorted(ages):
            if held <= most_bytes:
                return
            path.unlink(missing_ok=True)
            held -= size

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, of all processes and threads."""
        descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The digest of what follows; a line that says what it is; the arrays."""
    said = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    parts: list[bytes | memoryview] = [
        json.dumps(said).encode() + b"\n",
        *(np.ascontiguousarray(array).data for array in arrays.values()),
    ]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return b"".join([digest.digest(), *parts])  # the one copy: an embedding has megabytes


def _unpacked(content: bytes) -> dict[str, NDArray[np.float32]]:
    """The arrays, read-only; a ValueError if the file is not what was written."""
    rest = memoryview(content)[_DIGEST_BYTES:]
    if hashlib.sha256(rest).digest() != content[:_DIGEST_BYTES]:
        raise ValueError("the file is not what was written")
    start = content.index(b"\n", _DIGEST_BYTES) + 1
    found: dict[str, NDArray[np.float32]] = {}
    for name, dtype, shape in json.loads(content[_DIGEST_BYTES:start]):
        array = np.frombuffer(content, np.dtype(dtype), math.prod(shape), start).reshape(shape)
        found[name] = array.astype(np.float32, copy=False)
        start += array.nbytes
    return found
