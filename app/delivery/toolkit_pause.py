"""The toolkit's pause of an association's reactor while a request waits for its response, without its race.

pynetdicom's reactor takes messages off the same queue that a request's response comes to, so the requester stops it
before it sends: it closes a checkpoint and waits until the reactor says that it is paused. The reactor says so before
it looks at the checkpoint, and takes it back after; where it is interrupted between the look and that, as on a busy
machine, the requester finds it paused though it goes on, and it takes the response away. The request then waits until
its time is over, and the association is aborted. Here the look and the taking back are one step.

A report of the peer's is served in a thread of its own, whose end says that the reactor is not paused, though it may
be: whoever stops the reactor next, as to release the association, would wait without end. So as long as it is stopped
it says so again and again.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pynetdicom.association import Association

_SAID_AGAIN_SECONDS = 0.01


class Checkpoint(threading.Event):
    """What the reactor of `association` passes in each of its rounds, unless it is closed.

    To be put in the place of the toolkit's own before the association is established. It is not made for an
    association that is released by its network timeout (``network_timeout_response``): the reactor calls itself then.
    """

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self._change = threading.Condition()
        self._is_open = True

    def is_set(self) -> bool:
        """Whether the reactor may pass."""
        return self._is_open

    def set(self) -> None:
        """Let the reactor go on."""
        with self._change:
            self._is_open = True
            self._change.notify_all()

    def clear(self) -> None:
        """Stop the reactor: it is, as soon as it says that it is paused."""
        with self._change:
            self._is_open = False

    def wait(self, timeout: float | None = None) -> bool:
        """Pass, when it is open or the time is over; until then the reactor is paused, and from then on it is not."""
        ends = None if timeout is None else time.monotonic() + timeout
        with self._change:
            while not self._is_open and (ends is None or time.monotonic() < ends):
                self._association._is_paused = True  # noqa: SLF001 - the toolkit's own flag
                self._change.wait(_SAID_AGAIN_SECONDS)
            self._association._is_paused = False  # noqa: SLF001 - as above
            return self._is_open


def release(association: Association, seconds: float) -> None:
    """Release an association; the toolkit waits for its reactor to pause without end, here for `seconds` at most."""

    def go_on() -> None:
        association._is_paused = True  # noqa: SLF001 - the toolkit's own flag

    too_long = threading.Timer(seconds, go_on)
    too_long.daemon = True
    too_long.start()
    try:
        association.release()
    finally:
        too_long.cancel()
