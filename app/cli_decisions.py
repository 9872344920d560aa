"""A person's decision at the command line: whose it is, and whether a server has carried it out."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Callable

from app.errors import JobError
from app.jobs.records import Records
from app.terminal import say

_DECISION_SECONDS = 20.0
_LOOK_SECONDS = 0.2


def wait_until(carried_out: Callable[[], bool], done: str, records: Records) -> None:
    """Wait until a server has carried out what is in the queue, and say so; if no worker runs anywhere, say that.

    Raises
    ------
    JobError
        ``decision-waiting``: it did not in time.
    """
    if not records.has_workers():
        say("no worker runs: the decision is carried out when one starts")
        return
    deadline = time.monotonic() + _DECISION_SECONDS
    while time.monotonic() < deadline:
        if carried_out():
            say(done)
            return
        time.sleep(_LOOK_SECONDS)
    raise JobError(
        f"the server did not carry the decision out within {_DECISION_SECONDS:.0f} s; it is in the queue still",
        code="decision-waiting",
    )


def person() -> str:
    """Return the name of the user who gave the command; the number where it has none, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
