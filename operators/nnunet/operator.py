"""nnU-Net as a step of a MONAI Deploy graph: a series in, labels on the same grid out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from operators.model_package import ModelPackage
from operators.nnunet.network import ServedNetwork, open_network
from operators.nnunet.orientation import segment_series_volume
from operators.nnunet.plans import read_configuration
from operators.nnunet.probability_maps import ProbabilityMaps
from operators.sdk import Fragment, Operator, OperatorSpec
from operators.series_volume import SeriesVolume


class NnUNetOperator(Operator):
    """Find organs with an nnU-Net that a Triton serves.

    Input port ``series``: an ``operators.series_volume.SeriesVolume``, its channels in the model's order.
    Output port ``labels``: a ``highdicom.Volume`` of labels (uint8, or uint16 beyond 254) with exactly the input
    volume's geometry.

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
    scratch_folder
        Where an ensemble keeps logits while it runs; the system's temporary folder if not given.
    probabilities_path
        Where to keep how sure the model is of each label (`ProbabilityMaps`); it is not kept if not given.
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
        scratch_folder: Path | None = None,
        probabilities_path: Path | None = None,
        **kwargs: Any,
    ) -> None:
        self._package = package
        self._triton_target = triton_target
        self._request_seconds = request_seconds
        self._shared_memory = shared_memory
        self._progress = progress
        self._scratch_folder = scratch_folder
        self._probabilities_path = probabilities_path
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports."""
        spec.input("series")
        spec.output("labels")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Receive the series, segment it, emit the labels."""
        series: SeriesVolume = op_input.receive("series")
        with contextlib.ExitStack() as stack:
            networks = {}
            for network in self._package.all_networks:
                model = stack.enter_context(
                    open_network(
                        network,
                        self._triton_target,
                        deadline_seconds=self._request_seconds,
                        shared_memory=self._shared_memory,
                    )
                )
                networks[network.name] = ServedNetwork(model, read_configuration(network))
            labels = segment_series_volume(
                series.channels,
                self._package,
                networks,
                self._progress,
                self._scratch_folder,
                None if self._probabilities_path is None else ProbabilityMaps(self._probabilities_path),
            )
        op_output.emit(labels, "labels")
