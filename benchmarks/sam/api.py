"""Limner's HTTP API, as a viewer has it: `limner serve` with its PostgreSQL, its Triton and a session's own process.

    python -m benchmarks.sam.api REQUEST

REQUEST is JSON as that of `benchmarks.sam.limner`, and ``series`` (a folder of DICOM files) with ``slices`` (which of
its slices the images are).
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pydicom
from numpy.typing import NDArray

from benchmarks.folders import REPOSITORY_ROOT
from benchmarks.sam.limner import Server, lay_out
from benchmarks.sam.model import MODEL
from benchmarks.sam.rounds import Boxed, read_prompts, stages, take_round
from benchmarks.worker import Clock, Figures, own_output, serve

_PATIENCE_SECONDS = 300.0
_LOOK_AGAIN_SECONDS = 0.5
_SETTINGS = """
data_folder = "data"
model_repository = "{repository}"

[listener]
host = "127.0.0.1"
port = {dimse}
low_water_bytes = 1048576

[routing]
series_quiet_seconds = 0.5
study_quiet_seconds = 1.0
scan_seconds = 0.1

[web]
enabled = true
port = {http}
token_file = "token"
models = ["{model}"]
idle_seconds = 3600
"""


class ApiFailed(Exception):
    """The API did not answer as it should."""


@dataclass
class Session:
    """A session on the series; one connection, which is kept through a round."""

    connection: http.client.HTTPConnection
    token: str
    path: str = ""

    def open(self, series: Path) -> None:
        """Open it as soon as the series was received."""
        header = pydicom.dcmread(next(series.iterdir()), stop_before_pixels=True)
        uids = {
            "study_instance_uid": str(header.StudyInstanceUID),
            "series_instance_uid": str(header.SeriesInstanceUID),
        }
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            status, answer = self._post("/v1/sessions", {**uids, "model": MODEL})
            if status == http.HTTPStatus.CREATED:
                self.path = f"/v1/sessions/{answer['id']}"
                return
            time.sleep(_LOOK_AGAIN_SECONDS)
        raise ApiFailed(f"no session was opened: {answer}")

    def mask(self, slice_number: int, prompt: Boxed, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return the mask of a box, (rows, columns), out of its run lengths."""
        box = dict(zip(("left", "top", "right", "bottom"), prompt.corners, strict=True))
        asked = {"coordinates": "pixel", "slice": slice_number, "box": box}
        status, answer = self._post(f"{self.path}/prompts", asked)
        if status != http.HTTPStatus.OK:
            raise ApiFailed(f"a prompt was answered with {status}: {answer}")
        runs = answer["masks"][0]["runs"]
        return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape)

    def _post(self, path: str, content: Any) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        self.connection.request("POST", path, json.dumps(content), headers)
        response = self.connection.getresponse()
        return response.status, json.loads(response.read())


class Api:
    """A server that has the series, and a session on it."""

    def __init__(self, folder: Path, session: Session, pid: int) -> None:
        self._embeddings = folder / "data" / "embeddings"
        self._session = session
        self.server = Server([pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))])

    def masks(
        self, slices: list[int], prompts: list[Boxed], shape: tuple[int, ...]
    ) -> tuple[NDArray[np.uint8], Figures]:
        """Return the masks of all prompts (`take_round`), and what it took to find them."""
        self._session.connection.close()  # the server closed it meanwhile; the first prompt reconnects
        for kept in self._embeddings.glob("*.single"):
            kept.unlink()
        clock, before = Clock(), self.server.seconds()
        masks, seconds = take_round(
            prompts, lambda prompt: self._session.mask(slices[prompt.slice_index], prompt, shape), clock
        )
        figures: Figures = {"cpu": stages(clock.cpu), "wall": stages(clock.wall), "details": {"seconds": seconds}}
        return masks, {**figures, "server_cpu": self.server.seconds() - before}


@contextmanager
def opened(request: Figures) -> Iterator[Api]:
    """What the request asks for, ready to work."""
    with tempfile.TemporaryDirectory(prefix="limner-bench-") as name:
        folder = Path(name)
        lay_out(folder / "models", Path(request["repository"]), request["threads"])
        token, dimse, port = secrets.token_hex(32), _free_port(), _free_port()
        (folder / "token").write_text(token)
        settings = folder / "limner.toml"
        text = _SETTINGS.format(repository=folder / "models", dimse=dimse, http=port, model=MODEL)
        settings.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "app.cli"]
        server = subprocess.Popen(
            [*command, "serve", "--settings", str(settings)], cwd=REPOSITORY_ROOT, stdin=subprocess.DEVNULL
        )
        try:
            for one in (dimse, port):
                _wait_for(one, server)
            submit = [*command, "submit", request["series"], "--settings", str(settings)]
            subprocess.run(submit, cwd=REPOSITORY_ROOT, check=True)
            session = Session(http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_SECONDS), token)
            session.open(Path(request["series"]))
            yield Api(folder, session, server.pid)
            session.connection.close()
        finally:
            server.terminate()
            server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(_LOOK_AGAIN_SECONDS)
    raise ApiFailed(f"the server does not listen on port {port}; its log is above")


def main() -> None:
    """Serve the driver."""
    output = own_output()
    request = json.loads(sys.argv[1])
    prompts, shape = read_prompts(request), np.load(request["images"], mmap_mode="r").shape[1:]
    with opened(request) as api:

        def run(_word: str) -> Figures:
            masks, figures = api.masks(request["slices"], prompts, shape)
            np.save(Path(request["masks"]), masks)
            return figures

        serve({"pids": [pid for pid in api.server.pids if pid != os.getpid()]}, run, output)


if __name__ == "__main__":
    main()
