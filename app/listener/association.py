"""Who may associate, and the life of the listener (PS3.8 section 7.1)."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog
from pynetdicom import AE, _config, evt
from pynetdicom.pdu_primitives import A_ASSOCIATE, A_RELEASE

from app.audit.events import AuditEvent, Outcome
from app.errors import AuditError, ServingError, SettingsError
from app.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from app.listener.commitment import CommitmentReports
from app.listener.connection import BoundedServer, BoundedTlsSocket, SharedContexts, TakenRequestHandler
from app.listener.handlers import RecordInstance, StorageHandlers
from app.listener.janitor import Janitor
from app.listener.limits import (
    REQUEST_UNREADABLE,
    STORAGE_BELOW_WATERMARK,
    TLS_HANDSHAKE_FAILED,
    TRANSIENT_REJECTIONS,
    AssociationLimits,
)
from app.listener.presentation import supported_contexts
from app.listener.sessions import Session, Sessions
from app.listener.spool import Spool
from app.listener.takeover import Takeover
from app.listener.tls import server_context
from app.listener.transfers import Transfers
from app.settings_listener import ListenerSettings, SourceSettings

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event

    from app.audit.log import AuditLog

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# result, source and reason of A-ASSOCIATE-RJ (PS3.8 table 9-21)
_REJECTED_PERMANENT = 0x01
_SERVICE_USER = 0x01
_NO_REASON_GIVEN = 0x01
_CALLING_AE_TITLE_NOT_RECOGNIZED = 0x03
_CALLED_AE_TITLE_NOT_RECOGNIZED = 0x07
_REASONS = {
    "called-ae-title-not-recognized": _CALLED_AE_TITLE_NOT_RECOGNIZED,
    "calling-ae-title-not-recognized": _CALLING_AE_TITLE_NOT_RECOGNIZED,
    "host-not-allowed": _CALLING_AE_TITLE_NOT_RECOGNIZED,
}
_TOOLKIT_REFUSAL = "refused-by-toolkit"
_AWAITING_REQUEST, _AWAITING_CLOSE = "Sta2", "Sta13"  # states of the toolkit's machine (PS3.8 section 9.2.1)
_NO_LIMIT = 1 << 16
_ABORT_SECONDS = 5.0
_STOP_POLL_SECONDS = 0.05
_LOOK_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class AllowList:
    """The peers that may associate. With no source given, any may.

    Raises
    ------
    SettingsError
        If a host is neither an address, nor a network such as 10.1.0.0/16, nor a name that resolves.
    """

    def __init__(self, sources: Sequence[SourceSettings]) -> None:
        self._sources = [(source.ae_title, [n for host in source.hosts for n in _networks(host)]) for source in sources]

    def refusal(self, calling_ae_title: str, host: str) -> str:
        """Return why a peer may not associate, as a code; empty if it may."""
        if not self._sources:
            return ""
        of_title = [networks for title, networks in self._sources if title == calling_ae_title]
        if not of_title:
            return "calling-ae-title-not-recognized"
        address = _address(host)
        if any(not networks or any(address in network for network in networks) for networks in of_title):
            return ""
        return "host-not-allowed"


class Listener:
    """Accepts associations and keeps what they bring.

    Parameters
    ----------
    settings
        What to offer and allow.
    spool
        Where instances go; it must be prepared.
    record
        Commits an instance to the ledger; may be called again for one that it has. May raise OutOfResources.
    audit
        Where transfers and refusals are written.
    backlog
        How many series and jobs wait, for `backlog_limit`. May raise OutOfResources.
    transfers
        Told which association brings which series, and how it ends; None where nobody asks.
    reports
        Takes destinations' reports on what they commit themselves to; none are taken without it.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        spool: Spool,
        record: RecordInstance,
        audit: AuditLog,
        backlog: Callable[[], int] = lambda: 0,
        transfers: Transfers | None = None,
        *,
        reports: CommitmentReports | None = None,
    ) -> None:
        self._transfers = transfers
        self._settings = settings
        self._audit = audit
        self._allowed = AllowList(settings.source)
        self._limits = AssociationLimits(settings, spool, backlog)
        self._janitor = Janitor(spool, transfers)
        self._sessions = Sessions()
        self._handlers = StorageHandlers(spool, record, audit, self._sessions, settings.maximum_object_bytes, transfers)
        self._takeover = Takeover(settings, self._handlers, self._sessions)
        self._reports = reports or CommitmentReports({}, lambda *_: False, audit)
        self._server: BoundedServer | None = None
        self._has_failed = threading.Event()
        self._port = settings.port

    @property
    def port(self) -> int:
        """The TCP port; once started, the real one where the settings say 0."""
        return self._port

    def start(self) -> None:
        """Begin to listen, in threads of its own.

        Raises
        ------
        ServingError
            If the address or port can't be listened on.
        SettingsError
            If the files of `[listener.tls]` can't be used.
        """
        tls = server_context(self._settings.tls) if self._settings.tls is not None else None
        if tls is not None:
            tls.sslsocket_class = BoundedTlsSocket
        _configure_toolkit()
        entity = AE(self._settings.ae_title)
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.maximum_associations = _NO_LIMIT  # it would count connections that have asked for nothing yet
        entity.maximum_pdu_size = self._settings.maximum_pdu_size
        entity.acse_timeout = self._settings.acse_timeout_seconds
        entity.dimse_timeout = self._settings.dimse_timeout_seconds
        entity.network_timeout = self._settings.network_timeout_seconds
        try:
            server = entity.make_server(
                (self._settings.host, self._settings.port),
                contexts=supported_contexts(),
                evt_handlers=[
                    (evt.EVT_C_ECHO, self._handlers.echo),
                    (evt.EVT_C_STORE, self._handlers.store),
                    (evt.EVT_N_EVENT_REPORT, self._reports.report),
                    (evt.EVT_REQUESTED, self._on_requested),
                    (evt.EVT_ACSE_SENT, self._on_acse_sent),
                    (evt.EVT_FSM_TRANSITION, self._on_transition),
                    (evt.EVT_RELEASED, self._on_ended),
                    (evt.EVT_ABORTED, self._on_ended),
                    (evt.EVT_CONN_CLOSE, self._on_ended),
                ],
                server_class=BoundedServer,
                request_handler=TakenRequestHandler,
            )
        except OSError as error:
            raise ServingError(
                f"can't listen on {self._settings.host} port {self._settings.port} ({error.strerror}); "
                "choose another [listener] host or port, or end what uses it",
                code="listener-address",
            ) from error
        server.bounds = self._settings
        server.contexts = SharedContexts(server.contexts)
        server.takeover = self._takeover
        server.refuse_tls = self._refuse_tls
        server.tls = tls
        self._server = server
        self._port = server.server_address[1]
        self._janitor.start()
        threading.Thread(target=self._accept, args=(server,), name="listener", daemon=True).start()

    async def run(self, stop: asyncio.Event) -> None:
        """Watch the accepting until `stop` is set: a service, which ends before if no connection is accepted any more.

        May run before `start`.
        """
        while not stop.is_set() and not self._has_failed.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOOK_SECONDS)

    def stop(self) -> None:
        """Stop accepting, let running associations finish for `shutdown_seconds`, then abort them.

        An instance that is being kept at that moment is finished: it is either whole and in the ledger, or was never
        acknowledged. Safe to call twice.
        """
        server, self._server = self._server, None
        if server is None:
            return
        self._janitor.stop()
        server.close()
        _wait_for_associations(server, self._settings.shutdown_seconds)
        for association in server.active_associations:
            self._takeover.abort(association)
        _wait_for_associations(server, _ABORT_SECONDS)
        if not self._handlers.wait_idle(_ABORT_SECONDS):
            _log.error("an instance is still being kept; it will not be acknowledged")
        for session in self._sessions.all():
            self._audit_received(session)

    def _accept(self, server: BoundedServer) -> None:
        try:
            server.serve_forever()
        except Exception:  # noqa: BLE001  # the border of the process; whoever watches has the server end
            _log.exception("no connection is accepted any more because of an error in the listener")
            self._has_failed.set()

    def _on_requested(self, event: Event) -> None:
        """Admit or reject. The toolkit swallows errors of this handler, so admission is what must be reached."""
        request = event.assoc.requestor.primitive
        session = Session(
            calling_ae_title=str(request.calling_ae_title).strip(),
            called_ae_title=str(request.called_ae_title).strip(),
            source_host=str(event.assoc.requestor.address),
            refusal="listener-error",
        )
        self._sessions.add(event.assoc, session)
        try:
            reporting = self._reports.contexts_for(event.assoc)
            session.refusal = self._refusal(session) or self._congestion(event.assoc, needs_room=not reporting)
            if reporting and not session.refusal:
                event.assoc.acceptor.supported_contexts = reporting
            session.admitted = not session.refusal
        except Exception:  # noqa: BLE001  # a border of the process; what can't be judged is not admitted
            _log.exception("an association request could not be judged")
        if not session.admitted:
            permanent = (_REJECTED_PERMANENT, _SERVICE_USER, _REASONS.get(session.refusal, _NO_REASON_GIVEN))
            event.assoc.acse.send_reject(*TRANSIENT_REJECTIONS.get(session.refusal, permanent))
            event.assoc.kill()

    def _refusal(self, session: Session) -> str:
        if self._settings.check_called_ae_title and session.called_ae_title != self._settings.ae_title:
            return "called-ae-title-not-recognized"
        return self._allowed.refusal(session.calling_ae_title, session.source_host)

    def _congestion(self, association: Association, *, needs_room: bool) -> str:
        server = self._server
        others = server.active_associations if server is not None else []
        return self._limits.refusal(association, others, needs_room=needs_room)

    def _refuse_tls(self, address: str, error: OSError) -> None:
        """Tell of a peer without TLS, or a certificate that is let in. A handshake that never came is no alert."""
        code = TLS_HANDSHAKE_FAILED
        _log.warning("connection refused", code=code, source_host=address, reason=type(error).__name__)
        if isinstance(error, ssl.SSLError):
            self._audit_stranger(address, code)

    def _on_transition(self, event: Event) -> None:
        """Tell of a peer whose request the toolkit can't read or take, and ends by itself: it asks nobody about it."""
        if event.current_state == _AWAITING_REQUEST and event.next_state == _AWAITING_CLOSE:
            address = str(event.assoc.requestor.address)
            _log.warning("association refused", code=REQUEST_UNREADABLE, source_host=address)
            self._audit_stranger(address, REQUEST_UNREADABLE)

    def _audit_stranger(self, address: str, code: str) -> None:
        """Write the refusal of a peer of which nothing but its address is known to the audit log, once a minute."""
        if self._limits.is_new_report(code):
            with contextlib.suppress(AuditError):  # it is refused all the same
                self._audit.append(
                    AuditEvent.ASSOCIATION_REFUSED, Outcome.MINOR_FAILURE, source_host=address, code=code
                )

    def _on_acse_sent(self, event: Event) -> None:
        """Write each rejection, ours or the toolkit's, to the audit log before it leaves; note each release.

        A peer that closes its connection as soon as its release is answered ends it before the toolkit tells of the
        release itself.
        """
        if isinstance(event.primitive, A_RELEASE) and (released := self._sessions.of(event.assoc)) is not None:
            released.is_released = True
        if not isinstance(event.primitive, A_ASSOCIATE) or not event.primitive.result:
            return
        session = self._sessions.of(event.assoc)
        if session is None:
            return
        code = session.refusal or _TOOLKIT_REFUSAL
        _log.warning("association refused", code=code, source_host=session.source_host)
        if not self._limits.is_new_report(code):
            return
        is_full = code == STORAGE_BELOW_WATERMARK
        event_of_code = AuditEvent.STORAGE_BELOW_WATERMARK if is_full else AuditEvent.ASSOCIATION_REFUSED
        outcome = Outcome.SERIOUS_FAILURE if is_full else Outcome.MINOR_FAILURE
        try:
            self._audit.append(event_of_code, outcome, **session.participants(), code=code)
        except AuditError as error:  # it is refused all the same
            _log.error("a refusal could not be written to the audit log", code=error.code)

    def _on_ended(self, event: Event) -> None:
        session = self._sessions.of(event.assoc)
        if session is not None:
            self._audit_received(session)
            if self._transfers is not None:
                self._transfers.end(session, released=session.is_released or event.assoc.is_released)
        elif event.assoc.requestor.primitive is None:
            # gone before it asked for anything: its thread would wait on for the request
            event.assoc.dul.to_user_queue.put(None)

    def _audit_received(self, session: Session) -> None:
        """Write what an association brought, once for each study. More may follow what was queued at its end."""
        with session.lock:
            counts = session.take_counts()
        for study_instance_uid, of_class in counts.items():
            try:
                self._audit.append(
                    AuditEvent.INSTANCES_RECEIVED,
                    Outcome.SUCCESS,
                    **session.participants(),
                    study_instance_uid=study_instance_uid,
                    sop_class_uids=sorted(of_class),
                    instances=of_class.total(),
                )
            except AuditError as error:  # the ledger has them, and their begin is in the audit log
                _log.error("a finished transfer could not be written to the audit log", code=error.code)


def _configure_toolkit() -> None:
    """Set what the toolkit has as process-wide switches.

    Its own log is silenced: it holds UIDs, and a traceback for every garbled connection. UIDs are checked by the
    handlers, which answer with a status: the toolkit's check (ENFORCE_UID_CONFORMANCE) aborts the association instead.
    """
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.UNRESTRICTED_STORAGE_SERVICE = False
    _config.STORE_RECV_CHUNKED_DATASET = False


def _wait_for_associations(server: BoundedServer, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while server.active_associations and time.monotonic() < deadline:
        time.sleep(_STOP_POLL_SECONDS)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(host.split("%", 1)[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address


def _networks(host: str) -> list[_Network]:
    """Return the networks that a host of the settings stands for: an address is a network of one."""
    try:
        return [ipaddress.ip_network(host, strict=False)]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise SettingsError(
            f"[[listener.source]] names the host '{host}', which is no address and does not resolve; "
            "give an address, a network such as 10.1.0.0/16, or mend the name service",
            code="listener-source-host",
        ) from error
    return [ipaddress.ip_network(str(entry[4][0]).split("%", 1)[0]) for entry in found]
