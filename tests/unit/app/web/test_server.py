"""The HTTP server itself."""

from __future__ import annotations

import http.client
import socket

from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from app.web.server import WebServer


async def _hello(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


def test_an_answer_is_not_held_back_until_the_viewer_has_acknowledged_its_head() -> None:
    server = WebServer(_hello, "127.0.0.1", 0)
    server.start()
    try:
        # connections inherit it; without it each answer, of two writes, takes the 40 ms of a delayed acknowledgement
        assert server._socket is not None
        assert server._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"hello"
        connection.close()
    finally:
        server.stop()
