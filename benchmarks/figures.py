"""A figure beside its goal, and the median over rounds that most of them are made of."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.driver import Run

MIB = 1 << 20


@dataclass(frozen=True)
class Figure:
    """One number."""

    case: str
    name: str
    value: float
    unit: str
    """"x" for a ratio, "%" for a share, "voxels" or "MiB"."""
    goal: float | None = None
    is_least: bool = True
    """Whether the goal is the least that the value should be; else the most."""

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.is_least else self.value <= self.goal


def median(runs: Sequence[Run], of: Callable[[Run], float]) -> float:
    """Return the median of one number over the rounds."""
    return statistics.median(of(run) for run in runs)
