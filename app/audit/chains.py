"""The chains under one audit folder: that of the process which has no name, and one for each that has."""

from __future__ import annotations

from pathlib import Path

from app.audit.chain import HEAD_NAME, LOG_NAME
from app.audit.verification import AuditReport, verify


def chain_folders(folder: Path) -> list[Path]:
    """Return the folders that hold a chain, or what is left of one: `folder` itself first, then by name."""
    inner = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return [path for path in (folder, *inner) if any((path / name).exists() for name in (LOG_NAME, HEAD_NAME))]


def verify_chains(folder: Path) -> dict[str, AuditReport]:
    """Check every chain under `folder`; return what was found by the name of the process, empty for that without one.

    A chain that was removed as a whole leaves no trace here: know the names of your processes.

    Raises
    ------
    AuditError
        If there is none, or one can't be read; never for what it holds.
    """
    found = chain_folders(folder) or [folder]
    return {"" if path == folder else path.name: verify(path) for path in found}
