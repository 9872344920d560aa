"""What the tests of delivery have in common: a worker beside the test, jobs for it, and what became of them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.jobs.worker import Worker
from tests.job_harness import Bench, instance


@contextmanager
def working(made: Bench, *destinations: str) -> Iterator[None]:
    """A worker in a thread of its own."""
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    worker = Worker(records=made.records, tasks=made.workflow, destinations=destinations)
    thread = threading.Thread(target=lambda: loop.run_until_complete(worker.run(stop)))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        loop.close()


def queue_jobs(made: Bench, first: int, count: int) -> None:
    for series in range(first, first + count):
        made.receive(instance(1, series=series))
    made.create_jobs()


def wait_until(until: Callable[[], bool], seconds: float) -> float:
    """Wait until it holds; how long that took."""
    began = time.monotonic()
    while not until():
        assert time.monotonic() - began < seconds, f"not in {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - began


def arrived(made: Bench, destination: str) -> int:
    return sum(
        one.state == "delivered"
        for job in made.records.jobs(10_000)
        for one in job.deliveries
        if one.destination == destination
    )


def results_of(made: Bench) -> dict[str, Path]:
    """The results of all jobs, each of which is closed, by SOP Instance UID."""
    jobs = made.records.jobs(10_000)
    assert {job.state for job in jobs} == {"closed"}
    return {job.results[0].sop_instance_uid: Path(job.results[0].path) for job in jobs}
