from __future__ import annotations

import asyncio
import errno
import os
from datetime import UTC, datetime

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job

from app.errors import AuditError, DeliveryError, StorageError
from app.jobs.queue import (
    GIVEN_UP_QUEUE,
    SYSTEM_QUEUE,
    Interrupted,
    UnlessDefect,
    WhenPossible,
    back_off_seconds,
    delivery_queue,
)


def test_the_wait_doubles_up_to_the_longest() -> None:
    assert [back_off_seconds(attempts, 5, 60) for attempts in (1, 2, 3, 4, 5, 6)] == [5, 10, 20, 40, 60, 60]


@given(attempts=st.integers(0, 10**6), first=st.floats(0.1, 100), longest=st.floats(0.1, 10**5))
def test_the_wait_is_never_longer_than_the_longest(attempts: int, first: float, longest: float) -> None:
    assert 0 < back_off_seconds(attempts, first, longest) <= longest


@given(attempts=st.integers(0, 1000))
def test_a_task_that_could_not_be_recorded_is_always_repeated(attempts: int) -> None:
    task = Job(id=1, queue="graph", lock=None, queueing_lock=None, task_name="segment", attempts=attempts)
    decision = WhenPossible().get_retry_decision(exception=psycopg.OperationalError(), job=task)
    assert decision.retry_at is not None
    assert (decision.retry_at - datetime.now(UTC)).total_seconds() <= 60


def test_an_interrupted_task_is_repeated_at_once() -> None:
    task = Job(id=1, queue="graph", lock=None, queueing_lock=None, task_name="segment", attempts=9)
    decision = WhenPossible().get_retry_decision(exception=Interrupted(), job=task)
    assert decision.retry_at is not None
    assert decision.retry_at <= datetime.now(UTC)


def _close(number: int = 1) -> Job:
    return Job(id=number, queue=SYSTEM_QUEUE, lock=None, queueing_lock=None, task_name="close", attempts=5)


def _queue_after(strategy: UnlessDefect, exception: BaseException, number: int = 1) -> str | None:
    return strategy.get_retry_decision(exception=exception, job=_close(number)).queue


def test_a_defect_that_comes_again_and_again_sets_its_task_aside() -> None:
    strategy = UnlessDefect()
    assert {_queue_after(strategy, TypeError()) for _ in range(9)} == {None}
    assert _queue_after(strategy, TypeError(), number=2) is None
    assert _queue_after(strategy, TypeError()) == GIVEN_UP_QUEUE
    assert _queue_after(strategy, TypeError()) is None  # a start put it back, and it is given as many


@pytest.mark.parametrize(
    "fault",
    [
        psycopg.OperationalError(),
        ConnectorException(),
        AuditError("no room"),
        StorageError("away"),
        OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)),
        MemoryError(),
        DeliveryError("not now"),
        Interrupted(),
        asyncio.CancelledError(),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_what_is_no_defect_sets_no_task_aside(fault: BaseException) -> None:
    strategy = UnlessDefect()
    assert {_queue_after(strategy, fault) for _ in range(100)} == {None}
    assert _queue_after(strategy, TypeError()) is None


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=63))
def test_the_queue_of_any_destination_can_be_announced(name: str) -> None:
    """PostgreSQL takes names of channels of 63 bytes; what is paused has a longer one."""
    assert len(f"procrastinate_queue_v1#paused-{delivery_queue(name)}") <= 63


def test_destinations_with_long_names_have_queues_of_their_own() -> None:
    assert delivery_queue("a" * 62 + "b") != delivery_queue("a" * 62 + "c")
    assert delivery_queue("archive") == "deliver-archive"
