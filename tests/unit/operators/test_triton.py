"""What goes over the wire and what its errors become: against a gRPC service that notes each message."""

import re
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from operators.errors import InferenceFailed
from operators.triton import PROBE_MODEL, TritonModel, probe

Answer = Callable[[Any, Any], Any]


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Serves one model that adds one; `answer` may be replaced."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.answer: Answer = plus_one
        self.shape = [4]
        self.name = PROBE_MODEL

    def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return service_pb2.ServerReadyResponse(ready=True)

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=True)

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        tensor = service_pb2.ModelMetadataResponse.TensorMetadata
        return service_pb2.ModelMetadataResponse(
            name=self.name,
            versions=["1"],
            inputs=[tensor(name="numbers", datatype="FP32", shape=self.shape)],
            outputs=[tensor(name="numbers_plus_one", datatype="FP32", shape=self.shape)],
        )

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        return self.answer(request, context)


def plus_one(request: Any, context: Any) -> Any:
    numbers = np.frombuffer(request.raw_input_contents[0], np.float32) + 1
    return respond(numbers)


def respond(numbers: np.ndarray[Any, Any]) -> Any:
    output = service_pb2.ModelInferResponse.InferOutputTensor(
        name="numbers_plus_one", datatype="FP32", shape=numbers.shape
    )
    return service_pb2.ModelInferResponse(outputs=[output], raw_output_contents=[numbers.astype(np.float32).tobytes()])


def fail_with(code: grpc.StatusCode, details: str) -> Answer:
    return lambda request, context: context.abort(code, details)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[Service, str]]:
    notes = Service()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(notes, server)
    target = f"unix:{tmp_path / 'socket'}"
    server.add_insecure_port(target)
    server.start()
    yield notes, target
    server.stop(grace=None).wait()


def model_at(target: str) -> TritonModel:
    return TritonModel(target, PROBE_MODEL, version="1", deadline_seconds=20.0, shared_memory=False)


def test_nothing_but_arrays_is_sent(service: tuple[Service, str]) -> None:
    notes, target = service
    with model_at(target) as model:
        for _ in range(2):
            model.infer({"numbers": np.arange(4, dtype=np.float32)})
    identifiers = {request.id for request in notes.requests}
    assert len(identifiers) == 2
    for request in notes.requests:
        assert re.fullmatch("[0-9a-f]{16}", request.id)
        assert (request.model_name, request.model_version) == (PROBE_MODEL, "1")
        assert [tensor.name for tensor in request.inputs] == ["numbers"]
        assert {field.name for field, _ in request.ListFields()} <= {
            "model_name",
            "model_version",
            "id",
            "inputs",
            "outputs",
            "raw_input_contents",
        }
        assert list(request.raw_input_contents) == [np.arange(4, dtype=np.float32).tobytes()]


@pytest.mark.parametrize(
    ("status", "details", "code"),
    [
        (grpc.StatusCode.INTERNAL, "Failed: Stub process 'nnunet_0_0' is not healthy.", "model-process-died"),
        (grpc.StatusCode.UNAVAILABLE, "Stub process 'nnunet_0_0' is not healthy.", "model-process-died"),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", "triton-unreachable"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", "deadline"),
        (grpc.StatusCode.NOT_FOUND, "unknown model", "model-missing"),
        (grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape", "inference-refused"),
    ],
)
def test_errors_are_told_apart(service: tuple[Service, str], status: grpc.StatusCode, details: str, code: str) -> None:
    notes, target = service
    notes.answer = fail_with(status, details)
    with model_at(target) as model, pytest.raises(InferenceFailed) as caught:
        model.infer({"numbers": np.zeros(4, np.float32)})
    assert caught.value.code == code
    assert caught.value.retryable


def test_an_answer_of_another_shape_is_refused(service: tuple[Service, str]) -> None:
    notes, target = service
    notes.answer = lambda request, context: respond(np.zeros(5, np.float32))
    with model_at(target) as model, pytest.raises(InferenceFailed) as caught:
        model.infer({"numbers": np.zeros(4, np.float32)})
    assert caught.value.code == "model-mismatch"


def test_a_server_that_answers_for_another_model_is_refused(service: tuple[Service, str]) -> None:
    notes, target = service
    notes.name = "other"
    with pytest.raises(InferenceFailed) as caught, model_at(target):
        pass
    assert caught.value.code == "model-mismatch"


def test_a_probe_checks_the_sum(service: tuple[Service, str]) -> None:
    notes, target = service
    probe(target, deadline_seconds=20.0)
    notes.answer = lambda request, context: respond(np.zeros(4, np.float32))
    with pytest.raises(InferenceFailed) as caught:
        probe(target, deadline_seconds=20.0)
    assert caught.value.code == "probe-wrong"


def test_a_closed_handle_says_so(service: tuple[Service, str]) -> None:
    _, target = service
    with model_at(target) as model:
        pass
    with pytest.raises(InferenceFailed, match="closed"):
        model.infer({"numbers": np.zeros(4, np.float32)})
    model.close()
