"""One file that is being received: written and digested as its bytes come, and kept, refused or dropped at its end.

Its memory does not grow with the object. Where there is no room, nothing (more) is written, but the digest goes on:
bytes that are already in the spool need no room to be acknowledged.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import OutOfResources
from app.listener.durable import KeptFile, mapped, write_all, write_failed
from app.listener.inspection import Buffer
from operators.durable import sync_folder

if TYPE_CHECKING:
    from app.listener.spool import Spool

_ROOM_STEP_BYTES = 8 << 20


class IncomingFile:
    """A file on its way into the spool; for one thread. It ends by `keep`, `refuse` or `discard`.

    Parameters
    ----------
    spool
        Where it goes.
    head
        Its first bytes, which are ours: preamble, prefix and File Meta Information.
    """

    def __init__(self, spool: Spool, head: bytes) -> None:
        self._spool = spool
        self._head_bytes = len(head)
        self._digest = hashlib.sha256()
        self.path: Path | None = None
        """Where it is written; None if it is not."""
        self._descriptor = -1
        self._next_check = _ROOM_STEP_BYTES
        self.shortage: OutOfResources | None = None
        """Why it is not written, if it is not."""
        self.size_bytes = 0
        """Bytes so far."""
        try:
            spool.check_room(0)
            path = spool.incoming_folder / f"{uuid.uuid4().hex}.part"
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self.path = path
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)  # says that it is not abandoned
        except OutOfResources as error:
            self.shortage = error
        except OSError as error:
            self.shortage = write_failed(error)
        self.write(head)

    def write(self, data: Buffer) -> None:
        """Take more bytes. A disk that does not take them is no error yet: `keep` tells."""
        self._digest.update(data)
        self.size_bytes += len(data)
        if self.shortage is not None:
            return
        try:
            if self.size_bytes >= self._next_check:
                self._spool.check_room(_ROOM_STEP_BYTES)
                self._next_check = self.size_bytes + _ROOM_STEP_BYTES
            write_all(self._descriptor, data)
        except OutOfResources as error:
            self._drop(error)
        except OSError as error:
            self._drop(write_failed(error))

    def data_set(self) -> memoryview:
        """Return the bytes behind the head: of this file or, without room for it, of the same one in the spool.

        Raises
        ------
        OutOfResources
            If it was not written and the spool does not have it.
        """
        if self.shortage is None:
            return mapped(self._descriptor)[self._head_bytes :]
        known, is_known = self._named()
        if not is_known:
            raise self.shortage
        descriptor = os.open(known.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return mapped(descriptor)[self._head_bytes :]
        finally:
            os.close(descriptor)

    def keep(self) -> KeptFile:
        """Put the file into the spool so that it survives a crash; the same bytes are kept once.

        Raises
        ------
        OutOfResources
            If there was no room for it, the disk fails, or other hosts can't have it now. Bytes that are already here
            need no room.
        """
        try:
            kept, is_known = self._named()
            if is_known:
                # it may have been renamed by a thread, or a process that was killed, that has not synced it yet
                sync_folder(kept.path.parent)
            else:
                self._place(kept)
        except OSError as error:
            raise write_failed(error) from error
        finally:
            self.discard()
        self._spool.share(kept, is_new=not is_known)
        return kept

    def _place(self, kept: KeptFile) -> None:
        if self.shortage is not None or self.path is None:
            raise self.shortage or OutOfResources("the file was discarded")
        self._move(self.path, kept.path)

    def refuse(self, code: str) -> str:
        """Put the file into quarantine for whoever looks into the refusal, and return its digest. Best effort."""
        digest = self._digest.hexdigest()
        try:
            if self.path is not None:
                self._move(self.path, self._spool.quarantine_path_of(digest))
                self._spool.write_reason(digest, self.size_bytes, code)
        except (OSError, OutOfResources):
            pass
        finally:
            self.discard()
        return digest

    def discard(self) -> None:
        """Remove what was written and not kept; nothing happens the second time."""
        descriptor, self._descriptor = self._descriptor, -1
        path, self.path = self.path, None
        if descriptor >= 0:
            os.close(descriptor)
        if path is not None:
            with contextlib.suppress(OSError):  # the janitor finds it
                path.unlink(missing_ok=True)

    def _named(self) -> tuple[KeptFile, bool]:
        """Return what the bytes so far are called in the spool, and whether it has them."""
        digest = self._digest.hexdigest()
        kept = KeptFile(digest, self.size_bytes, self._spool.path_of(digest))
        try:
            return kept, kept.path.stat().st_size == self.size_bytes
        except OSError:
            return kept, False

    def _move(self, path: Path, target: Path) -> None:
        os.fsync(self._descriptor)
        os.rename(path, target)
        self.path = None
        sync_folder(target.parent)

    def _drop(self, shortage: OutOfResources) -> None:
        """Give the room back at once; from here on only the digest goes on."""
        self.shortage = shortage
        self.discard()
