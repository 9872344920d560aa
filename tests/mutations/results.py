"""What became of each kind of damage, as stored beside this module. Limner's part is tested, the SDK's is kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.mutations.judge import Outcome, Verdict
from tests.mutations.series import Modality

PATH = Path(__file__).with_name("results.json")

Reader = Literal["Limner", "SDK"]
Verdicts = dict[tuple[str, Reader, Modality], Verdict]
"""By kind, reader and modality."""


@dataclass(frozen=True)
class Results:
    """All verdicts."""

    verdicts: Verdicts
    sdk_version: str
    sdk_date: str
    """When the SDK's verdicts were made, as YYYY-MM-DD."""


def load() -> Results:
    """Read what is stored."""
    content = json.loads(PATH.read_text())
    verdicts: Verdicts = {}
    for kind, cells in content["verdicts"].items():
        for cell, (outcome, detail, notes) in cells.items():
            reader, modality = cell.split()
            verdicts[kind, reader, modality] = Verdict(Outcome(outcome), detail, tuple(notes))
    return Results(verdicts, content["sdk_version"], content["sdk_date"])


def save(results: Results) -> None:
    """Store them, one line a kind."""
    kinds: dict[str, dict[str, Any]] = {}
    for (kind, reader, modality), verdict in results.verdicts.items():
        kinds.setdefault(kind, {})[f"{reader} {modality}"] = [verdict.outcome, verdict.detail, list(verdict.notes)]
    lines = ",\n".join(
        f"  {json.dumps(kind)}: {json.dumps(cells, ensure_ascii=False)}" for kind, cells in kinds.items()
    )
    head = f'"sdk_version": {json.dumps(results.sdk_version)},\n "sdk_date": {json.dumps(results.sdk_date)}'
    PATH.write_text(f'{{{head},\n "verdicts": {{\n{lines}\n }}\n}}\n')
