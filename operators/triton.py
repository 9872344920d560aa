"""The one door to Triton: a typed handle on one version of one model, over gRPC.

What goes through it are arrays, and nothing else: no attribute of a patient, study or instance, and the request
identifiers are random. On one host tensors pass through shared memory, which costs a tenth of gRPC's copies; its
regions are private to this user, made once, reused, and named after the process so that those of a killed one can be
found and removed (`operators.shared_memory`).
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, triton_to_np_dtype

from operators.errors import InferenceFailed
from operators.shared_memory import Region, SharedMemoryUnusable, is_stale
from operators.tensors import Signature, TensorSpec

Array = NDArray[Any]

PROBE_MODEL = "limner_probe"
"""A model that adds one to four numbers: a probe of it goes the whole way through the server and a backend."""
_CONNECT_SECONDS = 15.0
_CHECK_SECONDS = 10.0
_POLL_SECONDS = 0.2
_CHANNEL_ARGUMENTS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # a channel of its own: connections shared within the process would also share the back-off after a restart
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
]


class TritonModel:
    """One version of one model on a Triton, as a context manager. Not for use from several threads at once.

    Parameters
    ----------
    target
        Triton's gRPC address, ``host:port`` or ``unix:/path``.
    model
        The model's name in the repository.
    version
        The version that must answer; another one is never used in its place.
    deadline_seconds
        Longest wait for one answer.
    shared_memory
        Pass tensors through shared memory where the Triton is on this host; elsewhere they go through gRPC.
    signature
        What the model must take and give; checked at the start, so that a wrong model fails before any work is done.

    Raises
    ------
    InferenceFailed
        On entry: ``triton-unreachable``, ``model-missing`` or ``model-mismatch``.
    """

    def __init__(
        self,
        target: str,
        model: str,
        *,
        version: str,
        deadline_seconds: float,
        shared_memory: bool,
        signature: Signature | None = None,
    ) -> None:
        self._target = target
        self._model = model
        self._version = version
        self._deadline_seconds = deadline_seconds
        self._shared_memory = shared_memory
        self._expected = signature
        self._client: Any = None
        self._regions: dict[str, Region] = {}
        self._signature = Signature({}, {})

    @property
    def signature(self) -> Signature:
        """What the server says the model takes and gives; empty before entry."""
        return self._signature

    def __enter__(self) -> TritonModel:
        self._client = _connect(self._target)
        try:
            self._wait_until_ready()
            self._signature = self._read_signature()
            self._check_signature()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection and remove the shared memory. May be called twice."""
        self._forget_all()
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the model's outputs for `inputs`, by name. The arrays stay what they are; they may be read-only.

        Raises
        ------
        InferenceFailed
            ``model-mismatch`` if an array does not fit or an answer is not what was announced, ``deadline`` if none
            came in time, ``model-process-died`` if the server lost the model's process, ``triton-unreachable`` if
            the server is gone, ``inference-refused`` if it answered with another error.
        """
        if self._client is None:
            raise InferenceFailed("the handle is closed; use it as a context manager", code="triton-unreachable")
        self._check_inputs(inputs)
        arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        outputs = self._send(arrays)
        for name, array in outputs.items():
            if not self._signature.outputs[name].admits(array.dtype, array.shape):
                raise self._mismatch(f"output {name} is {array.dtype} {list(array.shape)}")
        return outputs

    # --- at the start ---

    def _wait_until_ready(self) -> None:
        """A server that is just starting again gets a while; one that says it lacks the model does not."""
        end = time.monotonic() + min(_CONNECT_SECONDS, self._deadline_seconds)
        while not self._is_server_ready(give_up=time.monotonic() > end):
            time.sleep(_POLL_SECONDS)
        with _errors_named(self._model):
            ready = self._client.is_model_ready(self._model, self._version, client_timeout=_CHECK_SECONDS)
        if not ready:
            raise InferenceFailed(
                f"Triton at {self._target} does not serve model {self._model} version {self._version}; "
                "check its model repository and its log",
                code="model-missing",
            )

    def _is_server_ready(self, *, give_up: bool) -> bool:
        try:
            with _errors_named(self._model):
                ready = bool(self._client.is_server_ready(client_timeout=_CHECK_SECONDS))
        except InferenceFailed as error:
            if give_up or error.code != "triton-unreachable":
                raise
            return False
        if give_up and not ready:
            raise InferenceFailed(f"Triton at {self._target} says it is not ready", code="triton-unreachable")
        return ready

    def _read_signature(self) -> Signature:
        with _errors_named(self._model):
            metadata = self._client.get_model_metadata(self._model, self._version, client_timeout=_CHECK_SECONDS)
        if metadata.name != self._model or self._version not in metadata.versions:
            raise self._mismatch(f"the server answers for {metadata.name}, versions {list(metadata.versions)}")
        return Signature(_specs(metadata.inputs), _specs(metadata.outputs))

    def _check_signature(self) -> None:
        if self._expected is None:
            return
        for kind, expected, actual in (
            ("input", self._expected.inputs, self._signature.inputs),
            ("output", self._expected.outputs, self._signature.outputs),
        ):
            if set(expected) != set(actual):
                raise self._mismatch(f"expected the {kind}s {sorted(expected)}, the server has {sorted(actual)}")
            for name, spec in expected.items():
                if spec != actual[name]:
                    raise self._mismatch(f"expected {kind} {name} to be {spec}, the server has {actual[name]}")

    def _check_inputs(self, inputs: Mapping[str, Array]) -> None:
        if set(inputs) != set(self._signature.inputs):
            raise self._mismatch(f"it takes the inputs {sorted(self._signature.inputs)}, got {sorted(inputs)}")
        for name, array in inputs.items():
            spec = self._signature.inputs[name]
            if not spec.admits(array.dtype, array.shape):
                raise self._mismatch(f"input {name} must be {spec}, got {array.dtype} {list(array.shape)}")

    def _mismatch(self, what: str) -> InferenceFailed:
        return InferenceFailed(f"model {self._model} version {self._version}: {what}", code="model-mismatch")

    # --- one request ---

    def _send(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        if self._shared_memory:
            try:
                return self._infer_through_shared_memory(arrays)
            except SharedMemoryUnusable:
                # Triton is on another host, or /dev/shm is small: slower from here on, not broken
                self._shared_memory = False
                self._forget_all()
        return self._infer_through_grpc(arrays)

    def _request(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        with _errors_named(self._model):
            return self._client.infer(
                self._model,
                inputs,
                model_version=self._version,
                outputs=outputs,
                request_id=secrets.token_hex(8),
                client_timeout=self._deadline_seconds,
            )

    def _infer_through_grpc(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        inputs = []
        for name, array in arrays.items():
            tensor = _input(name, array)
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        answer = self._request(inputs, [grpcclient.InferRequestedOutput(name) for name in self._signature.outputs])
        return {name: answer.as_numpy(name) for name in self._signature.outputs}

    def _infer_through_shared_memory(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of known size come back through shared memory; others through gRPC."""
        inputs, outputs, shared = [], [], {}
        for name, array in arrays.items():
            region = self._region(f"input {name}", array.nbytes)
            region.view(array.dtype, array.shape)[...] = array
            tensor = _input(name, array)
            tensor.set_shared_memory(region.name, array.nbytes)
            inputs.append(tensor)
        batch = next((array.shape[0] for array in arrays.values() if array.ndim), 1)
        for name, spec in self._signature.outputs.items():
            output = grpcclient.InferRequestedOutput(name)
            shape = (batch, *spec.shape[1:]) if spec.shape[:1] == (-1,) else spec.shape
            if -1 not in shape:
                size = math.prod(shape) * spec.dtype.itemsize
                shared[name] = self._region(f"output {name}", size)
                output.set_shared_memory(shared[name].name, size)
            outputs.append(output)
        try:
            answer = self._request(inputs, outputs)
        except InferenceFailed:
            # the server may still be computing: what it writes late must not land in the next answer, and to take a
            # region away while it is used could end the server; it lets go of them when this process is gone
            self._abandon_regions()
            raise
        results = {}
        for name, spec in self._signature.outputs.items():
            described = answer.get_output(name)
            if name in shared:
                results[name] = shared[name].view(spec.dtype, tuple(described.shape)).copy()
            else:
                results[name] = answer.as_numpy(name)
        return results

    # --- shared memory ---

    def _region(self, use: str, size: int) -> Region:
        """The region for one tensor, made anew only when it grows."""
        region = self._regions.get(use)
        if region is not None and region.size >= size:
            return region
        if region is not None:
            self._forget(self._regions.pop(use))
        region = self._regions[use] = Region(size)
        try:
            with _errors_named(self._model):
                self._client.register_system_shared_memory(
                    region.name, f"/{region.name}", size, client_timeout=_CHECK_SECONDS
                )
        except InferenceFailed as error:
            if error.code != "inference-refused":
                raise
            raise SharedMemoryUnusable(str(error)) from error
        return region

    def _abandon_regions(self) -> None:
        regions, self._regions = self._regions, {}
        for region in regions.values():
            region.close()

    def _forget_all(self) -> None:
        regions, self._regions = self._regions, {}
        for region in regions.values():
            self._forget(region)

    def _forget(self, region: Region) -> None:
        try:
            self._client.unregister_system_shared_memory(region.name, client_timeout=_CHECK_SECONDS)
        except InferenceServerException:
            pass  # the server is gone or restarted, and its registrations with it
        finally:
            region.close()


def probe(target: str, *, deadline_seconds: float) -> None:
    """Let a Triton compute something tiny and check the sum: what says "ready" may still be unable to infer.

    Raises
    ------
    InferenceFailed
        If it can't be reached, does not answer in time, or answers wrongly (``probe-wrong``).
    """
    end = time.monotonic() + deadline_seconds
    numbers = np.random.default_rng().integers(-1000, 1000, 4).astype(np.float32)
    tensor = _input("numbers", numbers)
    tensor.set_data_from_numpy(numbers)
    client = _connect(target)
    try:
        with _errors_named(PROBE_MODEL):
            answer = client.infer(
                PROBE_MODEL,
                [tensor],
                request_id=secrets.token_hex(8),
                client_timeout=max(end - time.monotonic(), 0.1),
            )
        found = answer.as_numpy("numbers_plus_one")
    finally:
        client.close()
    if found is None or not np.array_equal(found, numbers + 1):
        raise InferenceFailed(f"Triton at {target} can't add one to four numbers", code="probe-wrong")


def unregister_stale_regions(target: str, *, deadline_seconds: float) -> list[str]:
    """Let a Triton drop its hold on the shared memory of processes that no longer run, and return the names.

    Raises
    ------
    InferenceFailed
        If it can't be reached or does not answer in time.
    """
    client = _connect(target)
    try:
        with _errors_named(PROBE_MODEL):
            status = client.get_system_shared_memory_status(client_timeout=deadline_seconds)
            stale = [name for name in status.regions if is_stale(name)]
            for name in stale:
                client.unregister_system_shared_memory(name, client_timeout=deadline_seconds)
    finally:
        client.close()
    return stale


def _connect(target: str) -> Any:
    return grpcclient.InferenceServerClient(target, channel_args=_CHANNEL_ARGUMENTS)


def _input(name: str, array: Array) -> Any:
    return grpcclient.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))


def _specs(tensors: Sequence[Any]) -> dict[str, TensorSpec]:
    return {
        tensor.name: TensorSpec(np.dtype(triton_to_np_dtype(tensor.datatype)), tuple(tensor.shape))
        for tensor in tensors
    }


@contextmanager
def _errors_named(model: str) -> Iterator[None]:
    """Turn the client's one exception into ours, told apart by gRPC status and message."""
    try:
        yield
    except InferenceServerException as error:
        status, message = str(error.status()), str(error.message())
        if "Stub process" in message and "is not healthy" in message:
            # the server says so at every request from now on, and never starts the process again by itself
            code, text = "model-process-died", f"Triton lost the process of model {model}; it must be restarted"
        elif "DEADLINE_EXCEEDED" in status:
            code, text = "deadline", f"Triton did not answer for model {model} in time"
        elif "UNAVAILABLE" in status or "CANCELLED" in status:
            code, text = "triton-unreachable", "Triton can't be reached; is it running, and is the address right?"
        elif "NOT_FOUND" in status:
            code, text = "model-missing", f"Triton does not serve model {model}: {message}"
        else:
            code, text = "inference-refused", f"Triton refused a request to model {model}: {message}"
        raise InferenceFailed(text, code=code) from error
