"""A door before an archive that lets everything through, but for answers to objects that the archive has stored."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_SILENCE = 4
"""Of so many answers that are lost one ends in silence, the others in a closed connection."""
_QUERY = b"1.2.840.10008.5.1.4.1.2.2.1"
"""Study Root Query/Retrieve Information Model - FIND, in the association request of who asks."""
_ASSOCIATION_REQUEST, _DATA = b"\x01", b"\x04"


@dataclass
class LosingProxy:
    """Loses each second answer to an object by C-STORE or STOW-RS, the first of them, until it lost `most`.

    It has the answer then: the archive stored the object. It closes the connection in place of passing the answer on,
    or says nothing until who sent the object gives up. What asks (C-FIND, QIDO-RS) is always answered.
    """

    archive: tuple[str, int]
    most: int
    answers: int = 0
    """What the archive answered to objects, passed on or not."""
    lost: int = 0

    @contextmanager
    def running(self) -> Iterator[int]:
        """Yields its port on loopback."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            serving = threading.Thread(target=self._serve, args=(server,), name="losing-proxy")
            serving.start()
            try:
                yield server.getsockname()[1]
            finally:
                server.shutdown(socket.SHUT_RDWR)
                serving.join()

    def _serve(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it was shut down
            while True:
                threading.Thread(target=self._connect, args=(server.accept()[0],), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self.archive, timeout=10) as archive:
            for one in (client, archive):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pass_on(client, archive)

    def _pass_on(self, client: socket.socket, archive: socket.socket) -> None:
        """Let both talk in turns, as they do, until one of them ends or an answer is lost."""
        said, asks = b"", False
        while True:
            for one in select.select([client, archive], [], [])[0]:
                data = one.recv(1 << 16)
                if not data:
                    return
                if one is client:
                    said = said or data  # how what is answered next began
                    asks = asks or data.startswith(_ASSOCIATION_REQUEST) and _QUERY in data
                    archive.sendall(data)
                elif _is_object(said, asks) and self._is_lost():
                    if self.lost % _SILENCE == 0:
                        while client.recv(1 << 16):
                            pass
                    return
                else:
                    said = b""
                    client.sendall(data)

    def _is_lost(self) -> bool:
        self.answers += 1
        is_lost = self.answers % 2 == 1 and self.lost < self.most
        self.lost += is_lost
        return is_lost


def _is_object(said: bytes, asks: bool) -> bool:
    return said.startswith(b"POST") or said.startswith(_DATA) and not asks
