"""What the server's side asks of the exporter environment: one task a process.

The task comes as JSON on standard input; standard output carries one JSON object a line, ``{"progress": …}`` while it
works and at the end ``{"result": …}`` or ``{"error": {"code": …, "message": …}}``. Whatever torch and nnU-Net print
goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from app.errors import ImportRefused
from app.exporters.exporting import Progress, export_package
from app.exporters.job import job_from_json
from app.exporters.parting import open_layers
from app.exporters.sam import job as generalists
from app.exporters.sam.exporting import export_generalist
from app.exporters.tensorrt import build_engine

Task = Callable[[Mapping[str, Any], Progress], Any]


def main() -> None:
    """Carry out the task on standard input."""
    with _own_output() as output:

        def say(**message: Any) -> None:
            output.write(json.dumps(message) + "\n")
            output.flush()

        request = json.load(sys.stdin)
        try:
            result = _TASKS[request["task"]](request, lambda line: say(progress=line))
        except ImportRefused as error:
            say(error={"code": error.code, "message": str(error)})
        else:
            say(result=result)


def _own_output() -> TextIO:
    """Return standard output for this module alone; what else prints goes to standard error."""
    ours = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return ours


def _export(request: Mapping[str, Any], progress: Progress) -> None:
    export_package(
        job_from_json(request["job"]),
        Path(request["repository"]),
        progress=progress,
        gate_folder=Path(request["gate_folder"]),
    )


def _export_generalist(request: Mapping[str, Any], progress: Progress) -> None:
    export_generalist(
        generalists.job_from_json(request["job"]),
        Path(request["repository"]),
        progress=progress,
        gate_folder=Path(request["gate_folder"]),
    )


def _engine(request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    return build_engine(Path(request["folder"]), precision=request["precision"], progress=progress)


def _layers(request: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """Open some layers of a served graph, and say what the reference computes there."""
    return open_layers(
        Path(request["reference"]), Path(request["served"]), Path(request["image"]), request["start"],
        Path(request["target"]),
    )  # fmt: skip


_TASKS: Mapping[str, Task] = {
    "export": _export,
    "export-generalist": _export_generalist,
    "engine": _engine,
    "layers": _layers,
}
