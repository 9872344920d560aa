"""A slot: where the tensors of one request lie while it is on its way, and of one after the other."""

from __future__ import annotations

import queue
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from operators.errors import InferenceFailed
from operators.shared_memory import Region, SharedMemoryUnusable
from operators.tensors import Signature, TensorSpec
from operators.triton_connection import CHECK_SECONDS, ModelVersion, errors_named, input_tensor

Array = NDArray[Any]
Rows = Array | Sequence[Array]
"""One input's values: an array, or what lies along its first axis, one array each, of one type and shape."""

_GRACE_SECONDS = 5.0
"""How much later than gRPC we give up; it should never be needed."""


def spec_of(rows: Rows) -> TensorSpec:
    """Return the element type and the shape of the array that `rows` make.

    Raises
    ------
    ValueError
        If there are none, or they differ.
    """
    if isinstance(rows, np.ndarray):
        return TensorSpec(rows.dtype, rows.shape)
    specs = {TensorSpec(row.dtype, row.shape) for row in rows}
    if len(specs) != 1:
        raise ValueError(f"expected rows of one type and shape, got {sorted(map(str, specs)) or 'none'}")
    (spec,) = specs
    return TensorSpec(spec.dtype, (len(rows), *spec.shape))


class Slot:
    """The place of one request at a time. Its regions are made when they are first needed, reused, and may grow.

    Parameters
    ----------
    client
        The connection.
    model
        What is asked.
    signature
        What the model takes and gives.
    """

    def __init__(self, client: Any, model: ModelVersion, signature: Signature) -> None:
        self._client = client
        self._model = model
        self._signature = signature
        self._regions: dict[str, Region] = {}
        self._shared: dict[str, Region] = {}
        self._expected: Mapping[str, TensorSpec] = {}
        self._wait_seconds = 0.0
        self._call: Any = None
        self._answers: queue.SimpleQueue[tuple[Any, InferenceServerException | None]] = queue.SimpleQueue()

    def send(self, inputs: Mapping[str, Rows], *, length: int, shared_memory: bool, deadline_seconds: float) -> None:
        """Copy the rows to where the server finds them, and send the request; its answer is not waited for.

        Parameters
        ----------
        inputs
            What fits the signature.
        length
            The length of the batch.
        shared_memory
            Whether tensors go through shared memory.
        deadline_seconds
            Longest wait for the answer.

        Raises
        ------
        SharedMemoryUnusable
            If a region can't be had, or the server can't open it; nothing was sent.
        InferenceFailed
            If the server is gone.
        """
        self._expected = {name: spec.of_batch(length) for name, spec in self._signature.outputs.items()}
        self._shared = {}
        tensors = [self._input(name, rows, shared_memory=shared_memory) for name, rows in inputs.items()]
        outputs = [self._output(name, shared_memory=shared_memory) for name in self._expected]
        answers: queue.SimpleQueue[tuple[Any, InferenceServerException | None]] = queue.SimpleQueue()
        self._answers = answers  # one a request: what a cancelled one says late is for nobody
        self._wait_seconds = deadline_seconds + _GRACE_SECONDS
        with errors_named(self._model.name):
            self._call = self._client.async_infer(
                self._model.name,
                tensors,
                lambda result, error: answers.put((result, error)),
                model_version=self._model.version,
                outputs=outputs,
                request_id=secrets.token_hex(8),
                client_timeout=deadline_seconds,
            )

    def answer(self) -> dict[str, Array]:
        """Wait for the answer and return it by name: views of the regions, valid until the slot is used again.

        Raises
        ------
        InferenceFailed
            If none came, or not the one that was announced. The slot must then be cancelled.
        """
        if self._call is None:
            raise InferenceFailed("the handle was closed before the answer came", code="triton-unreachable")
        with errors_named(self._model.name):
            try:
                result, error = self._answers.get(timeout=self._wait_seconds)
            except queue.Empty:
                error = InferenceServerException("no answer and no error", "StatusCode.DEADLINE_EXCEEDED")
            if error is not None:
                raise error
        found = {name: self._found(name, result) for name in self._expected}
        self._call = None
        return found

    def cancel(self) -> None:
        """Call off the request, if there is one, without waiting for anything. The slot may be used again."""
        call, self._call = self._call, None
        if call is None:
            return
        call.cancel()
        # the server may still be computing: what it writes late must not land in the next answer, and it does not let
        # go of a region that it uses; the regions are left to it, and let go when this process is gone
        for region in self._regions.values():
            region.close()
        self._regions = {}

    def close(self) -> None:
        """Call off the request and remove the shared memory. May be called twice."""
        self.cancel()
        regions, self._regions = self._regions, {}
        for region in regions.values():
            self._forget(region)

    def _input(self, name: str, rows: Rows, *, shared_memory: bool) -> Any:
        spec = spec_of(rows)
        tensor = input_tensor(name, spec)
        if not shared_memory or not spec.size:  # no region can be empty
            tensor.set_data_from_numpy(np.ascontiguousarray(rows))
            return tensor
        region = self._region(f"input {name}", spec.size)
        place = region.view(spec.dtype, spec.shape)
        if isinstance(rows, np.ndarray):
            place[...] = rows
        else:
            for index, row in enumerate(rows):
                place[index] = row
        tensor.set_shared_memory(region.name, spec.size)
        return tensor

    def _output(self, name: str, *, shared_memory: bool) -> Any:
        """Outputs of known size come back through shared memory; others through gRPC."""
        output = grpcclient.InferRequestedOutput(name)
        spec = self._expected[name]
        if shared_memory and -1 not in spec.shape:
            self._shared[name] = self._region(f"output {name}", spec.size)
            output.set_shared_memory(self._shared[name].name, spec.size)
        return output

    def _found(self, name: str, result: Any) -> Array:
        spec, described = self._expected[name], result.get_output(name)
        if described is None:
            raise self._model.mismatch(f"the answer lacks output {name}")
        dtype, shape = np.dtype(triton_to_np_dtype(described.datatype)), tuple(described.shape)
        if not spec.admits(dtype, shape):
            raise self._model.mismatch(f"output {name} is {dtype} {list(shape)}, expected {spec}")
        if name in self._shared:
            return self._shared[name].view(dtype, shape)
        values: Array = result.as_numpy(name)
        return values

    def _region(self, use: str, size: int) -> Region:
        """The region for one tensor, made anew only when it grows."""
        region = self._regions.get(use)
        if region is not None and region.size >= size:
            return region
        if region is not None:
            self._forget(self._regions.pop(use))
        region = self._regions[use] = Region(size)
        try:
            with errors_named(self._model.name):
                self._client.register_system_shared_memory(
                    region.name, f"/{region.name}", size, client_timeout=CHECK_SECONDS
                )
        except InferenceFailed as error:
            if error.code != "inference-refused":
                raise
            raise SharedMemoryUnusable(str(error)) from error
        return region

    def _forget(self, region: Region) -> None:
        try:
            self._client.unregister_system_shared_memory(region.name, client_timeout=CHECK_SECONDS)
        except InferenceServerException:
            pass  # the server is gone or restarted, and its registrations with it
        finally:
            region.close()
