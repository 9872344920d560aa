"""The services of a server: they run until it is told to stop, and one that ends before is a defect that is said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from app.errors import ServingError
from app.jobs.presence import Service
from app.telemetry import get_logger

_log = get_logger(__name__)


class RunningServices:
    """Services that run, each as a task of the loop that runs now."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._told = asyncio.Event()
        self._tasks = [asyncio.create_task(_awaited(one(self._told)), name=_name_of(one)) for one in services]
        self._ended: list[str] = []

    async def wait(self, stop: asyncio.Event) -> None:
        """Wait until `stop` is set, or until a service ends by itself: the server must not go on taking studies."""
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopped, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        if not stop.is_set():
            self._ended = [one.get_name() for one in self._tasks if one.done()]
            for name in self._ended:
                _log.error("server.service_ended", what=name)

    async def end(self) -> Exception | None:
        """Tell all to stop and wait for them; return why the server could not go on, if it could not."""
        self._told.set()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        for one in ends:
            if isinstance(one, Exception):
                return one
        if self._ended:
            return ServingError(
                f"{', '.join(self._ended)} ended by itself, and the server with it; start it again, and report it",
                code="service-ended",
            )
        return None


async def _awaited(service: Awaitable[None]) -> None:
    await service


def _name_of(service: Service) -> str:
    return str(getattr(service, "__qualname__", type(service).__name__))
