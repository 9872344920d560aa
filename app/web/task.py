"""What a session's process is given at its start: plain data, free of HTTP and of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operators.sam.package import GeneralistPackage


@dataclass(frozen=True)
class SessionTask:
    """One series to draw on, and the generalist to draw with."""

    files: tuple[Path, ...]
    """The instances of the series, in any order."""
    package: GeneralistPackage
    window: Mapping[str, Any] | None
    """As `app.web.messages.Window` has it; None for the model's and modality's own."""
    triton_target: str
    """gRPC address, ``host:port`` or ``unix:…``."""
    request_seconds: float
    """Deadline of one inference request."""
    shared_memory: bool
    """Whether tensors go through shared memory."""
    embeddings_folder: Path
    embedding_bytes: int
    """What embeddings may take on disk."""
