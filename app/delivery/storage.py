"""A destination that takes results by C-STORE, is asked for them by C-FIND, and commits itself to keeping them.

Nothing is converted on the way: a destination that can't take the file's transfer syntax says so, and the file that was
verified is the file that arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from app.delivery.commitment import request_commitment
from app.delivery.destination import CommitmentRequest, ReportedCommitment, Send
from app.delivery.dimse import (
    FileSyntax,
    Peer,
    accepted_syntaxes,
    associated,
    check_status,
    context_refused,
    echo,
    read_file_syntax,
    send_file,
)
from app.delivery.query import DimseQuery
from app.errors import DeliveryError, DeliveryRefused
from app.identifiers import UID
from app.settings import DestinationSettings
from operators.object_kinds import NEEDS, Kind

_PROBE_SECONDS = 10.0
"""A question that nobody waits for must not hold up a server that stops."""
_MAXIMUM_CONTEXTS = 128
"""That one association can propose (PS3.8 section 9.3.2.2)."""


QUERY_UNSUPPORTED = "query-unsupported"


class DimseDestination:
    """A destination that takes results by C-STORE.

    Parameters
    ----------
    settings
        Where it is.
    calling_ae_title
        What Limner calls itself, if the settings of the destination don't say.
    listener_ae_title
        What the destination calls when it reports what it keeps; `calling_ae_title` if not given.
    """

    def __init__(self, settings: DestinationSettings, calling_ae_title: str, listener_ae_title: str = "") -> None:
        self._name = settings.name
        self._peer = Peer(
            host=settings.host,
            port=settings.port,
            called_ae_title=settings.ae_title,
            calling_ae_title=settings.calling_ae_title or calling_ae_title,
            timeout_seconds=settings.timeout_seconds,
            tls=settings.tls,
        )
        self._committer = replace(self._peer, calling_ae_title=listener_ae_title or self._peer.calling_ae_title)
        asked = settings.asked
        self._query: DimseQuery | None = None
        self._asks_another = settings.query_service is not None
        if asked is not None:
            title, host, port = asked
            peer = replace(self._peer, called_ae_title=title, host=host, port=port)
            self._query = DimseQuery(peer, query_seconds=settings.timeout_seconds)

    @property
    def name(self) -> str:
        """What rules and records call it."""
        return self._name

    def check(self) -> None:
        """Send a C-ECHO.

        Raises
        ------
        DeliveryError
            If it is not answered with success; the message says what to do.
        """
        echo(self._peer)

    def accepted_kinds(self) -> tuple[Kind, ...]:
        """Ask which kinds of results it takes, by proposing all of them; nothing is sent.

        Raises
        ------
        DeliveryError
            If it can't be asked now.
        """
        needs = {kind: FileSyntax(UID(str(sop)), UID(str(syntax))) for kind, (sop, syntax) in NEEDS.items()}
        peer = replace(self._peer, timeout_seconds=min(self._peer.timeout_seconds, _PROBE_SECONDS))
        try:
            with associated(peer, list(dict.fromkeys(needs.values()))) as association:
                accepted = accepted_syntaxes(association)
        except DeliveryRefused:
            return ()
        return tuple(kind for kind, need in needs.items() if need in accepted)

    def deliver(self, path: Path) -> None:
        """Send a Part 10 file by C-STORE over an association of its own.

        Raises
        ------
        DeliveryError
            Code ``unreachable``, ``association-rejected``, ``association-aborted``, ``no-answer`` or the status as
            ``status-a700``: may succeed later.
        DeliveryRefused
            Code ``context-refused``, the status as ``status-c000``, or ``not-dicom``: won't.
        """
        with self.opened([path]) as send:
            send(path)

    @contextmanager
    def opened(self, paths: Sequence[Path]) -> Iterator[Send]:
        """Open one association for all these files; errors as those of `deliver`, those of a file when it is sent."""
        syntaxes = list(dict.fromkeys(_syntaxes_of(paths)))[:_MAXIMUM_CONTEXTS]
        if not syntaxes:
            yield self._send_nothing
            return
        with ExitStack() as stack:
            try:
                association = stack.enter_context(associated(self._peer, syntaxes))
            except DeliveryRefused:  # the peer lets us in, and takes none of it
                yield self._send_nothing
            else:
                yield lambda path: check_status(send_file(association, path, self._peer), self._peer)

    def _send_nothing(self, path: Path) -> None:
        raise context_refused(self._peer, [read_file_syntax(path)])

    @property
    def can_be_asked(self) -> bool:
        """Whether the settings let it be asked."""
        return self._query is not None

    def holds(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> bool:
        """Whether it has an object.

        Errors as `DimseQuery.find`; where another application entity is asked, ``query-`` stands before their codes.
        """
        if self._query is None:
            raise DeliveryRefused("the settings say that the destination is not asked", code=QUERY_UNSUPPORTED)
        try:
            return self._query.holds_instance(study_instance_uid, series_instance_uid, sop_instance_uid)
        except DeliveryError as error:
            if self._asks_another:
                raise type(error)(str(error), code=f"query-{error.code}") from error
            raise

    def request_commitment(self, request: CommitmentRequest, on_report: Callable[[ReportedCommitment], bool]) -> None:
        """Ask it to commit itself to what it was sent (`app.delivery.commitment.request_commitment`)."""
        request_commitment(self._committer, request, on_report)


def _syntaxes_of(paths: Sequence[Path]) -> Iterator[FileSyntax]:
    for path in paths:
        try:
            yield read_file_syntax(path)
        except DeliveryRefused:  # said when it is sent
            continue
