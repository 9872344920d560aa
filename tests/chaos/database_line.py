"""A line to a database: SOCKET HOST PORT. What comes to HOST:PORT goes on to the database's unix socket, and back.

It runs where its line can be cut. It ends what it has no word from as a database does that was told so
(``tcp_keepalives_idle`` and its kin): locks of a client that is gone are free after half a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

_KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _serve(path: str, host: str, port: int) -> None:
    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line: socket.socket = writer.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEP_ALIVE:
            line.setsockopt(socket.IPPROTO_TCP, option, value)
        try:
            from_database, to_database = await asyncio.open_unix_connection(path)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pass_on(reader, to_database), _pass_on(from_database, writer))

    server = await asyncio.start_server(connect, host, port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2], int(sys.argv[3])))
