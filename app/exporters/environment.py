"""Runs tasks in the exporter environment, whose torch the server does without."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from app.errors import ImportRefused

_CODE_FOLDER = Path(__file__).resolve().parents[2]
_RUN = """
import sys
sys.path.append(sys.argv[1])  # last: this environment's own packages come first, the server's may lie there too
from app.exporters.child import main
main()
"""
_PROBE = """
import importlib.util
needed = ("torch", "onnx", "onnxruntime", "nnunetv2", "segment_anything", "mobile_sam", "sam2")
missing = [name for name in needed if importlib.util.find_spec(name) is None]
raise SystemExit(", ".join(missing) + " missing" if missing else 0)
"""
_PROBE_SECONDS = 120.0
_LOG_LINES = 12


def check_exporter(python: Path) -> None:
    """See that the environment is there and whole, before anything is begun.

    Raises
    ------
    ImportRefused
        ``exporter-environment``, saying how it is made.
    """
    advice = "`make exporter` sets it up; or name its interpreter in models.exporter_python"
    try:
        subprocess.run(
            [python, "-P", "-c", _PROBE],
            check=True,
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImportRefused(
            f"the exporter environment's interpreter {python} can't be run; {advice}", code="exporter-environment"
        ) from error
    except subprocess.CalledProcessError as error:
        raise ImportRefused(
            f"the exporter environment of {python} is not whole ({error.stderr.strip()}); {advice}",
            code="exporter-environment",
        ) from error


def run_task(python: Path, request: Mapping[str, Any], progress: Callable[[str], None]) -> Any:
    """Let the exporter environment carry out a task of `app.exporters.child`, and return its result.

    Raises
    ------
    ImportRefused
        What the task refused, by its own code; ``exporter-environment`` if the environment is missing or the process
        ended without an answer.
    """
    check_exporter(python)
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            [python, "-P", "-c", _RUN, str(_CODE_FOLDER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            answer = _converse(process, request, progress)
        finally:
            process.kill()  # it has ended, unless we are being interrupted
        if answer is None:
            raise ImportRefused(_unanswered(process.wait(), log), code="exporter-environment")
    if "error" in answer:
        raise ImportRefused(answer["error"]["message"], code=answer["error"]["code"])
    return answer["result"]


def _converse(
    process: subprocess.Popen[str], request: Mapping[str, Any], progress: Callable[[str], None]
) -> dict[str, Any] | None:
    """Hand the request over and listen to the end; None if there was no answer."""
    if process.stdin is None or process.stdout is None:
        return None
    answer = None
    with contextlib.suppress(BrokenPipeError):  # it ended at once; its log says why
        json.dump(request, process.stdin)
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    for line in process.stdout:
        message = json.loads(line)
        if "progress" in message:
            progress(message["progress"])
        else:
            answer = message
    process.wait()
    return answer


def _unanswered(status: int, log: IO[str]) -> str:
    log.seek(0)
    tail = "\n".join(log.read().splitlines()[-_LOG_LINES:])
    how = f"was killed by signal {-status}, perhaps for want of memory" if status < 0 else f"ended with status {status}"
    return f"the exporter {how} before it answered:\n{tail or '(it said nothing)'}"
