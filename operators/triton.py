"""The door to Triton: a typed handle on one version of one model, over gRPC. `operators.triton_slot` and
`operators.triton_connection` are its parts, and only for it.

What goes through it are arrays, and nothing else: no attribute of a patient, study or instance, and the request
identifiers are random. On one host tensors pass through shared memory, which costs a tenth of gRPC's copies; its
regions are private to this user, made once, reused, and named after the process so that those of a killed one can be
found and removed (`operators.shared_memory`).
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any

import numpy as np
from tritonclient.utils import triton_to_np_dtype

from operators.errors import InferenceFailed
from operators.shared_memory import SharedMemoryUnusable, is_stale
from operators.tensors import Signature, TensorSpec
from operators.triton_connection import CHECK_SECONDS, ModelVersion, connect, errors_named, input_tensor
from operators.triton_slot import Array, Rows, Slot, spec_of

PROBE_MODEL = "limner_probe"
"""A model that adds one to four numbers: a probe of it goes the whole way through the server and a backend."""
_CONNECT_SECONDS = 15.0
_POLL_SECONDS = 0.2


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
        Longest wait for one answer. A request that waits behind others of its stream gets their time as well.
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
        self._model = ModelVersion(model, version)
        self._deadline_seconds = deadline_seconds
        self._shared_memory = shared_memory
        self._expected = signature
        self._client: Any = None
        self._slots: list[Slot] = []
        self._free_slots: list[Slot] = []
        self._signature = Signature({}, {})
        self._longest_batch = 1

    @property
    def signature(self) -> Signature:
        """What the server says the model takes and gives; empty before entry."""
        return self._signature

    @property
    def longest_batch(self) -> int:
        """How many rows one request may hold, by the model's configuration; 1 before entry, and if it is not told."""
        return self._longest_batch

    def __enter__(self) -> TritonModel:
        self._client = connect(self._target)
        try:
            self._wait_until_ready()
            self._signature = self._read_signature()
            self._check_signature()
            self._longest_batch = self._read_longest_batch()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Call off what is under way, end the connection and remove the shared memory. May be called twice."""
        for slot in self._slots:
            slot.close()
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
        with closing(self.stream([inputs], in_flight=1)) as answers:
            return {name: array.copy() for name, array in next(answers).items()}

    def stream(
        self, requests: Iterable[Mapping[str, Rows]], *, in_flight: int
    ) -> Generator[Mapping[str, Array], None, None]:
        """Yield the answers to `requests`, in their order, while those behind are already with the server.

        Close it (`contextlib.closing`) where it may not be read to its end, so that what is under way is called off at
        once. Each row is copied once, straight to where the server reads it, so rows may be views of a large image. An
        answer is valid only until the next one is asked for; its arrays may be read-only. An error ends the stream,
        and calls off what is under way as well.

        Parameters
        ----------
        requests
            One at a time, by input name, the rows of a batch: what lies along its first axis, one array each, or the
            batch as an array. A request is pulled when it can be sent: when answer n is yielded, n + `in_flight` - 1
            have been, counted from 1.
        in_flight
            How many requests are with the server or being read at most; each has shared memory of its own. With 2,
            the server computes while an answer is worked on.

        Raises
        ------
        ValueError
            If `in_flight` is below 1.
        InferenceFailed
            As `infer`, when the first answer is asked for or later.
        """
        if in_flight < 1:
            raise ValueError(f"expected at least one request in flight, got {in_flight}")
        return self._stream(requests, in_flight)

    # --- at the start ---

    def _wait_until_ready(self) -> None:
        """A server that is just starting again gets a while; one that says it lacks the model does not."""
        end = time.monotonic() + min(_CONNECT_SECONDS, self._deadline_seconds)
        while not self._is_server_ready(give_up=time.monotonic() > end):
            time.sleep(_POLL_SECONDS)
        with errors_named(self._model.name):
            ready = self._client.is_model_ready(self._model.name, self._model.version, client_timeout=CHECK_SECONDS)
        if not ready:
            raise InferenceFailed(
                f"Triton at {self._target} does not serve model {self._model.name} version {self._model.version}; "
                "check its model repository and its log",
                code="model-missing",
            )

    def _is_server_ready(self, *, give_up: bool) -> bool:
        try:
            with errors_named(self._model.name):
                ready = bool(self._client.is_server_ready(client_timeout=CHECK_SECONDS))
        except InferenceFailed as error:
            if give_up or error.code != "triton-unreachable":
                raise
            return False
        if give_up and not ready:
            raise InferenceFailed(f"Triton at {self._target} says it is not ready", code="triton-unreachable")
        return ready

    def _read_signature(self) -> Signature:
        with errors_named(self._model.name):
            metadata = self._client.get_model_metadata(
                self._model.name, self._model.version, client_timeout=CHECK_SECONDS
            )
        if metadata.name != self._model.name or self._model.version not in metadata.versions:
            raise self._model.mismatch(f"the server answers for {metadata.name}, versions {list(metadata.versions)}")
        return Signature(_specs(metadata.inputs), _specs(metadata.outputs))

    def _read_longest_batch(self) -> int:
        """A hardened server keeps its configuration to itself: then one row is what is sure to be taken."""
        try:
            with errors_named(self._model.name):
                answer = self._client.get_model_config(
                    self._model.name, self._model.version, client_timeout=CHECK_SECONDS
                )
        except InferenceFailed:
            return 1
        return max(1, int(answer.config.max_batch_size))  # 0 where there is no batch axis

    def _check_signature(self) -> None:
        if self._expected is None:
            return
        for kind, expected, actual in (
            ("input", self._expected.inputs, self._signature.inputs),
            ("output", self._expected.outputs, self._signature.outputs),
        ):
            if set(expected) != set(actual):
                raise self._model.mismatch(f"expected the {kind}s {sorted(expected)}, the server has {sorted(actual)}")
            for name, spec in expected.items():
                if spec != actual[name]:
                    raise self._model.mismatch(f"expected {kind} {name} to be {spec}, the server has {actual[name]}")

    # --- requests ---

    def _stream(
        self, requests: Iterable[Mapping[str, Rows]], in_flight: int
    ) -> Generator[Mapping[str, Array], None, None]:
        sent: deque[Slot] = deque()
        try:
            for inputs in requests:
                self._send(inputs, sent)
                if len(sent) == in_flight:
                    yield from self._next_answer(sent)
            while sent:
                yield from self._next_answer(sent)
        finally:
            for slot in sent:
                slot.cancel()
            self._free_slots.extend(sent)

    def _next_answer(self, sent: deque[Slot]) -> Iterator[Mapping[str, Array]]:
        answer = sent[0].answer()
        slot = sent.popleft()
        try:
            yield answer
        finally:
            self._free_slots.append(slot)

    def _send(self, inputs: Mapping[str, Rows], sent: deque[Slot]) -> None:
        if self._client is None:
            raise InferenceFailed("the handle is closed; use it as a context manager", code="triton-unreachable")
        length = self._batch_length(inputs)
        deadline_seconds = self._deadline_seconds * (len(sent) + 1)
        slot = self._free_slots.pop() if self._free_slots else self._new_slot()
        sent.append(slot)
        if self._shared_memory:
            try:
                slot.send(inputs, length=length, shared_memory=True, deadline_seconds=deadline_seconds)
                return
            except SharedMemoryUnusable:
                # Triton is on another host, or /dev/shm is small: slower from here on, not broken
                self._shared_memory = False
                slot.close()
        slot.send(inputs, length=length, shared_memory=False, deadline_seconds=deadline_seconds)

    def _new_slot(self) -> Slot:
        slot = Slot(self._client, self._model, self._signature)
        self._slots.append(slot)
        return slot

    def _batch_length(self, inputs: Mapping[str, Rows]) -> int:
        """Return the length of the batch, after a check of all that is sent; 1 where the model takes no batch."""
        if set(inputs) != set(self._signature.inputs):
            raise self._model.mismatch(f"it takes the inputs {sorted(self._signature.inputs)}, got {sorted(inputs)}")
        lengths = set()
        for name, rows in inputs.items():
            spec = self._signature.inputs[name]
            try:
                given = spec_of(rows)
            except ValueError as error:
                raise self._model.mismatch(f"input {name}: {error}") from error
            if not spec.admits(given.dtype, given.shape):
                raise self._model.mismatch(f"input {name} must be {spec}, got {given}")
            if spec.is_batched:
                lengths.add(given.shape[0])
        if len(lengths) > 1:
            raise self._model.mismatch(f"the inputs of one request have the batch lengths {sorted(lengths)}")
        return max(lengths, default=1)


def probe(target: str, *, deadline_seconds: float) -> None:
    """Let a Triton compute something tiny and check the sum: what says "ready" may still be unable to infer.

    Raises
    ------
    InferenceFailed
        If it can't be reached, does not answer in time, or answers wrongly (``probe-wrong``).
    """
    end = time.monotonic() + deadline_seconds
    numbers = np.random.default_rng().integers(-1000, 1000, 4).astype(np.float32)
    tensor = input_tensor("numbers", spec_of(numbers))
    tensor.set_data_from_numpy(numbers)
    client = connect(target)
    try:
        with errors_named(PROBE_MODEL):
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


def is_ready(target: str, *, deadline_seconds: float) -> bool:
    """Whether the Triton at `target` says within `deadline_seconds` that it takes requests."""
    client = connect(target)
    try:
        with errors_named(PROBE_MODEL):
            return bool(client.is_server_ready(client_timeout=deadline_seconds))
    except InferenceFailed:
        return False
    finally:
        client.close()


def unregister_stale_regions(target: str, *, deadline_seconds: float) -> list[str]:
    """Let a Triton drop its hold on the shared memory of processes that no longer run, and return the names.

    A region that the server still uses is left for the next time.

    Raises
    ------
    InferenceFailed
        If it can't be reached or does not answer in time.
    """
    client = connect(target)
    try:
        with errors_named(PROBE_MODEL):
            status = client.get_system_shared_memory_status(client_timeout=deadline_seconds)
        stale = [name for name in status.regions if is_stale(name)]
        return [name for name in stale if _is_unregistered(client, name, deadline_seconds)]
    finally:
        client.close()


def _is_unregistered(client: Any, region: str, deadline_seconds: float) -> bool:
    try:
        with errors_named(PROBE_MODEL):
            client.unregister_system_shared_memory(region, client_timeout=deadline_seconds)
    except InferenceFailed as error:
        if error.code != "inference-refused":
            raise
        return False
    return True


def _specs(tensors: Sequence[Any]) -> dict[str, TensorSpec]:
    return {
        tensor.name: TensorSpec(np.dtype(triton_to_np_dtype(tensor.datatype)), tuple(tensor.shape))
        for tensor in tensors
    }
