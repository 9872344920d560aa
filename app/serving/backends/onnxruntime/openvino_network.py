"""An ONNX file run by OpenVINO instead of ONNX Runtime, in single precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openvino
from numpy.typing import NDArray


class OpenVinoNetwork:
    """One compiled network; lengths that the file leaves open, such as the batch's, stay open.

    Parameters
    ----------
    path
        The ONNX file.
    threads
        How many compute; 0 for one a core.
    """

    def __init__(self, path: Path, threads: int) -> None:
        properties: dict[str, Any] = {
            # on a CPU that has bfloat16 the default would compute in it, which is too coarse for logits
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": 1,
            # each process would pin its threads to the same first cores, and then they would share them
            "ENABLE_CPU_PINNING": False,
        }
        if threads:
            properties["INFERENCE_NUM_THREADS"] = threads
        self._compiled = openvino.Core().compile_model(path, "CPU", properties)
        self._request = self._compiled.create_infer_request()
        self.inputs = [tensor.any_name for tensor in self._compiled.inputs]

    def run(self, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]], *, keep: bool) -> list[NDArray[Any]]:
        """Return the named outputs for `feed`: arrays of their own if `keep`, else valid until the next run."""
        found = self._request.infer(dict(feed), share_inputs=True, share_outputs=not keep)
        return [found[self._compiled.output(name)] for name in outputs]

    @staticmethod
    def version() -> str:
        """Which OpenVINO runs."""
        return f"openvino {openvino.__version__}"
