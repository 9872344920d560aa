"""The private folder of a child server's unix socket: short enough for one, and found again after a kill."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_SOCKET_PATH_LIMIT = 107
"""The bytes that fit ``sun_path``, unix(7), without the zero at the end."""
_SHORT_NAME = "limner-"


def make_socket_folder(folder: Path, longest_name: str) -> Path:
    """Make `folder` for sockets with names of at most the length of `longest_name`, and return where it really lies.

    Only this user can enter it. Where its path is too long for a socket, it is made in the system's folder for
    temporary files, and `folder` is a link to it: whoever knows `folder` can remove it, after a kill too.
    """
    if _fits(folder / longest_name):
        folder.mkdir(mode=0o700)
        return folder
    within = Path(tempfile.gettempdir())
    if not _fits(within / f"{_SHORT_NAME}12345678" / longest_name):
        within = Path("/tmp")  # noqa: S108 - a folder of mode 0700 with a random name is made in it
    short = Path(tempfile.mkdtemp(prefix=_SHORT_NAME, dir=within))
    folder.symlink_to(short)
    return short


def remove_socket_folder(folder: Path) -> None:
    """Remove what `make_socket_folder` made; nothing happens where there is nothing."""
    if not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
        return
    short = folder.readlink()
    if short.name.startswith(_SHORT_NAME):
        shutil.rmtree(short, ignore_errors=True)
    folder.unlink(missing_ok=True)


def _fits(socket: Path) -> bool:
    return len(os.fsencode(socket)) <= _SOCKET_PATH_LIMIT
