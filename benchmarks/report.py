"""What the reports of all benchmarks share: the machine, tables of figures, and the page that they are put into."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.figures import Figure

_BEGIN, _END = "<!-- figures: begin -->", "<!-- figures: end -->"
_FEW = 10
_VERDICTS = {True: "ok", False: "missed", None: ""}


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


def machine_lines(where: dict[str, Any]) -> list[str]:
    """Return the first lines of a report: what `machine` found."""
    return [
        f"{where['date']}; {where['processor']}, {where['cores']} cores, {where['memory_gib']} GiB, Python "
        f"{where['python']}; load {where['load']} at the start.",
        "",
    ]


def figure_table(figures: Sequence[Figure]) -> Iterator[str]:
    """Yield the lines of a table of figures beside their goals."""
    yield "| figure | value | goal | |"
    yield "|---|---|---|---|"
    for figure in figures:
        yield f"| {figure.name} | {shown(figure)} | {_goal(figure)} | {_VERDICTS[figure.is_met]} |"
    yield ""


def shown(figure: Figure) -> str:
    """Return the value as people read it."""
    match figure.unit:
        case "x":
            return f"{figure.value:.2f} x" if figure.value < _FEW else f"{figure.value:.0f} x"
        case "%":
            return f"{figure.value:.1f} %"
        case "ms" | "MiB" if figure.value < _FEW:
            return f"{figure.value:.1f} {figure.unit}"
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


def end_as_judged(figures: Sequence[Figure], *, is_quick: bool) -> None:
    """Name the goals that were missed, and end the program with a status that is not zero if there are any.

    A quick run is too short to be judged: it names them, and ends well.
    """
    missed = missed_goals(figures)
    if not missed:
        return
    named = "\n".join(["", f"{len(missed)} goal{'s were' if len(missed) > 1 else ' was'} missed:", *missed])
    if not is_quick:
        sys.exit(named)
    print(f"{named}\nA quick run is not judged by its figures.", flush=True)


def missed_goals(figures: Sequence[Figure]) -> list[str]:
    """Return a line for each figure that misses its goal."""
    return [f"  {one.name}: {shown(one)}, and the goal is {_goal(one)}" for one in figures if one.is_met is False]
