"""The services of a server: they run until the stop, and one that ends before is a defect that is said."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from app.bootstrap.running import RunningServices
from app.errors import ServingError
from app.jobs.presence import Service


async def patient(stop: asyncio.Event) -> None:
    await stop.wait()


async def ends(stop: asyncio.Event) -> None:
    await asyncio.sleep(0)


async def fails(stop: asyncio.Event) -> None:
    raise ZeroDivisionError


def _run(services: Sequence[Service], *, told: bool = False) -> Exception | None:
    async def run() -> Exception | None:
        running, stop = RunningServices(services), asyncio.Event()
        if told:
            asyncio.get_running_loop().call_later(0.02, stop.set)
        await asyncio.wait_for(running.wait(stop), 5)
        return await asyncio.wait_for(running.end(), 5)

    return asyncio.run(run())


def test_they_run_until_they_are_told_to_stop() -> None:
    assert _run([patient, patient], told=True) is None


def test_none_is_no_reason_to_stop() -> None:
    assert _run([], told=True) is None


def test_one_that_ends_by_itself_is_named() -> None:
    failure = _run([patient, ends])
    assert isinstance(failure, ServingError)
    assert failure.code == "service-ended"
    assert "ends" in str(failure)


def test_one_that_fails_is_told_after_the_others_have_ended() -> None:
    assert isinstance(_run([fails, patient]), ZeroDivisionError)


def test_what_ends_because_it_is_told_to_is_no_failure() -> None:
    async def run() -> Exception | None:
        running, stop = RunningServices([patient]), asyncio.Event()
        stop.set()
        await running.wait(stop)
        return await running.end()

    assert asyncio.run(run()) is None
