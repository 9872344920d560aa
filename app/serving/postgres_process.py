"""The accounts and processes of PostgreSQL servers: whom one runs as, which one runs on a folder, how one is ended."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import stat
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.errors import ServingError

_SYSTEM_USERS = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """Whom the server runs as: None of it is set where Limner itself is not root."""

    user: str | None = None
    uid: int | None = None
    gid: int | None = None


def account_for(folder: Path) -> Account:
    """Return whom the server of `folder` runs as: the caller; for root, the owner or a system user.

    Raises
    ------
    ServingError
        If the caller is root and there is nobody else to run as.
    """
    if os.geteuid() != 0:
        return Account()
    if folder.exists():  # a cluster stays its owner's
        owner = folder.stat()
        if owner.st_uid != 0:
            return Account(str(owner.st_uid), owner.st_uid, owner.st_gid)
    for name in _SYSTEM_USERS:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise ServingError(
        "PostgreSQL can't run as root, and this system has no user 'postgres' or 'nobody'; run Limner as a normal user",
        code="database-root",
    )


def reachable(path: Path, account: Account) -> bool:
    """Whether the account may search every folder above `path` and read it, by the permission bits."""
    for folder in path.resolve().parents:
        status = folder.stat()
        if status.st_uid == account.uid:
            needed = stat.S_IXUSR
        elif status.st_gid == account.gid:
            needed = stat.S_IXGRP
        else:
            needed = stat.S_IXOTH
        if not status.st_mode & needed:
            return False
    status = path.stat()
    return status.st_uid == account.uid or bool(status.st_mode & stat.S_IROTH)


def _pid_file_lines(folder: Path) -> list[str]:
    try:
        return (folder / "postmaster.pid").read_text().splitlines()
    except OSError:
        return []


def postmaster_of(folder: Path) -> psutil.Process | None:
    """Return the running server of the cluster in `folder`; a process that merely got its number is not it."""
    lines = _pid_file_lines(folder)
    if not lines or not lines[0].strip().isdigit():
        return None
    try:
        process = psutil.Process(int(lines[0]))
        if process.name() == "postgres" and str(folder) in process.cmdline():
            return process
    except psutil.Error:
        pass
    return None


def end(process: psutil.Process, seconds: float) -> None:
    """End a server: the fast shutdown first, the immediate one (recovery at the next start) if that takes too long."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
        try:
            process.wait(timeout=seconds)
            return
        except psutil.TimeoutExpired:
            continue
    raise ServingError("PostgreSQL does not end", code="database-stop")
