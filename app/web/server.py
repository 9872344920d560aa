"""The HTTP server of the API: a thread with an event loop of its own, so that neither holds up the other."""

from __future__ import annotations

import socket
import threading
import time

import uvicorn
from starlette.types import ASGIApp

from app.errors import ServingError
from app.telemetry import get_logger

_START_SECONDS = 20.0
_END_SECONDS = 5
_LOOK_SECONDS = 0.02
_MOST_CONNECTIONS = 128

_log = get_logger(__name__)


class WebServer:
    """Serves one application.

    Parameters
    ----------
    app
        The application.
    host, port
        Where to listen; port 0 takes a free one.
    """

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._socket: socket.socket | None = None
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,  # `app.telemetry` has the logs, and withholds what a library says of a request
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=_MOST_CONNECTIONS,
                timeout_graceful_shutdown=_END_SECONDS,
            )
        )
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    def start(self) -> None:
        """Listen.

        Raises
        ------
        ServingError
            ``web-address`` if the address can't be listened on; ``web-not-started``.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            self._socket = socket.create_server((self._host, self._port), family=family)
            # an answer is written in two parts, and the second would wait for the first one's acknowledgement; asyncio
            # sets it only on sockets that were made with their protocol's number
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise ServingError(
                f"the API can't listen on {self._host}:{self._port} ({error.strerror}); choose another web.port",
                code="web-address",
            ) from error
        self._port = self._socket.getsockname()[1]
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise ServingError(
                    "the API's server did not start; the diagnostic log says more", code="web-not-started"
                )
            time.sleep(_LOOK_SECONDS)

    def close(self) -> None:
        """Take no more requests, without waiting for those under way."""
        self._server.should_exit = True

    def stop(self) -> None:
        """Take no more requests, let those under way end, and end."""
        self.close()
        if self._thread.is_alive():
            self._thread.join()
        if self._socket is not None:
            self._socket.close()

    def _run(self) -> None:
        assert self._socket is not None  # noqa: S101 - start has made it
        self._server.run(sockets=[self._socket])
