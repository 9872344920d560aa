"""One finding, and the objects of all the kinds that are wanted of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import highdicom

from operators.nnunet.probability_maps import kept_probabilities
from operators.object_kinds import REPORTED, REPORTS, Kind
from operators.results.binary import write_binary
from operators.results.capture import write_captures
from operators.results.display import suitable_window
from operators.results.finding import Finding, WrittenObject
from operators.results.fractional import write_fractional
from operators.results.labelmap import write_labelmap
from operators.results.presentation_state import write_presentation_state
from operators.results.report import write_report
from operators.results.structure_set import write_structure_set

Written = dict[Kind, tuple[WrittenObject, ...]]
"""By kind; pictures are several."""
Writer = Callable[[Finding, Path], WrittenObject]
_WRITERS: Mapping[Kind, Writer] = {
    "segmentation": write_binary,
    "labelmap": write_labelmap,
    "structure-set": write_structure_set,
    "presentation-state": write_presentation_state,
}


def write_results(
    finding: Finding, kinds: Sequence[Kind], folder: Path, *, prefix: str = "", probabilities: Path | None = None
) -> Written:
    """Write the objects of `kinds` into `folder`, as ``<prefix><kind>.dcm``, and return what was written.

    Parameters
    ----------
    kinds
        Without the object that a report refers to, it refers to none.
    probabilities
        What `operators.nnunet.probability_maps` kept of the same finding; where there is none, neither is a
        ``fractional``.

    Raises
    ------
    OperatorError
        As the writers do.
    """
    written: Written = {}
    wanted = [kind for kind in kinds if kind != "fractional" or probabilities is not None]
    for kind in sorted(wanted, key=REPORTS.__contains__):
        path = folder / f"{prefix}{kind}.dcm"
        if kind in REPORTS:
            (referred,) = written.get(REPORTED.get(kind, kind), (None,))
            written[kind] = (write_report(finding, referred, path, kind=kind),)
        elif kind == "capture":
            written[kind] = write_captures(finding, folder, suitable_window(finding.series), prefix=prefix)
        elif kind == "fractional" and probabilities is not None:
            written[kind] = (write_fractional(finding, _volumes(finding, probabilities), path),)
        else:
            written[kind] = (_WRITERS[kind](finding, path),)
    return {kind: written[kind] for kind in wanted}


def _volumes(finding: Finding, probabilities: Path) -> Iterator[tuple[int, highdicom.Volume]]:
    values = sorted(segment.label_value for segment in finding.segments)
    for value, array in zip(values, kept_probabilities(probabilities), strict=True):
        yield value, finding.series.volume.with_array(array)
