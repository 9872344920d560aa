"""Associations with peers, and files over them by C-STORE (PS3.4 annex B), proposing exactly what is sent.

Nothing is converted on the way: a destination that can't take the file's transfer syntax says so, and the file that was
verified is the file that arrives.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.sop_class import Verification

from app.delivery.destination import SLOWEST_BYTES_PER_SECOND
from app.delivery.statuses import PERMANENT, WARNINGS
from app.delivery.tls import tls_to
from app.delivery.toolkit_pause import Checkpoint, release
from app.errors import DeliveryError, DeliveryRefused
from app.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, UID, parse_uid
from app.settings_peer_tls import PeerTlsSettings

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event, EventHandlerType
    from pynetdicom.pdu_primitives import A_ASSOCIATE

IMPLICIT_VR_LITTLE_ENDIAN = UID("1.2.840.10008.1.2")

_REJECTED_TRANSIENT = 2
_END_SECONDS = 1.0
_OR_NO_CERTIFICATE = ", and takes the certificate of its [tls]: of that it may tell nothing but this"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Peer:
    """An application entity to call, and how to call it."""

    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str
    timeout_seconds: float = 30.0
    tls: PeerTlsSettings | None = None
    """None for a connection in the clear."""

    def __str__(self) -> str:
        return f"{self.called_ae_title} at {self.host}:{self.port}"


@dataclass(frozen=True)
class FileSyntax:
    """What File Meta Information says of a file: what has to be proposed to send it."""

    sop_class_uid: UID
    transfer_syntax_uid: UID


def echo(peer: Peer) -> None:
    """Send a C-ECHO (PS3.4 annex A).

    Raises
    ------
    DeliveryError
        If the peer does not answer with success.
    """
    with associated(peer, [FileSyntax(UID(str(Verification)), IMPLICIT_VR_LITTLE_ENDIAN)]) as association:
        status = association.send_c_echo().get("Status")
    if status is None:
        raise no_answer(peer)
    if status != 0:
        raise DeliveryError(
            f"{peer} answered C-ECHO with status 0x{status:04X} where 0x0000 was expected; look into its log",
            code=f"status-{status:04x}",
        )


def read_file_syntax(path: Path) -> FileSyntax:
    """Return SOP class and transfer syntax of a Part 10 file, from its File Meta Information.

    Raises
    ------
    DeliveryRefused
        Code ``not-dicom`` if it is no Part 10 file or lacks them; ``file-unreadable`` if it can't be read.
    """
    try:
        meta = read_file_meta_info(path)
        return FileSyntax(parse_uid(meta.MediaStorageSOPClassUID), parse_uid(meta.TransferSyntaxUID))
    except OSError as error:
        raise DeliveryRefused(f"the file can't be read ({error.strerror})", code="file-unreadable") from error
    except (InvalidDicomError, AttributeError, ValueError, TypeError) as error:
        raise DeliveryRefused(
            "not a DICOM Part 10 file with SOP class and transfer syntax in its File Meta Information",
            code="not-dicom",
        ) from error


@contextmanager
def associated(
    peer: Peer, syntaxes: Sequence[FileSyntax], handlers: Sequence[EventHandlerType] = ()
) -> Iterator[Association]:
    """Open an association that proposes one presentation context for each of `syntaxes`, and release it at the end.

    At most 128 can be proposed (PS3.8 section 9.3.2.2). `handlers` are called for what the peer sends by itself.

    Raises
    ------
    DeliveryError
        If the peer can't be reached, rejects the association or breaks off; ``certificate-refused``, ``tls-failed`` or
        ``tls-files`` if no TLS comes about.
    DeliveryRefused
        Code ``context-refused`` if it accepts the association but none of the presentation contexts.
    """
    _configure_toolkit()
    entity = AE(peer.calling_ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.connection_timeout = entity.acse_timeout = peer.timeout_seconds
    entity.dimse_timeout = entity.network_timeout = peer.timeout_seconds
    connections: list[socket.socket] = []
    rejections: list[A_ASSOCIATE] = []

    def on_connected(event: Event) -> None:
        connection = event.assoc.dul.socket.socket
        connections.append(connection)
        # a data set that waits for the acknowledgement of its command costs 40 ms an object
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        event.assoc._reactor_checkpoint = Checkpoint(event.assoc)  # noqa: SLF001 - else it loses responses

    def on_pdu(event: Event) -> None:
        # kept here: a requester that looks after the rejection sees its connection closed, and nothing else
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            rejections.append(event.pdu.to_primitive())

    tls = None if peer.tls is None else tls_to(peer.host, peer.tls)
    contexts = [build_context(one.sop_class_uid, one.transfer_syntax_uid) for one in syntaxes]
    try:
        association = entity.associate(
            peer.host,
            peer.port,
            contexts=contexts,
            ae_title=peer.called_ae_title,
            evt_handlers=[(evt.EVT_CONN_OPEN, on_connected), (evt.EVT_PDU_RECV, on_pdu), *handlers],
            tls_args=tls,
        )
    except OSError as error:  # a name that does not resolve
        raise _unreachable(peer) from error
    try:
        if tls is not None and tls[0].failure is not None:
            raise _not_secured(peer, tls[0].failure)
        if rejections:
            raise _rejected(rejections[0], peer)
        if not association.is_established:
            raise _not_established(association, peer, bool(connections))
        yield association
    finally:
        if association.is_established:
            release(association, peer.timeout_seconds + _END_SECONDS)
        for connection in connections:  # the toolkit leaves one open that the peer has ended
            connection.close()
        if tls is not None:
            tls[0].close()


def send_file(association: Association, path: Path, peer: Peer) -> int:
    """Send a file over an association and return the C-STORE status.

    The toolkit counts the wait for the answer from when the file is about to be sent, so it has the time for that too.

    Raises
    ------
    DeliveryError
        Code ``no-answer`` if the association broke or the answer did not come: the file may or may not be stored.
    DeliveryRefused
        Code ``context-refused`` if the peer did not accept what the file needs.
    """
    syntax = read_file_syntax(path)
    if syntax not in accepted_syntaxes(association):
        raise context_refused(peer, [syntax])
    try:
        association.dimse_timeout = peer.timeout_seconds + path.stat().st_size / SLOWEST_BYTES_PER_SECOND
        status = association.send_c_store(path).get("Status")
    except RuntimeError as error:  # the association is gone
        raise no_answer(peer) from error
    except (ValueError, AttributeError) as error:
        raise DeliveryRefused("the file's File Meta Information can't be used to send it", code="not-dicom") from error
    if status is None:
        _end(association)
        raise no_answer(peer)
    return int(status)


def accepted_syntaxes(association: Association) -> set[FileSyntax]:
    """Return what the peer accepted, each SOP class with its transfer syntax."""
    return {
        FileSyntax(UID(str(context.abstract_syntax)), UID(str(context.transfer_syntax[0])))
        for context in association.accepted_contexts
    }


def check_status(status: int, peer: Peer) -> None:
    """Judge a C-STORE status (PS3.4 section B.2.3): success and warnings pass, the latter with a line in the log.

    Raises
    ------
    DeliveryError
        If it may succeed later.
    DeliveryRefused
        If the same bytes would be refused again.
    """
    if status == 0:
        return
    code = f"status-{status:04x}"
    if status in WARNINGS:
        _log.warning("stored with a warning", code=code, called_ae_title=peer.called_ae_title)
        return
    meaning = PERMANENT.get(status)
    if meaning is not None:
        raise DeliveryRefused(
            f"{peer} refused the object with status 0x{status:04X} ({meaning}) where 0x0000 was expected; "
            "its log says what it does not accept",
            code=code,
        )
    raise DeliveryError(
        f"{peer} could not store the object now (status 0x{status:04X}); it will be sent again", code=code
    )


def _configure_toolkit() -> None:
    """Send files as they are, without decoding, and keep the toolkit's own log silent: it holds UIDs."""
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    _config.LOG_HANDLER_LEVEL = "none"
    _config.STORE_SEND_CHUNKED_DATASET = True


def _end(association: Association) -> None:
    """Make sure that an association without an answer is over: its own thread takes a moment to see that."""
    deadline = time.monotonic() + _END_SECONDS
    while association.is_established and time.monotonic() < deadline:
        time.sleep(0.01)
    if association.is_established:
        association.abort()


def _rejected(answer: A_ASSOCIATE, peer: Peer) -> DeliveryError:
    kind = "for now" if answer.result == _REJECTED_TRANSIENT else "until something is changed"
    return DeliveryError(
        f"{peer} rejected the association {kind}: {answer.reason_str}; "
        f"check that it knows the calling AE title {peer.calling_ae_title} and this host, and is called by its own",
        code="association-rejected",
    )


def _not_established(association: Association, peer: Peer, connected: bool) -> DeliveryError:
    if not connected:
        return _unreachable(peer)
    if association.rejected_contexts and not association.accepted_contexts:
        return context_refused(
            peer,
            [
                FileSyntax(UID(str(one.abstract_syntax)), UID(str(one.transfer_syntax[0])))
                for one in association.rejected_contexts
            ],
        )
    return DeliveryError(
        f"{peer} broke off or did not answer the association request within {peer.timeout_seconds:g} s; "
        f"check that a DICOM server listens there{_OR_NO_CERTIFICATE if peer.tls else ''}",
        code="association-aborted",
    )


def _not_secured(peer: Peer, failure: OSError) -> DeliveryError:
    if isinstance(failure, ssl.SSLCertVerificationError):
        return DeliveryError(
            f"{peer} has a certificate that is not accepted: {failure.verify_message}; correct authorities, or "
            "host_name, of its [tls], or have the certificate renewed",
            code="certificate-refused",
        )
    why = failure.reason if isinstance(failure, ssl.SSLError) else type(failure).__name__
    return DeliveryError(
        f"there is no TLS with {peer} ({why}); check that it speaks TLS on that port, and takes the "
        "certificate of its [tls]",
        code="tls-failed",
    )


def _unreachable(peer: Peer) -> DeliveryError:
    return DeliveryError(
        f"{peer} can't be reached within {peer.timeout_seconds:g} s; check host, port and network, and that it runs",
        code="unreachable",
    )


def no_answer(peer: Peer) -> DeliveryError:
    """Return the error that says that a peer broke off or kept silent."""
    return DeliveryError(
        f"{peer} broke the association or did not answer within {peer.timeout_seconds:g} s; it will be asked again",
        code="no-answer",
    )


def context_refused(peer: Peer, syntaxes: Sequence[FileSyntax]) -> DeliveryRefused:
    """Return the error that says that a peer accepts none of these presentation contexts."""
    wanted = ", ".join(f"{one.sop_class_uid} in {one.transfer_syntax_uid}" for one in syntaxes)
    return DeliveryRefused(
        f"{peer} accepts no presentation context for {wanted} (SOP class in transfer syntax), which was expected; "
        "let it accept that SOP class, or send the result elsewhere",
        code="context-refused",
    )
