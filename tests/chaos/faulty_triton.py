"""A door before a real Triton that lets everything through, or does to its inferences what a test says.

Some answers are forged by the door. Others are Triton's own: the door asks for another model than the client did, one
of those in `tests/fixtures/faulty_triton`, which answers as it does by itself.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import grpc
from tritonclient.grpc import service_pb2

from app.serving.triton import EmbeddedTriton

Fault = Literal[
    "",
    "killed",
    "hung",
    "wrong shape",
    "out of memory",
    "refusing",
    "model that answers in another shape",
    "model that is refused memory",
]

_MODELS: Mapping[Fault, str] = {
    "model that answers in another shape": "limner_other_shape",
    "model that is refused memory": "limner_no_memory",
}
"""The models of `tests/fixtures/faulty_triton` that are asked in place of the right one."""
_REGISTER = "/inference.GRPCInferenceService/SystemSharedMemoryRegister"

_UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_INFER = "/inference.GRPCInferenceService/ModelInfer"


class FaultyTriton(grpc.GenericRpcHandler):
    """Forwards each call as bytes. `fault` is done to the next inference, or to each while it stays."""

    def __init__(self, triton: EmbeddedTriton) -> None:
        self._triton = triton
        self._channel = grpc.insecure_channel(triton.target, options=_UNLIMITED)
        self.fault: Fault = ""
        self.met: list[Fault] = []
        self.regions = 0
        """Regions of shared memory that were registered."""

    def service(self, handler_call_details: Any) -> Any:
        """Answer any method."""
        return grpc.unary_unary_rpc_method_handler(partial(self._forward, handler_call_details.method))

    def _forward(self, method: str, request: bytes, context: Any) -> bytes:
        fault: Fault = self.fault if method == _INFER else ""
        if fault:
            self.met.append(fault)
        if fault in ("killed", "hung", "refusing"):  # once: it is there again afterwards
            self.fault = ""
        pid = self._triton.pid
        if fault in ("killed", "hung") and pid is not None:
            os.kill(pid, signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
        if fault == "refusing":
            context.abort(grpc.StatusCode.UNAVAILABLE, "refused by the test")
        if fault == "out of memory":
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "failed to allocate memory, by the test")
        if fault in _MODELS:
            request = _asking(_MODELS[fault], request)
        call: Callable[..., bytes] = self._channel.unary_unary(method)
        try:
            answer = call(request, timeout=context.time_remaining())
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
        self.regions += method == _REGISTER
        return _other_shape(answer) if fault == "wrong shape" else answer


def _asking(model: str, request: bytes) -> bytes:
    """The same request to another model."""
    other = service_pb2.ModelInferRequest.FromString(request)
    other.model_name = model
    return bytes(other.SerializeToString())


def _other_shape(answer: bytes) -> bytes:
    """The same numbers, as if the two last axes of the network's grid were the other way round."""
    response = service_pb2.ModelInferResponse.FromString(answer)
    for output in response.outputs:
        *first, last = output.shape
        del output.shape[:]
        output.shape.extend([last, *first])
    return bytes(response.SerializeToString())


@contextmanager
def faulty_triton(folder: Path, triton: EmbeddedTriton) -> Iterator[tuple[FaultyTriton, str]]:
    """Give the door and the address that it answers at."""
    door = FaultyTriton(triton)
    server = grpc.server(futures.ThreadPoolExecutor(8), options=_UNLIMITED)
    server.add_generic_rpc_handlers((door,))
    target = f"unix:{folder / 'door'}"
    server.add_insecure_port(target)
    server.start()
    try:
        yield door, target
    finally:
        server.stop(grace=None).wait()
