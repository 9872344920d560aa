"""Streams of requests, and their end before the end: on the real server."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.serving.triton import EmbeddedTriton
from operators.errors import InferenceFailed
from operators.shared_memory import REGION_PREFIX, SHARED_MEMORY_FOLDER
from operators.triton import TritonModel, unregister_stale_regions
from tests.triton_fixture import REPOSITORY_ROOT, fixture_repository, running_triton

PATIENCE_SECONDS = 90.0
DEMO, SLOW = "nnunet_liver_spleen_demo", "limner_slow"
LONG_ROUNDS = 4000
"""One to several seconds of computing."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    with running_triton(fixture_repository(tmp_path_factory.mktemp("models")), probe_seconds=0.5) as triton:
        yield triton


def handle(server: EmbeddedTriton, model: str, **changes: Any) -> TritonModel:
    arguments: dict[str, Any] = {"version": "1", "deadline_seconds": PATIENCE_SECONDS, "shared_memory": True, **changes}
    return TritonModel(server.target, model, **arguments)


def own_regions() -> list[str]:
    return [path.name for path in SHARED_MEMORY_FOLDER.glob(f"{REGION_PREFIX}{os.getpid()}_*")]


def image() -> np.ndarray[Any, np.dtype[np.float32]]:
    """An image of one channel, larger than a tile on each axis."""
    return np.random.default_rng(0).standard_normal((1, 20, 140, 150), dtype=np.float32)


def tiles() -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """Views of one image: some mirrored, none contiguous."""
    whole = image()
    cuts = [whole[:, z : z + 16, y : y + 128, x : x + 128] for z, y, x in ((0, 0, 0), (4, 5, 6), (1, 12, 22))]
    return [cuts[0], cuts[1][:, ::-1], cuts[2], cuts[0][:, :, ::-1, ::-1], cuts[1]]


def batches(rows: Sequence[Any]) -> Iterator[dict[str, Sequence[Any]]]:
    """Requests of one, two and two rows."""
    for part in (rows[:1], rows[1:3], rows[3:]):
        yield {"image": part}


# --- answers ---


@pytest.mark.parametrize("shared_memory", [True, False])
@pytest.mark.parametrize("in_flight", [1, 2, 7])
def test_answers_come_in_order_and_are_those_of_single_requests(
    server: EmbeddedTriton, in_flight: int, *, shared_memory: bool
) -> None:
    rows = tiles()
    with handle(server, DEMO, shared_memory=shared_memory) as model:
        alone = [model.infer({"image": np.stack(batch["image"])})["logits"] for batch in batches(rows)]
        with closing(model.stream(batches(rows), in_flight=in_flight)) as answers:
            together = [answer["logits"].copy() for answer in answers]
    assert [len(one) for one in together] == [1, 2, 2]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
    assert own_regions() == []


def test_each_slot_has_its_regions_once_and_its_answers_are_views(server: EmbeddedTriton) -> None:
    requests = [{"rounds": [np.array(count)]} for count in range(6)]
    with handle(server, SLOW) as model:
        for _ in range(2):
            kept = [answer["rounds_done"] for answer in model.stream(requests, in_flight=2)]
            assert len(own_regions()) == 2 * 2, "an input and an output for each request in flight"
            assert np.shares_memory(kept[0], kept[2])
            assert not np.shares_memory(kept[0], kept[1])
            assert [float(one[0]) for one in kept] == [4, 5, 4, 5, 4, 5], "an answer lasts until the next is asked for"


def test_requests_are_pulled_only_when_they_can_be_sent(server: EmbeddedTriton) -> None:
    pulled = 0

    def requests() -> Iterator[dict[str, list[Any]]]:
        nonlocal pulled
        for _ in range(9):
            pulled += 1
            yield {"rounds": [np.array(1)]}

    with handle(server, SLOW) as model:
        answers = model.stream(requests(), in_flight=3)
        assert pulled == 0
        seen = [pulled for _ in answers]
    assert seen == [3, 4, 5, 6, 7, 8, 9, 9, 9]


def test_where_shared_memory_runs_out_the_rest_goes_through_grpc(
    server: EmbeddedTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def requests() -> Iterator[dict[str, list[Any]]]:
        for count in range(5):
            if count == 2:  # what is made from now on, the server can't see
                monkeypatch.setattr("operators.shared_memory.SHARED_MEMORY_FOLDER", tmp_path)
            yield {"rounds": [np.array(count)]}

    with handle(server, SLOW) as model:
        answers = [float(answer["rounds_done"][0]) for answer in model.stream(requests(), in_flight=4)]
    assert answers == [0, 1, 2, 3, 4]
    assert list(tmp_path.iterdir()) == []
    assert own_regions() == []


# --- an end before the end ---


class Watch:
    """What the server was kept from computing: how long the next client waits, against one long request alone."""

    def __init__(self, server: EmbeddedTriton) -> None:
        self._server = server
        self._restarts = server.restarts
        with handle(server, SLOW) as model:
            started = time.monotonic()
            model.infer({"rounds": np.array([LONG_ROUNDS])})
            self._alone = time.monotonic() - started

    def check_that_the_next_is_served_soon(self) -> None:
        """Of four requests of the same length, at most the one that had begun is computed to its end."""
        started = time.monotonic()
        with handle(self._server, SLOW) as model:
            assert model.infer({"rounds": np.array([3])})["rounds_done"] == [3]
        assert time.monotonic() - started < 2.5 * self._alone
        assert self._server.restarts == self._restarts, "the server lost nothing by it"


def long_requests() -> Iterator[dict[str, list[Any]]]:
    yield {"rounds": [np.array(1)]}
    while True:
        yield {"rounds": [np.array(LONG_ROUNDS)]}


def test_a_stream_that_is_closed_early_calls_off_what_is_under_way(server: EmbeddedTriton) -> None:
    watch = Watch(server)
    with handle(server, SLOW) as model:
        answers = model.stream(long_requests(), in_flight=5)
        assert next(answers)["rounds_done"] == [1]
        started = time.monotonic()
        answers.close()
        assert time.monotonic() - started < 0.5, "nothing is waited for"
        watch.check_that_the_next_is_served_soon()
        assert model.infer({"rounds": np.array([2])})["rounds_done"] == [2], "the handle goes on"
    assert own_regions() == []


def test_a_consumer_that_fails_calls_off_what_is_under_way(server: EmbeddedTriton) -> None:
    watch = Watch(server)
    with pytest.raises(ZeroDivisionError) as caught, handle(server, SLOW) as model:  # noqa: PT012
        for answer in model.stream(long_requests(), in_flight=5):
            raise ZeroDivisionError(answer["rounds_done"])
    watch.check_that_the_next_is_served_soon()
    assert caught.value.__traceback__ is not None, "it holds the generator, which is not closed by itself"
    assert own_regions() == []


def test_requests_that_can_not_be_made_call_off_what_is_under_way(server: EmbeddedTriton) -> None:
    def requests() -> Iterator[dict[str, list[Any]]]:
        for _ in range(4):
            yield {"rounds": [np.array(LONG_ROUNDS)]}
        raise ZeroDivisionError

    watch = Watch(server)
    with handle(server, SLOW) as model:
        with pytest.raises(ZeroDivisionError):
            next(model.stream(requests(), in_flight=5))
        watch.check_that_the_next_is_served_soon()


def test_a_deadline_calls_off_what_is_under_way(server: EmbeddedTriton) -> None:
    watch = Watch(server)
    with handle(server, SLOW, deadline_seconds=0.3) as model:
        with pytest.raises(InferenceFailed) as caught:
            list(model.stream(({"rounds": [np.array(LONG_ROUNDS)]} for _ in range(4)), in_flight=4))
        assert caught.value.code == "deadline"
        assert own_regions() == []
        watch.check_that_the_next_is_served_soon()


KILLED_WITH_FOUR_IN_FLIGHT = """
import sys
import numpy as np
from operators.triton import TritonModel, unregister_stale_regions

def requests():
    for _ in range(4):
        yield {"rounds": [np.int64(sys.argv[2])]}
    print("sent", flush=True)
    sys.stdin.read()

with TritonModel(sys.argv[1], "limner_slow", version="1", deadline_seconds=90, shared_memory=True) as model:
    next(model.stream(requests(), in_flight=5))
"""


def test_a_killed_client_leaves_at_most_what_had_begun(server: EmbeddedTriton) -> None:
    watch = Watch(server)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", KILLED_WITH_FOUR_IN_FLIGHT, server.target, str(LONG_ROUNDS)],
        cwd=REPOSITORY_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "sent\n"
        client.kill()
    # what has begun still uses its regions: that is no fault of the server, for which it would be started anew
    unregister_stale_regions(server.target, deadline_seconds=PATIENCE_SECONDS)
    watch.check_that_the_next_is_served_soon()
