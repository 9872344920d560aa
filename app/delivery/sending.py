"""Files to a storage SCP over one association, as a modality sends a study."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.delivery.dimse import FileSyntax, Peer, associated, check_status, read_file_syntax, send_file
from app.errors import DeliveryError, DeliveryRefused
from app.settings_peer_tls import PeerTlsSettings

MAXIMUM_CONTEXTS = 128
"""Presentation contexts that one association can propose: odd numbers of one byte (PS3.8 section 9.3.2.2)."""


@dataclass(frozen=True)
class SentFile:
    """What became of one file."""

    path: Path
    accepted: bool
    status: int | None
    """The C-STORE status; None if none came."""
    code: str
    """Empty if it was accepted; else why not: ``not-dicom``, ``context-refused``, ``status-c000``, ``not-sent``, ..."""
    message: str
    """The same for people."""


@dataclass(frozen=True)
class SendReport:
    """What became of each file, in the order they were given."""

    files: tuple[SentFile, ...]


def send_folder(
    source: Path | Iterable[Path],
    host: str,
    port: int,
    called_ae_title: str,
    calling_ae_title: str,
    progress: Callable[[int, int], None] | None = None,
    *,
    timeout_seconds: float = 30.0,
    tls: PeerTlsSettings | None = None,
) -> SendReport:
    """Send files by C-STORE, proposing exactly the SOP classes and transfer syntaxes that they have.

    Parameters
    ----------
    source
        A folder, searched with all below it, or a file, or files. What is not DICOM is passed over and reported.
    host, port, called_ae_title
        The storage SCP.
    calling_ae_title
        What the sender calls itself.
    progress
        Called with the number of files done and of all, after each.
    timeout_seconds
        Longest wait for the connection and for each answer.
    tls
        How the storage SCP is called; in the clear if not given.

    Returns
    -------
    One entry for each file. If the association breaks, the files after that are ``not-sent``.

    Raises
    ------
    DeliveryError
        If no association comes about.
    """
    files = _files_of(source)
    found: list[SentFile] = []
    to_send: list[tuple[Path, FileSyntax]] = []
    for path in files:
        try:
            to_send.append((path, read_file_syntax(path)))
        except DeliveryRefused as error:
            found.append(_failed(path, error))
    peer = Peer(host, port, called_ae_title, calling_ae_title, timeout_seconds, tls)
    syntaxes = list(dict.fromkeys(syntax for _, syntax in to_send))

    def report(done: int) -> None:
        if progress is not None:
            progress(len(found) + done, len(files))

    for first in range(0, len(syntaxes), MAXIMUM_CONTEXTS):
        some = syntaxes[first : first + MAXIMUM_CONTEXTS]
        found.extend(_send([path for path, syntax in to_send if syntax in some], peer, some, report))
    order = {path: number for number, path in enumerate(files)}
    return SendReport(tuple(sorted(found, key=lambda one: order[one.path])))


def _send(
    paths: Sequence[Path], peer: Peer, syntaxes: Sequence[FileSyntax], done: Callable[[int], None]
) -> list[SentFile]:
    outcomes: list[SentFile] = []
    with associated(peer, syntaxes) as association:
        for path in paths:
            if association.is_established:
                status: int | None = None
                try:
                    status = send_file(association, path, peer)
                    check_status(status, peer)
                    outcomes.append(SentFile(path, accepted=True, status=status, code="", message=""))
                except DeliveryError as error:
                    outcomes.append(_failed(path, error, status))
            else:
                outcomes.append(SentFile(path, False, None, "not-sent", "the association had broken before"))
            done(len(outcomes))
    return outcomes


def _failed(path: Path, error: DeliveryError, status: int | None = None) -> SentFile:
    return SentFile(path, accepted=False, status=status, code=error.code, message=str(error))


def _files_of(source: Path | Iterable[Path]) -> list[Path]:
    if not isinstance(source, Path):
        return list(source)
    if source.is_dir():
        return sorted(path for path in source.rglob("*") if path.is_file())
    return [source]
