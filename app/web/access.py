"""The border of the API: who may ask, how much, and how long a request may take to arrive.

A request is taken whole before anything looks at it: with the right token, within a size and a time.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable
from http import HTTPStatus

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.telemetry import get_logger
from app.web.problems import problem

OPEN_PATHS = frozenset({"/openapi.json"})
"""What may be read without a token: the description, which is the same for all."""
MOST_BODY_BYTES = 256 << 10
BODY_SECONDS = 10.0
_TELL_SECONDS = 10.0
"""Refusals are told to the audit log so often at most: a flood of them must not fill it."""
_SCHEME = b"bearer "

_log = get_logger(__name__)


class Access:
    """An ASGI application that lets through what may pass.

    Parameters
    ----------
    app
        What is behind it.
    token
        The bearer token (RFC 6750).
    tell_refused
        Called, now and then, with the address that a request without the right token came from.
    """

    def __init__(self, app: ASGIApp, token: str, tell_refused: Callable[[str], None]) -> None:
        self._app = app
        self._token = token.encode()
        self._tell_refused = tell_refused
        self._told = float("-inf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with what is wrong."""
        if scope["type"] != "http":
            return
        began = False

        async def sending(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            answer = await self._follow(scope, receive, sending)
        except Exception:  # noqa: BLE001 - the HTTP border: a defect is answered, and told without its values
            _log.error("web.defect", exc_info=True)
            if began:
                return
            detail = "an unexpected error; the diagnostic log tells where"
            answer = problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error", detail)
        if answer is not None:
            await answer(scope, receive, sending)

    async def _follow(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """The answer of a request that may not pass; None if it was passed on."""
        if scope["path"] not in OPEN_PATHS and not self._is_known(scope):
            await self._refused(scope)
            detail = "expected the header `Authorization: Bearer TOKEN` with the token of the settings"
            return problem(HTTPStatus.UNAUTHORIZED, "token-wrong", detail)
        try:
            body = await asyncio.wait_for(_body(scope, receive), BODY_SECONDS)
        except TimeoutError:
            detail = f"the request did not arrive whole within {BODY_SECONDS:g} s"
            return problem(HTTPStatus.REQUEST_TIMEOUT, "request-too-slow", detail)
        if body is None:
            detail = f"a request may have {MOST_BODY_BYTES} bytes; send a coarser outline"
            return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "request-too-large", detail)
        await self._app(scope, _replayed(body, receive), send)
        return None

    def _is_known(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1 or given[0][: len(_SCHEME)].lower() != _SCHEME:
            return False
        return hmac.compare_digest(given[0][len(_SCHEME) :].strip(), self._token)

    async def _refused(self, scope: Scope) -> None:
        _log.warning("web.refused", code="token-wrong")
        now = time.monotonic()
        if now - self._told < _TELL_SECONDS:
            return
        self._told = now
        client = scope.get("client") or ("",)
        await asyncio.to_thread(self._tell_refused, str(client[0]))


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body; None if it is too large."""
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or int(value[:20]) > MOST_BODY_BYTES):
            return None
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break  # the client is gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BODY_BYTES:
            return None
        more = message.get("more_body", False)
    return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What the application reads: the body in one piece, then what comes after it."""
    given = False

    async def read() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return read
