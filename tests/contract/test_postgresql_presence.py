"""Which processes are there, by the locks of a real PostgreSQL: who is alone, and whose turn it is."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

from app.jobs.presence import COMPLETION, LISTENERS, Presence, Turn
from tests.database_fixture import fresh_database


def test_only_the_first_is_alone(postgres: Any) -> None:
    async def come_and_go(url: str) -> None:
        first, second = Presence(url, LISTENERS), Presence(url, LISTENERS)
        entered: list[str] = []

        async def note() -> None:
            entered.append("alone")

        assert await first.enter(note)
        assert not await second.enter(note)
        await first.leave()
        assert not await first.enter(note), "the second is there"
        await first.leave()
        await second.leave()
        assert await first.enter(note)
        await first.leave()
        assert entered == ["alone"] * 2

    with fresh_database(postgres) as url:
        asyncio.run(come_and_go(url))


def test_a_cut_connection_is_made_anew(postgres: Any) -> None:
    async def be_cut(url: str) -> None:
        first, second = Presence(url, LISTENERS), Presence(url, LISTENERS)

        async def nothing() -> None:
            return

        assert await first.enter(nothing)
        stop = asyncio.Event()
        keeping = asyncio.ensure_future(first.run(stop))
        await asyncio.to_thread(_cut_all, url)
        await asyncio.sleep(2.5)
        assert not await second.enter(nothing), "the first is there again"
        stop.set()
        await keeping
        await second.leave()

    with fresh_database(postgres) as url:
        asyncio.run(be_cut(url))


def test_one_at_a_time_has_the_turn(postgres: Any) -> None:
    async def take_turns(url: str) -> None:
        serving: list[str] = []
        stops = {name: asyncio.Event() for name in "ab"}
        turns = {
            name: asyncio.ensure_future(Turn(url, COMPLETION, _noting(name, serving)).run(stops[name])) for name in "ab"
        }
        await asyncio.sleep(1.5)
        (first,) = serving
        (other,) = {"a", "b"} - {first}
        stops[first].set()
        await turns[first]
        started = time.monotonic()
        while serving != [other]:
            await asyncio.sleep(0.05)
            assert time.monotonic() - started < 3
        await asyncio.to_thread(_cut_all, url)  # the database was away: one of them, it, has the turn again
        await asyncio.sleep(3)
        assert serving == [other]
        stops[other].set()
        await turns[other]
        assert serving == []

    with fresh_database(postgres) as url:
        asyncio.run(take_turns(url))


def _noting(name: str, serving: list[str]) -> Callable[[asyncio.Event], Awaitable[None]]:
    async def serve(stop: asyncio.Event) -> None:
        serving.append(name)
        await stop.wait()
        serving.remove(name)

    return serve


def _cut_all(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


_HOLDER = """
import asyncio, sys
from app.jobs.presence import COMPLETION, Turn

async def serve(stop):
    print("mine", flush=True)
    await stop.wait()

asyncio.run(Turn(sys.argv[1], COMPLETION, serve).run(asyncio.Event()))
"""


def test_a_process_that_hangs_loses_the_turn(postgres: Any) -> None:
    async def wait_for_it(url: str) -> float:
        stop, serving = asyncio.Event(), list[str]()
        began = time.monotonic()
        turn = asyncio.ensure_future(Turn(url, COMPLETION, _noting("other", serving)).run(stop))
        while not serving:
            await asyncio.sleep(0.1)
            assert time.monotonic() - began < 40
        took = time.monotonic() - began
        stop.set()
        await turn
        return took

    with fresh_database(postgres) as url:
        holder = subprocess.Popen([sys.executable, "-c", _HOLDER, url], stdout=subprocess.PIPE, text=True)
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "mine\n"
            holder.send_signal(signal.SIGSTOP)
            assert 8 < asyncio.run(wait_for_it(url)) < 20
        finally:
            holder.kill()
            holder.wait()
            if holder.stdout is not None:
                holder.stdout.close()
