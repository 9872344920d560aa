"""The figures as tables, for a terminal and for the page of the documentation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.figures import MIB, Figure, median
from benchmarks.report import figure_table, machine_lines
from benchmarks.sam.measure import Measured, Rounds
from benchmarks.sam.rounds import STAGES


def as_json(measured: Measured, figures: Sequence[Figure], where: dict[str, Any]) -> str:
    """Return everything that was measured."""
    shown = [{**asdict(figure), "is_met": figure.is_met} for figure in figures]
    return json.dumps({"machine": where, "measured": asdict(measured), "figures": shown}, indent=1) + "\n"


def markdown(measured: Measured, figures: Sequence[Figure], where: dict[str, Any]) -> str:
    """Return the tables."""
    lines = [*machine_lines(where), f"### {measured.case.name}: {measured.case.title}", ""]
    lines += _stage_table("one core", measured.one_core)
    if measured.all_cores:
        lines += _stage_table("all cores", measured.all_cores)
    return "\n".join([*lines, *figure_table(figures)])


def _stage_table(where: str, rounds: Rounds) -> Iterator[str]:
    yield f"| seconds of a round on {where} (CPU / wall) | {' | '.join(STAGES)} | Triton's CPU | memory | load |"
    yield "|" + "---|" * (len(STAGES) + 4)
    for system, runs in rounds.runs.items():
        cells = [
            f"{median(runs, lambda run, stage=stage: run.cpu[stage]):.2f} / "  # type: ignore[misc]
            f"{median(runs, lambda run, stage=stage: run.wall[stage]):.2f}"  # type: ignore[misc]
            for stage in STAGES
        ]
        server = median(runs, lambda run: run.server_cpu)
        load = median(runs, lambda run: run.load)
        growth = rounds.first[system].growth / MIB
        yield f"| {system} | {' | '.join(cells)} | {server:.2f} | +{growth:.0f} MiB | {load:.1f} |"
    yield ""
