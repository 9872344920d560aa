"""What goes over the wire and what its errors become: against a gRPC service that notes each message."""

import re
import threading
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
    return respond(numbers.reshape(request.inputs[0].shape))


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


def test_a_server_that_keeps_its_configuration_to_itself_gets_one_row_at_a_time(service: tuple[Service, str]) -> None:
    with model_at(service[1]) as model:
        assert model.longest_batch == 1


def test_a_closed_handle_says_so(service: tuple[Service, str]) -> None:
    _, target = service
    with model_at(target) as model:
        pass
    with pytest.raises(InferenceFailed, match="closed"):
        model.infer({"numbers": np.zeros(4, np.float32)})
    model.close()


# --- streams ---


def rows(*firsts: int) -> dict[str, list[np.ndarray[Any, Any]]]:
    """One request: rows of four numbers, each cut backwards out of a longer one."""
    return {"numbers": [np.arange(first, first + 8, dtype=np.float32)[::-2] for first in firsts]}


def test_a_request_is_the_batch_of_its_rows(service: tuple[Service, str]) -> None:
    notes, target = service
    notes.shape = [-1, 4]
    with model_at(target) as model:
        found = [answer["numbers_plus_one"].tolist() for answer in model.stream([rows(0), rows(1, 2)], in_flight=2)]
    assert found == [[[8, 6, 4, 2]], [[9, 7, 5, 3], [10, 8, 6, 4]]]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"numbers": []}, "one type and shape, got none"),
        ({"numbers": [np.zeros(4, np.float32), np.zeros(3, np.float32)]}, r"got \['float32 \[3\]', 'float32 \[4\]'\]"),
        ({"numbers": [np.zeros(4, np.float32), np.zeros(4)]}, "got .*float64"),
        ({"numbers": [np.zeros(5, np.float32)]}, r"must be float32 \[-1, 4\], got float32 \[1, 5\]"),
        ({"numbers": np.zeros(4, np.float32)}, r"got float32 \[4\]"),
        ({}, "takes the inputs"),
    ],
)
def test_rows_that_do_not_fit_are_not_sent(service: tuple[Service, str], inputs: dict[str, Any], message: str) -> None:
    notes, target = service
    notes.shape = [-1, 4]
    with model_at(target) as model, pytest.raises(InferenceFailed, match=message) as caught:
        next(model.stream([inputs], in_flight=1))
    assert caught.value.code == "model-mismatch"
    assert notes.requests == []


def test_an_answer_of_another_batch_length_is_refused(service: tuple[Service, str]) -> None:
    notes, target = service
    notes.shape = [-1, 4]
    notes.answer = lambda request, context: respond(np.zeros((3, 4), np.float32))
    with model_at(target) as model, pytest.raises(InferenceFailed, match=r"\[3, 4\], expected float32 \[2, 4\]"):
        next(model.stream([rows(0, 1)], in_flight=1))


@pytest.mark.parametrize(("name", "datatype"), [("other", "FP32"), ("numbers_plus_one", "FP64")])
def test_an_answer_of_another_name_or_type_is_refused(service: tuple[Service, str], name: str, datatype: str) -> None:
    notes, target = service

    def answer(request: Any, context: Any) -> Any:
        output = service_pb2.ModelInferResponse.InferOutputTensor(name=name, datatype=datatype, shape=[4])
        return service_pb2.ModelInferResponse(outputs=[output], raw_output_contents=[bytes(32)])

    notes.answer = answer
    with model_at(target) as model, pytest.raises(InferenceFailed) as caught:
        model.infer({"numbers": np.zeros(4, np.float32)})
    assert caught.value.code == "model-mismatch"


def test_an_error_in_the_middle_of_a_stream_ends_it(service: tuple[Service, str]) -> None:
    notes, target = service
    notes.shape = [-1, 4]

    def answer(request: Any, context: Any) -> Any:
        if np.frombuffer(request.raw_input_contents[0], np.float32)[-1] == 2:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no two")
        return plus_one(request, context)

    notes.answer = answer
    with model_at(target) as model:
        answers = model.stream((rows(first) for first in range(9)), in_flight=1)
        assert next(answers)["numbers_plus_one"][0, -1] == 2
        with pytest.raises(InferenceFailed, match="no two") as caught:
            next(answers)
        assert list(answers) == []
        assert model.infer({"numbers": np.zeros((1, 4), np.float32)})["numbers_plus_one"].tolist() == [[1, 1, 1, 1]]
    assert caught.value.code == "inference-refused"


def test_what_is_called_off_is_cancelled_at_the_server(service: tuple[Service, str]) -> None:
    notes, target = service
    begun, ended = threading.Event(), threading.Event()

    def answer(request: Any, context: Any) -> Any:
        # told by what it holds: which of two requests in flight comes first is the server's threads' affair
        if request.raw_input_contents[0] != bytes(16):
            context.add_callback(ended.set)
            begun.set()
            assert ended.wait(20)
        return plus_one(request, context)

    notes.answer = answer
    with model_at(target) as model:
        answers = model.stream(({"numbers": np.full(4, number, np.float32)} for number in range(9)), in_flight=2)
        next(answers)
        assert begun.wait(10)
        assert not ended.is_set()
        answers.close()
        assert ended.wait(10)


def test_a_stream_outlives_its_handle_only_as_an_error(service: tuple[Service, str]) -> None:
    _, target = service
    with model_at(target) as model:
        answers = model.stream(({"numbers": np.zeros(4, np.float32)} for _ in range(9)), in_flight=3)
        next(answers)
    with pytest.raises(InferenceFailed, match="closed") as caught:
        next(answers)
    assert caught.value.code == "triton-unreachable"
    with pytest.raises(ValueError, match="at least one request"):
        model.stream([], in_flight=0)
