"""The operator that reads a series: the source of the graph.

It is apart from the reading itself, which also runs where the SDK is not loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from operators.gate.gate import Gate
from operators.sdk import Fragment, Operator, OperatorSpec
from operators.series_volume import Progress, read_channels, read_series

_DEFAULT_GATE = Gate()


class SeriesVolumeOperator(Operator):
    """Read the series: the source of the graph, so give it a ``CountCondition`` of 1.

    Output port ``series``: a `SeriesVolume`.

    Parameters
    ----------
    inputs
        Name and instances of each channel, in the model's order; of a single one the name does not matter.
    progress
        Called after each instance.
    gate
        What the model wants of the series.
    """

    def __init__(
        self,
        fragment: Fragment,
        *args: Any,
        inputs: Mapping[str, Sequence[Path]],
        progress: Progress | None = None,
        gate: Gate = _DEFAULT_GATE,
        **kwargs: Any,
    ) -> None:
        self._inputs = dict(inputs)
        self._gate = gate
        self._progress = progress
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the port."""
        spec.output("series")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Read the series and emit it."""
        if len(self._inputs) == 1:
            (files,) = self._inputs.values()
            series = read_series(files, self._progress, self._gate)
        else:
            series = read_channels(self._inputs, self._progress, self._gate)
        op_output.emit(series, "series")
