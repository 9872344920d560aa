"""The figures as tables, for a terminal and for the page of the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.figures import Figure
from benchmarks.receive.measure import ASSOCIATIONS, WAITS, Summary
from benchmarks.report import figure_table, machine_lines

_SIGHT = 2.0
"""Within sight of storescp: at most so many times what storescp takes with the waits for the disk that keeping costs.

Nothing that keeps what it acknowledges comes near storescp itself, which syncs nothing: that ratio is shown bare.
"""


def figures_of(summaries: Mapping[tuple[str, int], Summary]) -> list[Figure]:
    """Return Limner's rate beside each other receiver's, and its time beside storescp's with the waits for the disk."""
    goals = {"Orthanc": 1.0, "storescp": None, "pynetdicom": None}
    found = []
    for associations in ASSOCIATIONS:
        group, many = f"{associations} associations", f"{associations} association{'s' if associations > 1 else ''}"
        rates = {name: one.objects_per_second for (name, number), one in summaries.items() if number == associations}
        found += [
            Figure(group, f"Limner's objects/s over {name}'s, {many}", rates["Limner"] / rates[name], "x", goal)
            for name, goal in goals.items()
        ]
        least = 1 / rates["storescp"] + 1 / rates[WAITS]
        named = f"Limner's time over storescp's and {WAITS}, {many}"
        found.append(Figure(group, named, 1 / rates["Limner"] / least, "x", _SIGHT, is_least=False))
    return found


def markdown(summaries: Mapping[tuple[str, int], Summary], where: dict[str, Any]) -> str:
    """Return the tables."""
    lines = machine_lines(where)
    for associations in ASSOCIATIONS:
        lines += [
            f"| {associations} association{'s' if associations > 1 else ''} | objects/s | least to most | MB/s "
            "| CPU of the receiver, ms an object | CPU of its database |",
            "|---|---|---|---|---|---|",
        ]
        for (name, number), one in summaries.items():
            if number == associations:
                beside = f"{one.beside_milliseconds:.1f}" if one.beside_milliseconds else ""
                lines.append(
                    f"| {name} | {one.objects_per_second:.0f} | {one.least:.0f} to {one.most:.0f} "
                    f"| {one.megabytes_per_second:.0f} | {one.cpu_milliseconds:.1f} | {beside} |"
                )
        lines.append("")
    return "\n".join([*lines, *figure_table(figures_of(summaries))])
