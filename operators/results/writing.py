"""One finding, and the objects of all the kinds that are wanted of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from operators.object_kinds import Kind
from operators.results.finding import Finding
from operators.segmentation_writer import WrittenObject, write_segmentation

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


def _write_segmentation(finding: Finding, path: Path) -> WrittenObject:
    return write_segmentation(
        finding.labels,
        finding.series,
        finding.segments,
        finding.algorithm,
        identity=finding.identity,
        series_description=finding.series_description,
        path=path,
        is_automatic=finding.is_automatic,
        prompted_by=finding.prompted_by,
    )


_WRITERS: Mapping[Kind, Writer] = {"segmentation": _write_segmentation}
