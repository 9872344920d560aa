"""What is measured: slices of a real CT, and boxes around what its reference labels show on them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.folders import CACHE, REPOSITORY_ROOT
from benchmarks.sam.rounds import Boxed
from operators.sam.windowing import named_window, to_bytes
from operators.series_volume import read_series

_LEAST_PIXELS = 100
"""Of a structure on a slice, to be prompted."""


@dataclass(frozen=True)
class Case:
    """So many slices, and so many prompts on each."""

    name: str
    title: str
    slices: int
    prompts: int
    """On each slice, at most: on the largest structures."""
    rounds: int


ABDOMEN = Case("abdomen", "10 slices of 512x512 of a real CT, 8 boxes on each", slices=10, prompts=8, rounds=3)
QUICK = Case("quick", "3 slices of 512x512 of a real CT, 6 boxes on each", slices=3, prompts=6, rounds=1)


@dataclass(frozen=True)
class Task:
    """What all systems are asked."""

    series: Path
    """The folder of the CT's files."""
    slices: list[int]
    """Those of the CT's slices that are asked about, in the order of `operators.series_volume`."""
    images: NDArray[np.uint8]
    """They, (slice, row, column), as a window of soft tissue shows them."""
    prompts: list[Boxed]
    """By slice, counted from 0 among `slices`."""


def read_case(case: Case, series: Path) -> Task:
    """Return what a case asks; `series` is a folder for the CT's files."""
    sys.path.append(str(REPOSITORY_ROOT / "deploy" / "demo"))
    from abdominal_ct import fetch, reference_labels, write_series

    source = fetch(CACHE.parent)
    volume = read_series(write_series(source, series)).volume
    labels = reference_labels(source)[::-1]  # the volume's slices descend in z
    chosen = np.linspace(0, len(labels) - 1, case.slices).round().astype(int)
    images = to_bytes(volume.array[chosen], named_window("soft-tissue"))
    prompts = [prompt for number, index in enumerate(chosen) for prompt in _boxes(number, labels[index], case)]
    return Task(series, chosen.tolist(), images, prompts)


def _boxes(number: int, labels: NDArray[np.uint8], case: Case) -> list[Boxed]:
    """The boxes around the largest structures of a slice."""
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    largest = [int(label) for label in np.argsort(-areas, kind="stable")[: case.prompts]]
    return [_box(number, labels == label) for label in largest if areas[label] >= _LEAST_PIXELS]


def _box(number: int, structure: NDArray[np.bool_]) -> Boxed:
    rows, columns = np.flatnonzero(structure.any(axis=1)), np.flatnonzero(structure.any(axis=0))
    return Boxed(number, (float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])))
