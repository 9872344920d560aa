import os
import subprocess
import sys

import numpy as np
import pytest

from operators import shared_memory
from operators.shared_memory import (
    REGION_PREFIX,
    SHARED_MEMORY_FOLDER,
    Region,
    SharedMemoryUnusable,
    is_running,
    is_stale,
    process_mark,
    remove_stale_regions,
)


def test_a_region_is_private_and_gone_after_its_end() -> None:
    region = Region(64)
    path = SHARED_MEMORY_FOLDER / region.name
    region.view(np.dtype(np.float32), (2, 4))[...] = 7
    assert path.stat().st_mode & 0o777 == 0o600
    assert np.frombuffer(path.read_bytes(), np.float32).tolist() == [7] * 8 + [0] * 8
    view = region.view(np.dtype(np.float32), (8,))
    region.close()
    region.close()
    assert not path.exists()
    assert view.tolist() == [7] * 8, "a view outlives its region"


def test_full_shared_memory_is_told_apart_and_leaves_nothing() -> None:
    before = sorted(SHARED_MEMORY_FOLDER.glob(f"{REGION_PREFIX}{os.getpid()}_*"))
    with pytest.raises(SharedMemoryUnusable):
        Region(1 << 60)
    assert sorted(SHARED_MEMORY_FOLDER.glob(f"{REGION_PREFIX}{os.getpid()}_*")) == before


def test_the_regions_of_the_dead_are_removed() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from operators.shared_memory import Region; print(Region(16).name)"],
        capture_output=True,
        text=True,
        check=True,
    )
    name, mine = ended.stdout.strip(), Region(16)
    assert is_stale(name)
    assert (SHARED_MEMORY_FOLDER / name).exists()
    remove_stale_regions()
    assert not (SHARED_MEMORY_FOLDER / name).exists()
    assert (SHARED_MEMORY_FOLDER / mine.name).exists()
    mine.close()


def test_a_process_is_known_by_its_start_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container the number is the same after each restart."""
    mark = process_mark()
    assert is_running(mark)
    pid, _, ticks = mark.partition("_")
    assert not is_running(f"{pid}_{int(ticks) - 1}")
    assert not is_running("")
    assert not is_running("x_1")
    assert not is_running(f"{1 << 30}_")
    monkeypatch.setattr(shared_memory, "_start_ticks", lambda _: "1")
    assert not is_running(mark)


def test_other_names_are_never_stale() -> None:
    assert not is_stale("something")
    assert not is_stale(f"{REGION_PREFIX}notes")
    assert not is_stale(f"{REGION_PREFIX}{process_mark()}_00ff")
