"""Takes every system through one case and brings home what they took and what they found."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.jobs.child_process import ENVIRONMENT
from benchmarks.driver import Pythons, Run, Worker, interleaved, last_core, slug, worker
from benchmarks.sam.cases import Case, Task
from benchmarks.worker import Figures

TORCH, LIMNER, API = "torch", "Limner, Triton with ONNX Runtime", "Limner, its HTTP API"
MODULES = {TORCH: "benchmarks.sam.reference", LIMNER: "benchmarks.sam.limner", API: "benchmarks.sam.api"}

Runs = Mapping[str, list[Run]]
"""By system."""


@dataclass(frozen=True)
class Rounds:
    """What all systems gave on one core, or on all."""

    first: Mapping[str, Run]
    """The round after the model was loaded, by system: what memory is told from."""
    runs: Runs
    """The rounds after it: what seconds are told from."""


@dataclass(frozen=True)
class Measured:
    """What one case gave."""

    case: Case
    one_core: Rounds
    """All of a system on one core, with one thread each."""
    all_cores: Rounds | None
    prompts: int
    """How many prompts a round has, on all slices."""
    pixels: int
    """Of all masks."""
    shown: int
    """Of them, those within torch's masks."""
    differing: Mapping[str, int]
    """Of all, those that are not as in torch's masks, by system."""


class Bench:
    """What is measured with.

    Parameters
    ----------
    pythons
        The interpreters.
    repository
        A repository with LiteMedSAM.
    work
        Where slices, masks and logs go.
    progress
        Told, line by line, what is being done.
    """

    def __init__(self, pythons: Pythons, repository: Path, work: Path, progress: Callable[[str], None]) -> None:
        self._pythons, self._repository, self._work = pythons, repository, work
        self._progress = progress

    def measure(self, case: Case, task: Task, rounds: int, *, is_quick: bool) -> Measured:
        """Take all systems through `case`; on one core alone with `is_quick`."""
        path = self._work / "slices.npy"
        np.save(path, task.images)
        asked = [[prompt.slice_index, *prompt.corners] for prompt in task.prompts]
        request: Figures = {"images": str(path), "prompts": asked, "repository": str(self._repository)}
        request |= {"series": str(task.series), "slices": task.slices}
        self._progress(f"{case.name}: on one core")
        one_core = self._group(case, request, [TORCH, LIMNER], rounds, core=last_core())
        all_cores = None
        if not is_quick:
            self._progress(f"{case.name}: on all cores")
            all_cores = self._group(case, request, list(MODULES), rounds, core=None)
        expected = np.load(self._masks_file(TORCH))
        systems = (all_cores or one_core).runs
        found = {system: np.load(self._masks_file(system)) for system in systems if system != TORCH}
        return Measured(
            case=case,
            one_core=one_core,
            all_cores=all_cores,
            prompts=len(task.prompts),
            pixels=len(task.prompts) * task.images[0].size,
            shown=_ones(expected),
            differing={system: _ones(masks ^ expected) for system, masks in found.items()},
        )

    def _group(self, case: Case, request: Figures, systems: list[str], rounds: int, core: int | None) -> Rounds:
        with contextlib.ExitStack() as stack:
            workers = [stack.enter_context(self._worker(case, request, system, core)) for system in systems]
            self._progress("  the first round of each, for its memory")
            first = {one.name: one.run() for one in workers}
            for one in workers:
                one.runs.clear()
            interleaved(workers, rounds, self._progress)
        return Rounds(first, {one.name: one.runs for one in workers})

    def _worker(
        self, case: Case, request: Figures, system: str, core: int | None
    ) -> contextlib.AbstractContextManager[Worker]:
        own: Figures = {**request, "threads": 0 if core is None else 1, "masks": str(self._masks_file(system))}
        python = self._pythons.exporter if system == TORCH else self._pythons.server
        log = self._work / f"{case.name}-{slug(system)}.log"
        environment = {} if system == TORCH else ENVIRONMENT
        return worker(system, python, MODULES[system], own, log, core=core, environment=environment)

    def _masks_file(self, system: str) -> Path:
        return self._work / f"{slug(system)}.npy"


def _ones(masks: NDArray[np.uint8]) -> int:
    """Pixels that are set, of eight a byte."""
    return int(np.unpackbits(masks).sum(dtype=np.int64))
