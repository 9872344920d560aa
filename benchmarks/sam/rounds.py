"""One round as all systems take it: for each slice a first prompt, which needs its embedding, and then the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.worker import Clock, Figures

IMAGE, ENCODER, DECODER, REST, TOTAL = "image", "encoder", "decoder", "rest", "total"
STAGES = (IMAGE, ENCODER, DECODER, REST, TOTAL)
FIRST, WARM = "first", "warm"
"""A prompt on a slice that has no embedding yet, and one on a slice that has."""

Corners = tuple[float, float, float, float]
"""Left, top, right, bottom of a box, in pixels of its slice."""


@dataclass(frozen=True)
class Boxed:
    """One prompt."""

    slice_index: int
    corners: Corners


def take_round(
    prompts: Sequence[Boxed], ask: Callable[[Boxed], NDArray[np.bool_]], clock: Clock
) -> tuple[NDArray[np.uint8], dict[str, list[float]]]:
    """Return the masks of all prompts and the seconds until each was there.

    Eight pixels are one byte, (prompt, byte): what the benchmark itself keeps should not count as a system's memory.

    Parameters
    ----------
    prompts
        Those on one slice follow each other.
    ask
        What finds one mask.
    clock
        Counts all of it as `TOTAL`.
    """
    masks, seconds, current = [], dict[str, list[float]]({FIRST: [], WARM: []}), -1
    for prompt in prompts:
        started = time.perf_counter()
        with clock.stage(TOTAL):
            mask = ask(prompt)
        kind = WARM if prompt.slice_index == current else FIRST
        seconds[kind].append(time.perf_counter() - started)
        masks.append(np.packbits(mask))
        current = prompt.slice_index
    return np.stack(masks), seconds


def stages(seconds: dict[str, float]) -> dict[str, float]:
    """Return the seconds of each stage; what no clock was set for is the rest."""
    known = {name: seconds.get(name, 0.0) for name in (IMAGE, ENCODER, DECODER)}
    return {**known, REST: seconds[TOTAL] - sum(known.values()), TOTAL: seconds[TOTAL]}


def read_prompts(request: Figures) -> list[Boxed]:
    """Return the prompts of a worker's request."""
    return [Boxed(int(index), (left, top, right, bottom)) for index, left, top, right, bottom in request["prompts"]]
