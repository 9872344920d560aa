"""What the processes of all systems share: the driver's word, stage clocks, and the answer.

A worker prepares itself, says ``{"ready": …}`` on a line of standard output, and for each line it then reads it works
once through its case and answers with the figures of that run. It ends with its standard input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

RUN = "run"
"""The driver's word for a run that is measured."""

_Item = TypeVar("_Item")
Figures = dict[str, Any]


def serve(ready: Figures, run: Callable[[str], Figures], output: Any) -> None:
    """Say that all is prepared, then work whenever the driver says so: `run` is given the word that it said."""
    _say(output, {"ready": ready})
    for line in sys.stdin:
        _say(output, run(line.strip()))


def own_output() -> Any:
    """Return standard output for the answers alone; what else prints goes to standard error."""
    ours = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return ours


def _say(output: Any, message: Figures) -> None:
    output.write(json.dumps(message) + "\n")
    output.flush()


class Clock:
    """Seconds of CPU, of all threads of this process, and of the wall, by stage."""

    def __init__(self) -> None:
        self.cpu: dict[str, float] = {}
        self.wall: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add what is done meanwhile to the stage `name`."""
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            yield
        finally:
            self._add(name, time.process_time() - cpu, time.perf_counter() - wall)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, each call of which counts to the stage `name`."""

        def call(*arguments: Any, **options: Any) -> Any:
            with self.stage(name):
                return function(*arguments, **options)

        return call

    def pulled(self, name: str, items: Iterable[_Item]) -> Iterator[_Item]:
        """Yield `items`; what it takes to get each counts to the stage `name`.

        Planes are pulled by the hundred, through several of these: what `stage` itself takes would be seen.
        """
        iterator, end = iter(items), object()
        cpu_seconds = wall_seconds = 0.0
        try:
            while True:
                cpu, wall = time.process_time(), time.perf_counter()
                item: Any = next(iterator, end)
                wall_seconds += time.perf_counter() - wall
                cpu_seconds += time.process_time() - cpu
                if item is end:
                    return
                yield item
        finally:
            self._add(name, cpu_seconds, wall_seconds)

    def _add(self, name: str, cpu_seconds: float, wall_seconds: float) -> None:
        self.cpu[name] = self.cpu.get(name, 0.0) + cpu_seconds
        self.wall[name] = self.wall.get(name, 0.0) + wall_seconds
