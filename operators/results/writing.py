"""One finding, and the objects of all the kinds that are wanted of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from operators.object_kinds import Kind
from operators.results.binary import write_binary
from operators.results.finding import Finding, WrittenObject

Writer = Callable[[Finding, Path], WrittenObject]


def write_results(
    finding: Finding, kinds: Sequence[Kind], folder: Path, *, prefix: str = ""
) -> dict[Kind, WrittenObject]:
    """Write an object of each of `kinds` into `folder`, as ``<prefix><kind>.dcm``, and return what was written.

    Raises
    ------
    OperatorError
        As the writers do.
    """
    return {kind: _WRITERS[kind](finding, folder / f"{prefix}{kind}.dcm") for kind in kinds}


_WRITERS: Mapping[Kind, Writer] = {"segmentation": write_binary}
