"""Reads the tensors of a checkpoint that torch wrote, without torch and without letting it run code.

Such a file is a zip archive: ``<name>/data.pkl`` is a pickle that says which tensor lies where in which storage, and
``<name>/data/<key>`` are the storages. The pickle may name four things and no other.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KINDS = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class CheckpointRefused(Exception):
    """The file is not a checkpoint of tensors and nothing else."""


def read_tensors(checkpoint: bytes) -> dict[str, NDArray[Any]]:
    """Return the tensors by name; they are read-only views of what was read.

    Raises
    ------
    CheckpointRefused
        If the file is not such an archive, asks for any other type or function, or has a tensor that does not lie
        within its storage in the common order.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(checkpoint)) as archive:
            (listing,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            loaded = _Reader(archive, listing).load()
    except (zipfile.BadZipFile, pickle.UnpicklingError, ValueError, KeyError, TypeError, EOFError) as error:
        raise CheckpointRefused(f"it can't be read as a checkpoint of tensors: {error}") from error
    if not isinstance(loaded, dict):
        raise CheckpointRefused("it holds no named tensors")
    return {str(name): value for name, value in loaded.items() if isinstance(value, np.ndarray)}


class _Reader(pickle.Unpickler):
    """An unpickler that can build tensors and the table that names them."""

    def __init__(self, archive: zipfile.ZipFile, listing: str) -> None:
        super().__init__(io.BytesIO(archive.read(listing)))
        self._archive = archive
        self._folder = listing.removesuffix("data.pkl")

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the four things that may be named."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _KINDS:
            return _KINDS[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        """Return the storage that an entry of the pickle stands for."""
        _, kind, key, _, count = pid
        storage = np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), kind)
        if storage.size != count:
            raise ValueError(f"the storage {key} holds {storage.size} values, expected {count}")
        return storage


def _tensor(
    storage: NDArray[Any], offset: int, shape: Sequence[int], stride: Sequence[int], *_for_training: Any
) -> NDArray[Any]:
    """Return a part of a storage as an array."""
    size = int(np.prod(shape, dtype=np.int64))
    array = storage[offset : offset + size].reshape(shape)
    given = [step for step, length in zip(stride, shape, strict=True) if length > 1]
    common = [step // array.itemsize for step, length in zip(array.strides, shape, strict=True) if length > 1]
    if given != common:
        raise ValueError(f"a tensor of shape {list(shape)} lies in the order {list(stride)}, expected {common}")
    return array
