"""MONAI Deploy applications that go wrong on purpose, named in a pipeline's `application`."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from app.app import SegmentationApp
from app.graph import GraphRequest
from app.recording import Progress


class Crashes(SegmentationApp):
    """Dies as a segmentation fault in a native library does."""

    def run(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


class Hangs(SegmentationApp):
    """Never returns."""

    def run(self) -> None:
        time.sleep(3600)


class WritesNothing(SegmentationApp):
    """Returns normally without having done anything, as Holoscan's run() can."""

    def run(self) -> None:
        return


class TakesItsTime(SegmentationApp):
    """Waits before it runs, so that a test can act while a run is under way."""

    def run(self) -> Any:
        time.sleep(3)
        return super().run()


class CrashesInTheGeneralist(SegmentationApp):
    """Dies after the generalist's first slice."""

    def __init__(self, request: GraphRequest, progress: Progress) -> None:
        def die(step: str, done: int, total: int) -> None:
            if step == "generalist":
                os.kill(os.getpid(), signal.SIGSEGV)
            progress(step, done, total)

        super().__init__(request, die)
