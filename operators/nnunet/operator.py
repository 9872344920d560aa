"""nnU-Net as a step of a MONAI Deploy graph: a series in, labels on the same grid out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from operators.model_package import ModelPackage
from operators.nnunet.network import network, network_signature
from operators.nnunet.orientation import segment_series_volume
from operators.nnunet.plans import read_configuration
from operators.sdk import Fragment, Operator, OperatorSpec
from operators.series_volume import SeriesVolume
from operators.triton import TritonModel


class NnUNetOperator(Operator):
    """Find organs with an nnU-Net that a Triton serves.

    Input port ``series``: an ``operators.series_volume.SeriesVolume``, Hounsfield units.
    Output port ``labels``: a ``highdicom.Volume`` of uint8 labels with exactly the input volume's geometry.

    Parameters
    ----------
    package
        The model.
    triton_target
        Triton's gRPC address.
    request_seconds
        Deadline of one request.
    shared_memory
        Whether tensors go through shared memory.
    progress
        Told the tiles done and the tiles in all.
    """

    def __init__(
        self,
        fragment: Fragment,
        *args: Any,
        package: ModelPackage,
        triton_target: str,
        request_seconds: float,
        shared_memory: bool,
        progress: Callable[[int, int], None],
        **kwargs: Any,
    ) -> None:
        self._package = package
        self._configuration = read_configuration(package)
        self._triton_target = triton_target
        self._request_seconds = request_seconds
        self._shared_memory = shared_memory
        self._progress = progress
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports."""
        spec.input("series")
        spec.output("labels")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Receive the series, segment it, emit the labels."""
        series: SeriesVolume = op_input.receive("series")
        with TritonModel(
            self._triton_target,
            self._package.name,
            version=self._package.triton_version,
            deadline_seconds=self._request_seconds,
            shared_memory=self._shared_memory,
            signature=network_signature(self._configuration),
        ) as model:
            labels = segment_series_volume(series.volume, self._package, network(model), self._progress)
        op_output.emit(labels, "labels")
