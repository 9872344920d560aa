"""Applications that go wrong on purpose, as `tests.unit.app.jobs.planted_applications:Name`, and one that does not."""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import operators.sdk as sdk
from app.graph import RECORD_FILE, CompletionRecord, GraphRequest
from operators.durable import write_durably
from operators.errors import InferenceFailed, SeriesRefused

Progress = Callable[[str, int, int], None]


class _Planted:
    def __init__(self, request: GraphRequest, progress: Progress) -> None:
        self.request = request
        self.progress = progress


def _write_record(request: GraphRequest) -> None:
    record = CompletionRecord(
        identity=request.identity,
        findings=(),
        steps={"read": 0.5},
    )
    write_durably(request.output_folder / RECORD_FILE, record.to_json())


class Good(_Planted):
    """Does what is asked."""

    def run(self) -> None:
        self.progress("read", 1, 2)
        self.progress("read", 2, 2)
        _write_record(self.request)


class HasNoRoom(_Planted):
    """A disk that is full."""

    def run(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/secret/path")


class Crashes(_Planted):
    """A segmentation fault."""

    def run(self) -> None:
        ctypes.string_at(0)


class Aborts(_Planted):
    """What a failed assertion in C++ does."""

    def run(self) -> None:
        os.abort()


class Hangs(_Planted):
    """Never returns."""

    def run(self) -> None:
        self.progress("infer", 0, 3)
        time.sleep(3600)


class _Spawns(_Planted):
    """Has a child of its own, that never returns; the child's number is left in a file."""

    def spawn(self) -> None:
        pid = os.fork()
        if not pid:
            time.sleep(3600)
        (self.request.output_folder / "pid").write_text(str(pid))


class SpawnsAndHangs(_Spawns):
    """Never returns either."""

    def run(self) -> None:
        self.spawn()
        time.sleep(3600)


class SpawnsAndCrashes(_Spawns):
    """A segmentation fault, beside a child that holds all that it held."""

    def run(self) -> None:
        self.spawn()
        ctypes.string_at(0)


class SpawnsAndEnds(_Spawns):
    """Does what is asked, and leaves a child behind."""

    def run(self) -> None:
        self.spawn()
        _write_record(self.request)


class Chatters(_Planted):
    """Says each millisecond how far it is, and takes its time."""

    def run(self) -> None:
        ends = time.monotonic() + 30
        while time.monotonic() < ends:
            self.progress("infer", 1, 3)
            time.sleep(0.001)


class ChattersAndHogs(_Planted):
    """Takes more and more memory, and says each millisecond how far it is."""

    def run(self) -> None:
        kept = []
        for _ in range(500):  # 2 GiB in all, which its own limit lets pass
            kept.append(np.ones(1 << 19))
            for _ in range(10):
                self.progress("infer", 1, 3)
                time.sleep(0.001)
        _write_record(self.request)


class Hogs(_Planted):
    """Takes more and more memory."""

    def run(self) -> None:
        kept = []
        while True:
            kept.append(np.ones(4 << 20))
            time.sleep(0.01)


class Jumps(_Planted):
    """Asks for far more than there is at once."""

    def run(self) -> None:
        self.kept = np.ones(1 << 40, dtype=np.uint8)


class Raises(_Planted):
    """An error nobody thought of, with what must not get out in its text."""

    def run(self) -> None:
        raise RuntimeError("Doe^Jane 19600102")


class Refuses(_Planted):
    """A series that can't be processed."""

    def run(self) -> None:
        raise SeriesRefused("expected a slice every 2.00 mm", code="slice-missing")


class LosesTriton(_Planted):
    """No inference server."""

    def run(self) -> None:
        raise InferenceFailed("can't be reached", code="triton-unreachable")


class LeavesRubbish(_Planted):
    """A record that is none."""

    def run(self) -> None:
        write_durably(self.request.output_folder / RECORD_FILE, b'{"objects": []}')


class LeavesARecordThatTheDiskDoesNotGive(_Planted):
    """A record whose first bytes can't be read: EIO."""

    def run(self) -> None:
        (self.request.output_folder / RECORD_FILE).symlink_to("/proc/self/mem")


class Prints(_Planted):
    """Writes to both streams, from Python and from below it."""

    def run(self) -> None:
        os.write(1, b"printed out\n")
        os.write(2, b"printed err\n")
        _write_record(self.request)


class _Source(sdk.Operator):
    def setup(self, spec: sdk.OperatorSpec) -> None:
        spec.output("out")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        return  # and does not emit


class _Sink(sdk.Operator):
    def __init__(self, fragment: sdk.Fragment, *args: Any, request: GraphRequest, **kwargs: Any) -> None:
        self.request = request
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: sdk.OperatorSpec) -> None:
        spec.input("in")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        op_input.receive("in")
        _write_record(self.request)


class DoesNotEmit(sdk.Application):
    """A real graph whose source does not emit: its run() returns normally, and the sink never ran."""

    def __init__(self, request: GraphRequest, progress: Progress) -> None:
        self.request = request
        super().__init__(argv=["planted"])

    def compose(self) -> None:
        source = _Source(self, sdk.CountCondition(self, 1), name="source")
        self.add_flow(source, _Sink(self, request=self.request, name="sink"), {("out", "in")})
