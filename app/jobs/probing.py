"""Asking the destinations, now and then, what kinds of results they take."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import psycopg

from app.delivery.destination import Destination
from app.errors import DeliveryError
from app.jobs.records import Records
from app.settings import Settings
from app.telemetry import get_logger

_AGAIN_SECONDS = 60.0
"""Wait after a destination could not be asked."""

_log = get_logger(__name__)


class DestinationProbing:
    """Keeps the destinations' profiles fresh."""

    def __init__(self, *, settings: Settings, records: Records, destinations: Mapping[str, Destination]) -> None:
        self._settings = settings
        self._records = records
        self._destinations = destinations

    async def run(self, stop: asyncio.Event) -> None:
        """Ask each destination at once, and then as often as its settings say, until `stop` is set."""
        await asyncio.gather(stop.wait(), *(self._keep_asking(one, stop) for one in self._destinations.values()))

    async def _keep_asking(self, destination: Destination, stop: asyncio.Event) -> None:
        seconds = self._settings.destination_named(destination.name).probe_seconds
        while not stop.is_set():
            asked = await asyncio.to_thread(self._ask, destination)
            try:
                await asyncio.wait_for(stop.wait(), seconds if asked else min(seconds, _AGAIN_SECONDS))
            except TimeoutError:
                continue

    def _ask(self, destination: Destination) -> bool:
        """Ask, unless it is down: then only whoever has its turn connects to it."""
        address = self._settings.destination_named(destination.name).address
        try:
            if self._records.is_closed(destination.name, address):
                return False
        except psycopg.Error:
            return False
        return keep_accepted(self._records, self._settings, destination)


def keep_accepted(records: Records, settings: Settings, destination: Destination) -> bool:
    """Ask a destination what it takes and keep it; False, and what it said before stays, if it can't be asked."""
    try:
        accepted = destination.accepted_kinds()
        records.keep_profile(destination.name, settings.destination_named(destination.name).address, accepted)
    except (DeliveryError, psycopg.Error) as error:
        _log.warning("destination.not_asked", destination=destination.name, error=type(error).__name__)
        return False
    except Exception as error:  # noqa: BLE001 - a peer's border: nobody waits for this answer, and the server goes on
        _log.error("destination.defect", destination=destination.name, error=type(error).__name__)
        return False
    _log.info("destination.asked", destination=destination.name, kinds=list(accepted))
    return True
