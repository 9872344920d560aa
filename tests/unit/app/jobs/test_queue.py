from __future__ import annotations

from datetime import UTC, datetime

import psycopg
from hypothesis import given
from hypothesis import strategies as st
from procrastinate.jobs import Job

from app.jobs.queue import Interrupted, WhenPossible, back_off_seconds, delivery_queue


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


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=63))
def test_the_queue_of_any_destination_can_be_announced(name: str) -> None:
    """PostgreSQL takes names of channels of 63 bytes; what is paused has a longer one."""
    assert len(f"procrastinate_queue_v1#paused-{delivery_queue(name)}") <= 63


def test_destinations_with_long_names_have_queues_of_their_own() -> None:
    assert delivery_queue("a" * 62 + "b") != delivery_queue("a" * 62 + "c")
    assert delivery_queue("archive") == "deliver-archive"
