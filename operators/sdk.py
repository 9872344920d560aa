"""The one door to the MONAI Deploy App SDK and to Holoscan, which runs its graphs.

Two things must be true before Holoscan is imported: its logger is off, since it prints the text of exceptions and the
progress of graphs to standard error; and the limit of the stack is 32 MiB, or it warns at import. Only
``monai.deploy.core`` and ``monai.deploy.conditions`` are used: the SDK's package of operators needs MONAI and torch.
"""

# ruff: noqa: E402 - the preparation comes before the import on purpose

from __future__ import annotations

import os
import resource

_STACK_BYTES = 32 << 20


def _prepare() -> None:
    os.environ.setdefault("HOLOSCAN_LOG_LEVEL", "OFF")
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if soft != resource.RLIM_INFINITY and soft < _STACK_BYTES and (hard == resource.RLIM_INFINITY or hard > soft):
        wanted = _STACK_BYTES if hard == resource.RLIM_INFINITY else min(_STACK_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))


_prepare()

from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application, Fragment, Operator, OperatorSpec, RuntimeEnv

__all__ = ["Application", "CountCondition", "Fragment", "Operator", "OperatorSpec", "RuntimeEnv"]
