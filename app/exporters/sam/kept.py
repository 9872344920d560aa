"""What the gate in the exporter environment leaves for the gate at the served model: requests and torch's answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from app.exporters.sam.parity import Case

_INPUT, _OUTPUT = "input/", "output/"


def keep_case(case: Case, folder: Path) -> None:
    """Write a case as a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"{_INPUT}{name}": value for name, value in case.inputs.items()}
    arrays |= {f"{_OUTPUT}{name}": value for name, value in case.expected.items()}
    number = sum(1 for _ in folder.iterdir())
    np.savez(folder / f"{number:03d}.npz", kind=np.array(case.kind), image=np.array(case.image), **arrays)  # type: ignore[arg-type]


def kept_cases(folder: Path) -> Iterator[Case]:
    """Yield the cases in their order."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored:
            yield Case(
                str(stored["kind"]),
                str(stored["image"]),
                {name.removeprefix(_INPUT): stored[name] for name in stored.files if name.startswith(_INPUT)},
                {name.removeprefix(_OUTPUT): stored[name] for name in stored.files if name.startswith(_OUTPUT)},
            )
