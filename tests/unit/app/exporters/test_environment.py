"""What is said when the exporter environment is missing, broken or dies: each time what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app.errors import ImportRefused
from app.exporters.environment import check_exporter, run_task


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


def refusal(python: Path) -> tuple[str, str]:
    with pytest.raises(ImportRefused) as caught:
        run_task(python, {"task": "export", "job": "x" * 100_000}, lambda _line: None)
    return caught.value.code, str(caught.value)


def test_a_missing_environment_says_make_exporter(tmp_path: Path) -> None:
    code, message = refusal(tmp_path / "bin" / "python")
    assert code == "exporter-environment"
    assert "`make exporter`" in message
    assert "models.exporter_python" in message


def test_an_environment_that_is_not_whole_names_what_is_missing() -> None:
    with pytest.raises(ImportRefused, match="torch.*missing.*make exporter") as caught:
        check_exporter(Path(sys.executable))  # the server's own: it has no torch, and must not
    assert caught.value.code == "exporter-environment"


ANSWERS = """
import json, sys
if "find_spec" in sys.argv[3]:
    sys.exit(0)
request = json.load(sys.stdin)
"""


def test_progress_and_result(tmp_path: Path) -> None:
    python = program(
        tmp_path / "python",
        ANSWERS + "print(json.dumps({'progress': 'half'}))\nprint(json.dumps({'result': len(request['job'])}))\n",
    )
    heard: list[str] = []
    assert run_task(python, {"task": "export", "job": "x" * 100_000}, heard.append) == 100_000
    assert heard == ["half"]


def test_a_refusal_keeps_its_code(tmp_path: Path) -> None:
    python = program(
        tmp_path / "python",
        ANSWERS + "print(json.dumps({'error': {'code': 'parity-refused', 'message': 'class liver'}}))\n",
    )
    assert refusal(python) == ("parity-refused", "class liver")


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ("print('RuntimeError: no such file', file=sys.stderr)\nsys.exit(3)\n", "ended with status 3"),
        ("import os\nos.kill(os.getpid(), 9)\n", "killed by signal 9, perhaps for want of memory"),
    ],
)
def test_an_exporter_that_dies_is_told_with_the_end_of_its_log(ending: str, said: str, tmp_path: Path) -> None:
    code, message = refusal(program(tmp_path / "python", ANSWERS + ending))
    assert code == "exporter-environment"
    assert said in message


def test_an_exporter_that_ends_before_it_listens(tmp_path: Path) -> None:
    python = program(
        tmp_path / "python", "import sys\nif 'find_spec' in sys.argv[3]:\n    sys.exit(0)\nsys.exit('gone')\n"
    )
    code, message = refusal(python)
    assert code == "exporter-environment"
    assert "gone" in message
