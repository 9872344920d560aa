"""The figures as tables, for a terminal and for the page of the documentation."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.nnunet.figures import MIB, STAGES, Figure, median
from benchmarks.nnunet.measure import Measured, Runs

_BEGIN, _END = "<!-- figures: begin -->", "<!-- figures: end -->"
_VERDICTS = {True: "ok", False: "below goal", None: ""}


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


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
    lines = [
        f"{where['date']}; {where['processor']}, {where['cores']} cores, {where['memory_gib']} GiB, Python "
        f"{where['python']}; load {where['load']} at the start.",
        "",
    ]
    for one in cases:
        lines += [f"### {one.case.name}: {one.case.title}", ""]
        lines += _stage_table("one core", one.one_core)
        if one.all_cores:
            lines += _stage_table("all cores", one.all_cores)
        lines += _figure_table([figure for figure in figures if figure.case == one.case.name])
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


def _figure_table(figures: Sequence[Figure]) -> Iterator[str]:
    yield "| figure | value | goal | |"
    yield "|---|---|---|---|"
    for figure in figures:
        yield f"| {figure.name} | {shown(figure)} | {_goal(figure)} | {_VERDICTS[figure.is_met]} |"
    yield ""


def shown(figure: Figure) -> str:
    """Return the value as people read it."""
    match figure.unit:
        case "x":
            return f"{figure.value:.2f} x" if figure.value < 10 else f"{figure.value:.0f} x"  # noqa: PLR2004
        case "%":
            return f"{figure.value:.1f} %"
        case unit:
            return f"{figure.value:.0f} {unit}"


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return ""
    return f"{'at least' if figure.is_least else 'at most'} {figure.goal:g}"


def write_page(page: Path, tables: str) -> None:
    """Put the tables into the page, in place of those of the last time."""
    before, _, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    page.write_text(f"{before}{_BEGIN}\n\n{tables}\n{_END}{after}", encoding="utf-8")
