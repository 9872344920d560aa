"""A connection to a Triton, and what its errors are called here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from operators.errors import InferenceFailed
from operators.tensors import TensorSpec

CHECK_SECONDS = 10.0
"""Longest wait for an answer to a question about the server or a model."""
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


@dataclass(frozen=True)
class ModelVersion:
    """Which model is asked."""

    name: str
    """As the repository calls it."""
    version: str
    """The only one that may answer."""

    def mismatch(self, what: str) -> InferenceFailed:
        """Return the error that says that the model, or what it is given, is not what was announced."""
        return InferenceFailed(f"model {self.name} version {self.version}: {what}", code="model-mismatch")


def connect(target: str) -> Any:
    """Return a gRPC client of the Triton at `target`; it connects when it is first used."""
    return grpcclient.InferenceServerClient(target, channel_args=_CHANNEL_ARGUMENTS)


def input_tensor(name: str, spec: TensorSpec) -> Any:
    """Return the description of one input of a request, yet without its values."""
    return grpcclient.InferInput(name, list(spec.shape), np_to_triton_dtype(spec.dtype))


@contextmanager
def errors_named(model: str) -> Iterator[None]:
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
