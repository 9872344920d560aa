"""Limner's predictor of slices over the embedded Triton, with its cache of embeddings on disk.

    python -m benchmarks.sam.limner REQUEST

REQUEST is JSON: ``repository`` (with LiteMedSAM), ``images`` (``.npy``, slice, row, column, 0 to 255), ``prompts``
(slice, left, top, right, bottom), ``threads`` (0 for what the model's configuration says), ``masks`` (where the masks
go).
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
from numpy.typing import NDArray

from app.serving.triton import EmbeddedTriton
from benchmarks.folders import REPOSITORY_ROOT
from benchmarks.sam.model import MODEL
from benchmarks.sam.rounds import DECODER, ENCODER, IMAGE, Boxed, read_prompts, stages, take_round
from benchmarks.worker import Clock, Figures, own_output, serve
from operators.sam.embeddings import EmbeddingCache
from operators.sam.frames import network_image
from operators.sam.network import ServedNetworks, open_networks
from operators.sam.package import GeneralistPackage
from operators.sam.predictor import SlicePredictor
from operators.sam.prompts import Box, SlicePrompt
from operators.triton import PROBE_MODEL

_START_SECONDS = 180.0
_DEADLINE_SECONDS = 600.0
_CACHE_BYTES = 1 << 30
_THREADS = re.compile(r'(key: "intra_op_thread_count"\s*value \{\s*string_value: ")\d+(")')


class _Counted:
    """A network whose seconds count to a stage, those of its server too; and the bytes that go to it and come back."""

    def __init__(self, stage: str, ask: Callable[[Any], Mapping[str, Any]], clock: Clock, server: Server) -> None:
        self._ask, self._server = clock.timed(stage, ask), server
        self.calls, self.bytes, self.server_cpu = 0, 0, 0.0

    def __call__(self, given: Any) -> Any:
        before = self._server.seconds()
        answer = self._ask(given)
        self.server_cpu += self._server.seconds() - before
        inputs = given.values() if isinstance(given, Mapping) else [given]
        self.bytes += sum(array.nbytes for array in (*inputs, *answer.values()))
        self.calls += 1
        return answer


class Server:
    """The processes of a Triton."""

    def __init__(self, pids: list[int]) -> None:
        self.pids = pids
        self._processes = [psutil.Process(pid) for pid in pids]

    def seconds(self) -> float:
        """Return their CPU seconds so far."""
        times = [process.cpu_times() for process in self._processes]
        return float(sum(one.user + one.system for one in times))


class Limner:
    """The predictor, which finds every embedding missing at the beginning of a round."""

    def __init__(self, package: GeneralistPackage, networks: ServedNetworks, server: Server, work: Path) -> None:
        self._package, self._networks = package, networks
        self._work = work
        self.server = server

    def masks(self, images: NDArray[np.uint8], prompts: list[Boxed]) -> tuple[NDArray[np.uint8], Figures]:
        """Return the masks of all prompts (`take_round`), and what it took to find them."""
        clock = Clock()
        encode = _Counted(ENCODER, self._networks.encode, clock, self.server)
        decode = _Counted(DECODER, self._networks.decode, clock, self.server)
        folder = Path(tempfile.mkdtemp(dir=self._work, prefix="embeddings-"))
        cache = EmbeddingCache(folder, most_bytes=_CACHE_BYTES)
        digest = self._package.parts[ENCODER].weights_digest
        predictor = SlicePredictor(self._package.contract, encode, decode, cache, encoder_digest=digest)

        def ask(prompt: Boxed) -> NDArray[np.bool_]:
            (found,) = predictor.predict(images[prompt.slice_index], [SlicePrompt(box=Box(*prompt.corners))])
            return found.mask

        before = self.server.seconds()
        with mock.patch("operators.sam.predictor.network_image", clock.timed(IMAGE, network_image)):
            masks, seconds = take_round(prompts, ask, clock)
        shutil.rmtree(folder)
        details = {
            "seconds": seconds,
            "server_cpu": {ENCODER: encode.server_cpu, DECODER: decode.server_cpu},
            "calls": {ENCODER: encode.calls, DECODER: decode.calls},
            "bytes": {ENCODER: encode.bytes, DECODER: decode.bytes},
        }
        server_cpu = self.server.seconds() - before
        figures = {"cpu": stages(clock.cpu), "wall": stages(clock.wall), "server_cpu": server_cpu, "details": details}
        return masks, figures


def lay_out(repository: Path, model: Path, threads: int) -> None:
    """Write a repository of the probe and both networks of `model`, each run with so many threads."""
    repository.mkdir(parents=True)
    (repository / PROBE_MODEL).symlink_to(REPOSITORY_ROOT / "triton_models" / PROBE_MODEL)
    for part in GeneralistPackage.load(model / MODEL).parts.values():
        folder = repository / part.model
        shutil.copytree(model / part.model, folder)
        if threads:
            path = folder / "config.pbtxt"
            path.write_text(with_threads(path.read_text(encoding="utf-8"), threads), encoding="utf-8")


def with_threads(configuration: str, threads: int) -> str:
    """Return a network's configuration with `threads` in place of those that it names."""
    text, count = _THREADS.subn(rf"\g<1>{threads}\g<2>", configuration)
    if count != 1:
        raise ValueError("the model's configuration does not say with how many threads its network runs")
    return text


@contextmanager
def opened(request: Figures) -> Iterator[Limner]:
    """What the request asks for, ready to work."""
    with tempfile.TemporaryDirectory(prefix="limner-bench-") as folder:
        repository = Path(folder) / "models"
        lay_out(repository, Path(request["repository"]), request["threads"])
        package = GeneralistPackage.load(repository / MODEL)
        triton = EmbeddedTriton(
            REPOSITORY_ROOT / ".triton" / "bin" / "python",
            repository,
            Path(folder) / "run",
            start_seconds=_START_SECONDS,
            probe_seconds=_DEADLINE_SECONDS,
        )
        with (
            triton,
            open_networks(package, triton.target, deadline_seconds=_DEADLINE_SECONDS, shared_memory=True) as networks,
        ):
            pids = [pid for pid in (triton.pid, *triton.stub_pids()) if pid is not None]
            yield Limner(package, networks, Server(pids), Path(folder))


def main() -> None:
    """Serve the driver."""
    output = own_output()
    request = json.loads(sys.argv[1])
    images, prompts = np.load(request["images"]), read_prompts(request)
    with opened(request) as limner:

        def run(_word: str) -> Figures:
            masks, figures = limner.masks(images, prompts)
            np.save(Path(request["masks"]), masks)
            return figures

        serve({"pids": limner.server.pids}, run, output)


if __name__ == "__main__":
    main()
