"""The operator that writes the objects of a finding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import highdicom

from operators.object_kinds import Kind
from operators.results.finding import Algorithm, Finding, ReplacedObject
from operators.results.writing import write_results
from operators.sdk import Fragment, Operator, OperatorSpec
from operators.segments import SegmentSpec
from operators.series_volume import SeriesVolume


class ResultsWriterOperator(Operator):
    """Write what a model found as DICOM objects.

    Input ports ``series``: a `SeriesVolume`; ``labels``: a ``highdicom.Volume`` of uint8 or uint16 on its grid.
    Output port ``written``: what was written, by its kind.

    Parameters
    ----------
    segments, algorithm, identity, series_description, replaces
        As in `Finding`.
    kinds
        What to write.
    folder
        Where to.
    progress
        Called before and after.
    probabilities_path
        Where the model has kept its probabilities, if it has.
    """

    def __init__(
        self,
        fragment: Fragment,
        *args: Any,
        segments: Sequence[SegmentSpec],
        algorithm: Algorithm,
        identity: str,
        series_description: str,
        kinds: Sequence[Kind],
        folder: Path,
        progress: Callable[[int, int], None],
        probabilities_path: Path | None = None,
        replaces: Sequence[ReplacedObject] = (),
        **kwargs: Any,
    ) -> None:
        self._segments = tuple(segments)
        self._algorithm = algorithm
        self._identity = identity
        self._series_description = series_description
        self._kinds = tuple(kinds)
        self._folder = folder
        self._progress = progress
        self._probabilities_path = probabilities_path
        self._replaces = tuple(replaces)
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports."""
        spec.input("series")
        spec.input("labels")
        spec.output("written")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Receive series and labels, write, emit what was written."""
        series: SeriesVolume = op_input.receive("series")
        labels: highdicom.Volume = op_input.receive("labels")
        self._progress(0, 1)
        finding = Finding(
            labels,
            series,
            self._segments,
            self._algorithm,
            self._identity,
            self._series_description,
            replaces=self._replaces,
        )
        written = write_results(finding, self._kinds, self._folder, probabilities=self._probabilities_path)
        self._progress(1, 1)
        op_output.emit(written, "written")
