"""The figures as tables, for a terminal and for the page of the documentation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.figures import MIB, Figure, median
from benchmarks.nnunet.figures import STAGES
from benchmarks.nnunet.measure import Measured, Runs
from benchmarks.report import figure_table, machine_lines


def as_json(cases: Sequence[Measured], figures: Sequence[Figure], where: dict[str, Any]) -> str:
    """Return everything that was measured."""
    measured = [
        {
            "name": one.case.name,
            "title": one.case.title,
            "voxels": one.voxels,
            "labels_found": one.labels_found,
            "differing": one.differing,
            "differing_single": one.differing_single,
            "one_core": {system: [asdict(run) for run in runs] for system, runs in one.one_core.items()},
            "all_cores": {system: [asdict(run) for run in runs] for system, runs in one.all_cores.items()},
        }
        for one in cases
    ]
    shown = [{**asdict(figure), "is_met": figure.is_met} for figure in figures]
    return json.dumps({"machine": where, "cases": measured, "figures": shown}, indent=1) + "\n"


def markdown(cases: Sequence[Measured], figures: Sequence[Figure], where: dict[str, Any]) -> str:
    """Return the tables of all cases."""
    lines = machine_lines(where)
    for one in cases:
        lines += [f"### {one.case.name}: {one.case.title}", ""]
        lines += _stage_table("one core", one.one_core)
        if one.all_cores:
            lines += _stage_table("all cores", one.all_cores)
        lines += figure_table([figure for figure in figures if figure.case == one.case.name])
    return "\n".join(lines)


def _stage_table(where: str, runs: Runs) -> Iterator[str]:
    yield f"| seconds on {where} (CPU / wall) | {' | '.join(STAGES)} | Triton's CPU | memory | load |"
    yield "|" + "---|" * (len(STAGES) + 4)
    for system, rounds in runs.items():
        cells = [
            f"{median(rounds, lambda run, stage=stage: run.cpu[stage]):.2f} / "  # type: ignore[misc]
            f"{median(rounds, lambda run, stage=stage: run.wall[stage]):.2f}"  # type: ignore[misc]
            for stage in STAGES
        ]
        server = median(rounds, lambda run: run.server_cpu)
        growth = median(rounds, lambda run: run.growth) / MIB
        load = median(rounds, lambda run: run.load)
        yield f"| {system} | {' | '.join(cells)} | {server:.2f} | +{growth:.0f} MiB | {load:.1f} |"
    yield ""
