"""What is remembered of the slices behind, for one object that is followed in one direction.

Only what can still be used is kept: of the prompted slices all, of the others the last six memories and the last
fifteen pointers, however long the series is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from operators.sam.memory_contract import MemoryContract

_HALF = np.uint32(0x7FFF)
_SIXTEEN = np.uint32(16)
_Kept = TypeVar("_Kept")


@dataclass(frozen=True)
class Remembered:
    """What one slice left behind."""

    memory: NDArray[np.uint16]
    """(tokens, channels), `shortened`: half the space, and what the model's own code keeps."""
    pointer: NDArray[np.float32]
    """(C,)."""


@dataclass(frozen=True)
class Recalled:
    """What the attention to the memory is given for one slice, oldest memory first."""

    memories: NDArray[np.float32]
    """(m, tokens, channels)."""
    steps: NDArray[np.float32]
    """(m,), slices back; of a prompted slice ``memories`` of the contract, wherever it lies."""
    pointers: NDArray[np.float32]
    """(p, C)."""
    distances: NDArray[np.float32]
    """(p,), slices back by the most that there can be."""


class MemoryBank:
    """The memory of one object in one direction.

    Parameters
    ----------
    prompted
        By slice, what the prompted slices left behind.
    slices
        Of the whole series, whether they are followed or not: distances are measured by it.
    """

    def __init__(
        self, contract: MemoryContract, prompted: Mapping[int, Remembered], slices: int, *, backwards: bool
    ) -> None:
        self._contract = contract
        self._prompted = prompted
        self._backwards = backwards
        self._most_pointers = min(slices, contract.pointers)
        self._memories: deque[tuple[int, NDArray[np.uint16]]] = deque(maxlen=contract.memories - 1)
        self._pointers: deque[tuple[int, NDArray[np.float32]]] = deque(maxlen=contract.pointers - 1)

    def add(self, index: int, remembered: Remembered) -> None:
        """Take in what the slice `index` left behind; the oldest is forgotten."""
        self._memories.append((index, remembered.memory))
        self._pointers.append((index, remembered.pointer))

    def recall(self, index: int) -> Recalled:
        """Return what is remembered where the slice `index` is looked at."""
        aged = [(self._contract.memories, one.memory) for one in self._prompted.values()]
        aged += [
            (back, memory) for back, memory in self._behind(index, self._memories) if back < self._contract.memories
        ]
        pointers = [
            (abs(index - one), remembered.pointer)
            for one, remembered in self._prompted.items()
            if self._steps_back(index, one) >= 0
        ]
        behind = [
            (back, pointer) for back, pointer in self._behind(index, self._pointers) if back < self._most_pointers
        ]
        pointers += reversed(behind)
        distances = np.array([back for back, _ in pointers], np.float32)
        return Recalled(
            memories=lengthened(np.stack([memory for _, memory in aged])),
            steps=np.array([steps for steps, _ in aged], np.float32),
            pointers=np.stack([pointer for _, pointer in pointers]),
            distances=distances / np.float32(self._most_pointers - 1),
        )

    def _behind(self, index: int, kept: deque[tuple[int, _Kept]]) -> list[tuple[int, _Kept]]:
        return [(self._steps_back(index, one), value) for one, value in kept]

    def _steps_back(self, index: int, other: int) -> int:
        return other - index if self._backwards else index - other


def shortened(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the upper halves of single-precision numbers (bfloat16), rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + _HALF + (bits >> _SIXTEEN & np.uint32(1))) >> _SIXTEEN).astype(np.uint16)


def lengthened(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the single-precision numbers whose upper halves are given."""
    return (halves.astype(np.uint32) << _SIXTEEN).view(np.float32)
