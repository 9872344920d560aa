import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from app.serving.triton_process import (
    SHARED_MEMORY_PREFIX,
    TritonParts,
    log_tail,
    remove_leftovers,
    remove_shared_memory,
)
from app.settings import Settings
from operators.shared_memory import process_mark

SHARED_MEMORY_FOLDER = Path("/dev/shm")


def mark_of_ended_process() -> str:
    ended = subprocess.run(
        [sys.executable, "-c", "from operators.shared_memory import process_mark; print(process_mark())"],
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout.strip()


def region(owner: str) -> Path:
    path = SHARED_MEMORY_FOLDER / f"{SHARED_MEMORY_PREFIX}{owner}_{secrets.token_hex(4)}_x"
    path.touch()
    return path


def test_what_the_dead_left_is_removed_and_what_the_living_use_is_not(tmp_path: Path) -> None:
    gone, here = mark_of_ended_process(), process_mark()
    for owner in (gone, here):
        (tmp_path / f"triton-{owner}-abc" / "backends").mkdir(parents=True)
    (tmp_path / "triton.log").touch()
    stale, used = region(gone), region(here)
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"triton-{here}-abc", "triton.log"]
    assert not stale.exists()
    assert used.exists()
    remove_shared_memory(used.name[:-1])
    assert not used.exists()


def test_a_server_that_outlived_its_limner_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / f"triton-{mark_of_ended_process()}-abc"
    folder.mkdir()
    outliving = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)", f"--grpc-address=unix:{folder}/grpc"]
    )
    remove_leftovers(tmp_path)
    assert outliving.wait(20) == -9
    assert not folder.exists()


def test_the_tail_names_the_errors(tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    assert log_tail(log) == "(no log)"
    log.write_text("I1 started\nI1 loading\n")
    assert log_tail(log, lines=1) == "I1 loading"
    log.write_text("I1 started\nE1 model.cc:1] broken\nI1 more\nerror: failed to load all models\nI1 bye\n")
    assert log_tail(log) == "E1 model.cc:1] broken\nerror: failed to load all models"


def test_the_servers_own_search_path_does_not_mislead_its_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text('__version__ = "2.9.9"\n')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    TritonParts.find(Settings().triton.python)
