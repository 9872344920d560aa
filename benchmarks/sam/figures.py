"""From what was measured to the figures that count, each beside its goal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.driver import Run
from benchmarks.figures import MIB, Figure, median
from benchmarks.sam.measure import LIMNER, TORCH, Measured, Rounds
from benchmarks.sam.rounds import DECODER, ENCODER, FIRST, WARM

MOST_DIFFERING = 1e-4
"""Share of the masks' pixels that may be other than torch's."""
MOST_WARM_MS = 150
"""On two cores, of 95 prompts in a hundred on a slice whose embedding is kept."""
MOST_MEMORY = 50
"""Per cent of torch's memory growth."""
_MS = 1000


def case_figures(measured: Measured) -> list[Figure]:
    """Return the figures of one case."""
    return [
        *_encoder_figures(measured),
        *_prompt_figures(measured),
        *_memory_figures(measured),
        *_byte_figures(measured),
        *_mask_figures(measured),
    ]


def _per(runs: Sequence[Run], stage: str, count: int, *, cpu: bool) -> float:
    """Milliseconds of a stage for each of `count`, the median of rounds; of its server as well where CPU is meant."""
    if not cpu:
        return _MS / count * median(runs, lambda run: run.wall[stage])
    return _MS / count * median(runs, lambda run: run.cpu[stage] + run.details.get("server_cpu", {}).get(stage, 0.0))


def _encoder_figures(measured: Measured) -> Iterator[Figure]:
    case = measured.case
    one = {system: _per(runs, ENCODER, case.slices, cpu=True) for system, runs in measured.one_core.runs.items()}
    for system, value in one.items():
        yield Figure(case.name, f"encoder, CPU of a slice on one core: {system}", value, "ms")
    name = "encoder, CPU of a slice on one core, torch / Limner"
    yield Figure(case.name, name, one[TORCH] / one[LIMNER], "x", 1)
    if measured.all_cores:
        runs = measured.all_cores.runs
        all_cores = {system: _per(runs[system], ENCODER, case.slices, cpu=False) for system in (TORCH, LIMNER)}
        for system, value in all_cores.items():
            yield Figure(case.name, f"encoder, wall clock of a slice on all cores: {system}", value, "ms")
        name = "encoder, wall clock of a slice on all cores, torch / Limner"
        yield Figure(case.name, name, all_cores[TORCH] / all_cores[LIMNER], "x", 1)


def _prompt_figures(measured: Measured) -> Iterator[Figure]:
    case = measured.case.name
    for system, runs in measured.one_core.runs.items():
        value = _per(runs, DECODER, measured.prompts, cpu=True)
        yield Figure(case, f"decoder, CPU of a prompt on one core: {system}", value, "ms")
    for where, rounds in _places(measured):
        for system, runs in rounds.runs.items():
            warm = [_MS * seconds for run in runs for seconds in run.details["seconds"][WARM]]
            first = [_MS * seconds for run in runs for seconds in run.details["seconds"][FIRST]]
            # the goal is one of two cores, and of what a person waits for
            is_judged = system != TORCH and rounds is measured.all_cores
            yield Figure(case, f"first prompt on a slice, {where}, median: {system}", float(np.median(first)), "ms")
            yield Figure(case, f"warm prompt, {where}, median: {system}", float(np.median(warm)), "ms")
            yield Figure(
                case,
                f"warm prompt, {where}, 95 of 100 within: {system}",
                float(np.percentile(warm, 95)),
                "ms",
                MOST_WARM_MS if is_judged else None,
                is_least=False,
            )


def _places(measured: Measured) -> Iterator[tuple[str, Rounds]]:
    yield "one core", measured.one_core
    if measured.all_cores:
        yield "all cores", measured.all_cores


def _memory_figures(measured: Measured) -> Iterator[Figure]:
    case = measured.case.name
    first = (measured.all_cores or measured.one_core).first
    share = 100 * first[LIMNER].growth / first[TORCH].growth
    yield Figure(case, "memory growth, Limner with its Triton / torch", share, "%", MOST_MEMORY, is_least=False)
    for system, run in first.items():
        yield Figure(case, f"memory growth: {system}", run.growth / MIB, "MiB")
        yield Figure(case, f"memory at most, libraries and weights with it: {system}", run.resident / MIB, "MiB")
    yield Figure(case, "memory growth, of that its Triton", first[LIMNER].server_growth / MIB, "MiB")


def _byte_figures(measured: Measured) -> Iterator[Figure]:
    (details, *_) = [run.details for run in measured.one_core.runs[LIMNER]]
    for stage, what in ((ENCODER, "a slice"), (DECODER, "a prompt")):
        value = details["bytes"][stage] / details["calls"][stage] / MIB
        yield Figure(measured.case.name, f"{stage}, tensors to and from Triton for {what}", value, "MiB")


def _mask_figures(measured: Measured) -> Iterator[Figure]:
    goal = MOST_DIFFERING * measured.pixels
    for system, differing in measured.differing.items():
        name = f"pixels of {measured.pixels} in {measured.prompts} masks that are not torch's: {system}"
        yield Figure(measured.case.name, name, differing, "pixels", goal, is_least=False)
