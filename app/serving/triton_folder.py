"""The private folder of an embedded Triton: its backends and its sockets, named after the Limner that runs it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.serving.socket_folder import make_socket_folder, remove_socket_folder
from operators.shared_memory import is_running, process_mark

_PREFIX = "triton"
_GRPC = "grpc"
_METRICS = "metrics"


@dataclass(frozen=True)
class TritonFolder:
    """A folder ``triton-<process mark>-<random>`` that only this user can enter."""

    path: Path
    """Where it lies. The server's command line bears it, which tells the server from all others."""

    @classmethod
    def make(cls, run_folder: Path) -> TritonFolder:
        """Make one in `run_folder`, for this process."""
        folder = cls(Path(tempfile.mkdtemp(prefix=f"{_PREFIX}-{process_mark()}-", dir=run_folder.resolve())))
        make_socket_folder(folder._sockets, _METRICS)
        return folder

    @classmethod
    def left_by_the_dead(cls, run_folder: Path) -> Iterator[TritonFolder]:
        """Yield those in `run_folder` whose Limner no longer runs."""
        for path in run_folder.resolve().glob(f"{_PREFIX}-*-*"):
            if not is_running(path.name.split("-")[1]):
                yield cls(path)

    @property
    def backends(self) -> Path:
        """Where the server's backends lie."""
        return self.path / "backends"

    @property
    def grpc_address(self) -> str:
        """The server's option for gRPC; it adds the port to the socket's name."""
        return f"unix:{self._sockets.resolve() / _GRPC}"

    @property
    def metrics_address(self) -> str:
        """The server's option for its metrics."""
        return f"unix:{self._sockets.resolve() / _METRICS}"

    @property
    def target(self) -> str:
        """Where a client reaches the server by gRPC."""
        return f"{self.grpc_address}:1"

    def remove_sockets(self) -> None:
        """Remove the sockets of a server that has ended; the next one makes them anew."""
        for socket in self._sockets.resolve().iterdir():
            socket.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove it with all that it holds."""
        remove_socket_folder(self._sockets)
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def _sockets(self) -> Path:
        return self.path / "sockets"
