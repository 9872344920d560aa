"""Reads checkpoints without letting them run code. Runs in the exporter environment."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import ImportRefused

SAFE_SUFFIX = ".safetensors"
"""Of a format that can hold nothing but tensors."""


def load_restricted(path: Path) -> dict[str, Any]:
    """Read a checkpoint that torch saved, or a safetensors file, without letting it run code.

    Trainers read their checkpoints with ``weights_only=False``, since those hold numpy scalars beside the weights (the
    logged losses), and such a file may execute anything while it is unpickled. Here the restricted unpickler is kept
    and only those numpy types are added to what it may build.

    Raises
    ------
    ImportRefused
        ``checkpoint-refused`` if the file asks for any other type, can't be read, or holds no named values.
    """
    where = f"{path.parent.name}/{path.name}"
    try:
        loaded = _read(path)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ImportRefused(
            f"{where} holds more than weights and numbers, and reading it could run anything: it is not read. Ask "
            f"where it comes from ({reason})",
            code="checkpoint-refused",
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise ImportRefused(
            f"{where} can't be read as a checkpoint: {type(error).__name__}", code="checkpoint-refused"
        ) from error
    if not isinstance(loaded, dict):
        raise ImportRefused(f"{where} is no checkpoint: it holds no named values", code="checkpoint-refused")
    return loaded


def _read(path: Path) -> Any:
    import torch

    if path.suffix == SAFE_SUFFIX:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    with warnings.catch_warnings(), torch.serialization.safe_globals(numpy_scalar_types()):
        warnings.simplefilter("ignore")  # that it may not understand what another pickle protocol wrote
        return torch.load(path, map_location="cpu", weights_only=True)


def numpy_scalar_types() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """The constructors behind a pickled numpy scalar, under the module names of numpy 1 and 2."""
    rebuild: Any = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64", "bool")]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [np.dtype, *kinds, *((rebuild, name) for name in names)]
