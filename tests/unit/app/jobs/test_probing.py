"""Asking the destinations what they take."""

from __future__ import annotations

import asyncio
from pathlib import Path

from app.jobs.probing import DestinationProbing
from app.jobs.records import Records
from app.settings import Settings


def test_without_destinations_there_is_nothing_to_ask_and_the_service_goes_on(tmp_path: Path) -> None:
    records = Records("postgresql:///nothing-is-asked-of-it")
    probing = DestinationProbing(settings=Settings(data_folder=tmp_path), records=records, destinations={})

    async def run() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(probing.run(stop))
        await asyncio.sleep(0.05)
        assert not running.done(), "the server stops when a service ends"
        stop.set()
        await asyncio.wait_for(running, 5)

    asyncio.run(run())
