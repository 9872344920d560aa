"""The figures as tables, for a terminal and for the page of the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.figures import MIB, Figure
from benchmarks.report import figure_table, machine_lines
from benchmarks.segmentation.measure import DCMQI, LIMNER, Key, Summary
from operators.object_kinds import Kind

_NAMES: dict[Kind, str] = {"segmentation": "BINARY", "labelmap": "LABELMAP"}


def figures_of(summaries: Mapping[Key, Summary]) -> list[Figure]:
    """Return what Limner takes over what dcmqi takes; the goal is no more, in anything."""
    figures = []
    for kind, segments in dict.fromkeys((kind, segments) for kind, segments, _ in summaries if segments):
        ours, theirs = summaries[kind, segments, LIMNER], summaries[kind, segments, DCMQI]
        named = f"{_NAMES[kind]}, {segments} segment{'s' if segments > 1 else ''}"
        for what, ratio in (
            ("seconds", ours.step_seconds / theirs.step_seconds),
            ("CPU seconds", ours.step_cpu_seconds / theirs.step_cpu_seconds),
            ("bytes", ours.size / theirs.size),
            ("memory", ours.growth / theirs.growth),
        ):
            figures.append(Figure(named, f"{named}: Limner's {what} over dcmqi's", ratio, "x", 1.0, is_least=False))
    return figures


def markdown(summaries: Mapping[Key, Summary], shape: tuple[int, int, int], where: dict[str, Any]) -> str:
    """Return the tables."""
    lines = [*machine_lines(where), f"The series has {' x '.join(map(str, shape))} voxels (slices, rows, columns).", ""]
    for kind, name in _NAMES.items():
        lines += [
            f"| {name} | segments | seconds | CPU | memory, MiB | bytes of the file | whole process: seconds | CPU "
            "| memory, MiB |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for (of_kind, segments, system), one in sorted(summaries.items(), key=lambda item: item[0][1:]):
            if of_kind == kind:
                lines.append(
                    f"| {system} | {segments or 'one voxel'} | {one.step_seconds:.2f} | {one.step_cpu_seconds:.2f} "
                    f"| {one.growth / MIB:.0f} | {one.size:.0f} | {one.seconds:.2f} | {one.cpu_seconds:.2f} "
                    f"| {one.peak / MIB:.0f} |"
                )
        lines.append("")
    return "\n".join([*lines, *figure_table(figures_of(summaries))])
