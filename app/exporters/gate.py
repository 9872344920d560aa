"""The parity gate between torch and ONNX Runtime: what strays is refused, by class and by layer.

Runs in the exporter environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.errors import ImportRefused
from app.exporters.onnx_graphs import open_session, run
from app.exporters.parity import DERIVED, EXACT, Array, ClassFigures, Comparison, Limits, class_names, describe
from app.exporters.parting import find_swap, part_from_graph, part_from_torch

if TYPE_CHECKING:
    import torch

LARGE_BATCH = 3
"""Beside single patches, so many at once: a graph whose batch is not free gives itself away."""


@dataclass(frozen=True)
class Heads:
    """What the network's outputs and inputs are."""

    classes: tuple[str, ...]
    has_regions: bool
    image_channels: int
    """Channels of the input that are images; those after them are labels of a previous stage."""

    @classmethod
    def of(cls, dataset: Mapping[str, Any], image_channels: int) -> Heads:
        """Return those that ``dataset.json`` describes."""
        names, has_regions = class_names(dataset)
        return cls(names, has_regions, image_channels)

    def comparison(self) -> Comparison:
        """Return an empty comparison of such outputs."""
        return Comparison(self.classes, has_regions=self.has_regions)


def torch_logits(network: torch.nn.Module, volume: Array) -> Array:
    """Return the logits (class, …) that torch computes for one volume (channel, …)."""
    import torch

    with torch.inference_mode():
        logits: Array = network(torch.from_numpy(volume[None]))[0].numpy()
    return logits


def judge_fold(
    what: str,
    network: torch.nn.Module,
    graph: Path,
    volumes: Mapping[str, Array],
    expected: Mapping[str, Array],
    heads: Heads,
) -> Comparison:
    """Compare one fold's graph with the network it was traced from, volume by volume.

    Parameters
    ----------
    what
        How a refusal calls it.
    expected
        torch's logits of each volume.

    Raises
    ------
    ImportRefused
        ``parity-refused``, naming the class and where both first part.
    """
    session = open_session(graph)
    comparison = heads.comparison()
    for name, volume in volumes.items():
        comparison.add(name, expected[name], run(session, volume[None])[0])
    worst = comparison.worst(EXACT)
    if worst is not None:
        volume = volumes[worst.worst_volume]
        swap = find_swap(lambda batch: run(session, batch), expected["noise"], volumes["noise"], heads.image_channels)
        parting = part_from_torch(network, graph, volume[None])
        raise refusal(what, worst, EXACT, swap, parting)
    return comparison


def judge_graph(
    what: str, graph: Path, volumes: Mapping[str, Array], expected: Mapping[str, Array], heads: Heads
) -> Comparison:
    """Compare the graph that will be served with torch's logits: each volume alone, then several at once.

    Raises
    ------
    ImportRefused
        ``parity-refused``, naming the class.
    """
    session = open_session(graph)
    comparison = heads.comparison()
    for name, volume in volumes.items():
        comparison.add(name, expected[name], run(session, volume[None])[0])
    names = list(volumes)[:LARGE_BATCH]
    answers = run(session, np.stack([volumes[name] for name in names]))
    for name, answer in zip(names, answers, strict=True):
        comparison.add(f"{name}, in a batch of {LARGE_BATCH}", expected[name], answer)
    worst = comparison.worst(EXACT)
    if worst is not None:
        raise refusal(
            what, worst, EXACT, None, "each fold alone agrees, so they part where folds or batches are joined"
        )
    return comparison


def judge_derived(what: str, reference: Path, derived: Path, volumes: Mapping[str, Array], heads: Heads) -> Comparison:
    """Compare a graph with the one it was derived from; it is run as it is written, nothing fused.

    Raises
    ------
    ImportRefused
        ``parity-refused``, naming the class and where both first part.
    """
    one, other = open_session(reference), open_session(derived, as_written=True)
    comparison = heads.comparison()
    for name, volume in volumes.items():
        comparison.add(name, run(one, volume[None])[0], run(other, volume[None])[0])
    worst = comparison.worst(DERIVED)
    if worst is not None:
        parting = part_from_graph(reference, derived, volumes[worst.worst_volume][None])
        raise refusal(what, worst, DERIVED, None, parting)
    return comparison


def refusal(
    what: str, figures: ClassFigures, limits: Limits, swap: str | None, parting: object | None
) -> ImportRefused:
    """Return the error that says who strays, by how much, and where it begins."""
    hints: Sequence[str] = [str(hint) for hint in (swap, parting) if hint is not None]
    return ImportRefused(
        f"{what} does not compute what was trained, and nothing is published. {describe(figures, limits)}"
        + "".join(f"; {hint}" for hint in hints),
        code="parity-refused",
    )
