"""The open sessions: opened on a received series, asked one request at a time, ended when nobody asks any more."""

from __future__ import annotations

import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.errors import AuditError, InputMissing, LimnerError, RequestRefused, SessionLost
from app.jobs.identity import ModelFacts
from app.jobs.records import JobInput, Records, SeenSeries
from app.settings import Settings
from app.telemetry import get_logger
from app.web.session_process import Answer, SessionProcess
from app.web.task import SessionTask
from operators.errors import OperatorError
from operators.sam.package import GeneralistPackage

_SWEEP_SECONDS = 0.5
_REMEMBERED = 256
"""Ended sessions whose end is still told."""
_TRITON_SHARE = 0.75
"""Of the time a request may take: Triton's deadline comes first, so that its failure does not end the session."""

_log = get_logger(__name__)


@dataclass
class Propagation:
    """3D that is under way, or how the last one ended."""

    state: Literal["running", "done", "cancelled", "failed"] = "running"
    done: int = 0
    most: int = 0
    slices: list[int] = field(default_factory=list)
    code: str = ""
    reason: str = ""


@dataclass
class OpenSession:
    """One session."""

    id: str
    series: SeenSeries
    inputs: list[JobInput]
    package: GeneralistPackage
    process: SessionProcess
    described: Mapping[str, Any]
    """Geometry and window, as the process told them."""
    used: float
    """When it was last asked, by `time.monotonic`."""
    steps: int = 0
    """What can be undone."""
    propagation: Propagation | None = None
    busy: threading.Lock = field(default_factory=threading.Lock)

    @property
    def model(self) -> ModelFacts:
        """What records say of its generalist."""
        package = self.package
        return ModelFacts(package.name, package.version, package.weights_digest, package.folder, channels=())


class Sessions:
    """All of them. Threads may call it at once.

    Parameters
    ----------
    settings
        The whole tree; ``[web]`` says how many and how long.
    spool_path_of
        The file of a digest.
    packages
        The generalists offered, by name.
    triton_target
        Where Triton answers.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        records: Records,
        audit: AuditLog,
        spool_path_of: Callable[[str], Path],
        packages: Mapping[str, GeneralistPackage],
        triton_target: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._records = records
        self._audit = audit
        self._spool_path_of = spool_path_of
        self._packages = packages
        self._triton_target = triton_target
        self._sessions: dict[str, OpenSession] = {}
        self._opening = 0
        self._beginning: set[SessionProcess] = set()
        self._ended: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, name="sessions", daemon=True)

    @property
    def packages(self) -> Mapping[str, GeneralistPackage]:
        """The generalists offered, by name."""
        return self._packages

    def start(self) -> None:
        """Begin to end what is idle."""
        self._sweeper.start()

    def stop(self) -> None:
        """End all sessions, also those that are being opened; whoever waits for an answer of one gets an error."""
        self._stopping.set()
        self._sweeper.join()
        for process in list(self._beginning):
            process.end()
        for session in list(self._sessions.values()):
            self._end(session, "server-stops")

    def open(self, study_uid: str, series_uid: str, model: str, window: Mapping[str, Any] | None) -> OpenSession:
        """Open a session on a received series.

        Raises
        ------
        RequestRefused
            ``model-unknown``, ``series-unknown``, ``series-receiving``, ``too-many-sessions``.
        InputMissing
            If its instances are no longer in the spool.
        OperatorError
            If the series can't be read, or the window is none.
        SessionLost
            If the process died, hung or grew too large over it.
        """
        package = self._packages.get(model)
        if package is None:
            raise RequestRefused(
                "the model is not among those offered; GET /v1/models lists them", code="model-unknown", http_status=404
            )
        series = self._series(study_uid, series_uid)
        inputs = self._records.latest_inputs(series)
        files = self._files(inputs)
        missing = sum(not path.is_file() for path in files)
        if missing:
            raise InputMissing(f"{missing} of the series' {len(files)} instances are no longer in the spool")
        number = str(uuid.uuid4())
        with self._slot():
            self._tell(AuditEvent.SESSION_OPENED, number, series, model=package.name, instances=len(files))
            process = self._process(files, package, window)
            self._beginning.add(process)
            try:
                described = process.described().facts
            except (OperatorError, LimnerError) as error:
                process.end()
                self._tell(AuditEvent.SESSION_ENDED, number, series, Outcome.MINOR_FAILURE, code=error.code)
                raise
            finally:
                self._beginning.discard(process)
            session = OpenSession(number, series, inputs, package, process, described, used=time.monotonic())
            with self._lock:
                self._sessions[number] = session
        _log.info("session.opened", session=number, model=package.name, instances=len(files))
        return session

    def session(self, number: str) -> OpenSession:
        """Return an open session.

        Raises
        ------
        RequestRefused
            ``session-unknown``, or ``session-ended`` if it was one.
        """
        with self._lock:
            session, ended = self._sessions.get(number), self._ended.get(number)
            if session is not None:
                session.used = time.monotonic()
                return session
        if ended is not None:
            raise RequestRefused(
                f"the session has ended ({ended}); open a new one", code="session-ended", http_status=410
            )
        raise RequestRefused("there is no such session; open one", code="session-unknown", http_status=404)

    def files_of(self, session: OpenSession) -> list[Path]:
        """Return where the session's instances lie now: a host may have dropped its copies since it was opened.

        Raises
        ------
        StorageError
            If the storage that hosts share does not answer.
        """
        return self._files(session.inputs)

    def _files(self, inputs: list[JobInput]) -> list[Path]:
        return [self._spool_path_of(one.digest) for one in inputs]

    def ask(self, session: OpenSession, request: Mapping[str, Any]) -> Answer:
        """Have a session's process follow a request.

        Raises
        ------
        RequestRefused
            ``session-busy`` if it is at work on another one.
        OperatorError, SessionLost
            As `SessionProcess.ask`. A lost session is ended.
        """
        with self.held(session):
            return self.ask_held(session, request)

    @contextmanager
    def held(self, session: OpenSession) -> Iterator[None]:
        """Keep a session for several requests; ``session-busy`` if another one is under way."""
        if not session.busy.acquire(blocking=False):
            raise _busy()
        try:
            yield
        finally:
            session.used = time.monotonic()
            session.busy.release()

    def ask_held(self, session: OpenSession, request: Mapping[str, Any]) -> Answer:
        """As `ask`, of a session that is held."""
        try:
            answer = session.process.ask(request)
        except SessionLost as error:
            self._end(session, error.code)
            raise
        session.steps = int(answer.facts.get("steps", session.steps))
        return answer

    def propagate(self, session: OpenSession, first: int | None, last: int | None) -> Propagation:
        """Begin 3D; the session is busy until it has ended. Raises ``session-busy``."""
        if not session.busy.acquire(blocking=False):
            raise _busy()
        propagation = session.propagation = Propagation()
        thread = threading.Thread(
            target=self._propagate, args=(session, propagation, first, last), name="propagation", daemon=True
        )
        thread.start()
        return propagation

    def cancel(self, session: OpenSession) -> Propagation:
        """Tell running 3D to end; raises ``nothing-to-cancel`` if there is none."""
        propagation = session.propagation
        if propagation is None or propagation.state != "running":
            raise RequestRefused(
                "no propagation is running that could be cancelled", code="nothing-to-cancel", http_status=409
            )
        session.process.cancel()
        return propagation

    def discard(self, number: str) -> None:
        """End a session and forget what was drawn; raises as `session`."""
        self._end(self.session(number), "discarded")

    def _propagate(self, session: OpenSession, propagation: Propagation, first: int | None, last: int | None) -> None:
        def progress(done: int, most: int) -> None:
            propagation.done, propagation.most, session.used = done, most, time.monotonic()

        ended: Literal["done", "cancelled", "failed"] = "failed"
        try:
            answer = session.process.ask({"ask": "propagate", "first": first, "last": last}, progress)
            session.steps = int(answer.facts["steps"])
            propagation.slices = [int(one) for one in answer.facts.get("slices", ())]
            ended = "cancelled" if answer.facts["cancelled"] else "done"
        except (OperatorError, LimnerError) as error:
            propagation.code, propagation.reason = error.code, str(error)
            if isinstance(error, SessionLost):
                self._end(session, error.code)
        except Exception:  # noqa: BLE001 - the thread's border: who waits must learn that it ended
            _log.error("session.defect", session=session.id, exc_info=True)
            propagation.code = "internal-error"
            propagation.reason = "an unexpected error; the diagnostic log tells where"
        finally:
            session.used = time.monotonic()
            session.busy.release()
            propagation.state = ended  # last: who sees it may ask again at once

    def _series(self, study_uid: str, series_uid: str) -> SeenSeries:
        for series in self._records.series_of_study(study_uid):
            if series.series_instance_uid == series_uid:
                if series.state == "receiving":
                    raise RequestRefused(
                        "instances of the series are still coming; try again in some seconds",
                        code="series-receiving",
                        http_status=409,
                    )
                return series
        raise RequestRefused(
            "no such series of such a study was received; send it by C-STORE first",
            code="series-unknown",
            http_status=404,
        )

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """A place among the sessions, while one is opened."""
        most = self._settings.web.maximum_sessions
        with self._lock:
            if self._stopping.is_set() or len(self._sessions) + self._opening >= most:
                raise RequestRefused(
                    f"all {most} sessions are in use; end one, or wait until an idle one ends",
                    code="too-many-sessions",
                    http_status=503,
                )
            self._opening += 1
        try:
            yield
        finally:
            with self._lock:
                self._opening -= 1

    def _process(
        self, files: list[Path], package: GeneralistPackage, window: Mapping[str, Any] | None
    ) -> SessionProcess:
        web, triton = self._settings.web, self._settings.triton
        task = SessionTask(
            files=tuple(files),
            package=package,
            window=window,
            triton_target=self._triton_target(),
            request_seconds=min(triton.request_seconds, _TRITON_SHARE * web.request_seconds),
            shared_memory=triton.shared_memory,
            embeddings_folder=self._settings.embeddings_folder,
            embedding_bytes=web.embedding_bytes,
        )
        return SessionProcess(task, memory_limit_bytes=web.memory_limit_bytes, deadline_seconds=web.request_seconds)

    def _sweep(self) -> None:
        """End what nobody asks any more, what died, and what does not answer though it was given its time."""
        while not self._stopping.wait(_SWEEP_SECONDS):
            longest = self._settings.web.idle_seconds
            for process in [one for one in list(self._beginning) if one.is_stuck()]:
                process.end()
            for session in list(self._sessions.values()):
                if session.process.is_stuck():
                    self._end(session, "session-timed-out")
                elif session.busy.locked():
                    continue
                elif not session.process.running:
                    self._end(session, "session-crashed")
                elif time.monotonic() - session.used > longest:
                    self._end(session, "idle")

    def _end(self, session: OpenSession, why: str) -> None:
        with self._lock:
            if self._sessions.pop(session.id, None) is None:
                return
            self._ended[session.id] = why
            while len(self._ended) > _REMEMBERED:
                self._ended.popitem(last=False)
        session.process.end()
        in_order = why in ("discarded", "idle", "server-stops")
        with suppress(AuditError):  # it has ended all the same; the log's own failure is told where it is first met
            outcome = Outcome.SUCCESS if in_order else Outcome.MINOR_FAILURE
            self._tell(AuditEvent.SESSION_ENDED, session.id, session.series, outcome, code=why)
        _log.info("session.ended", session=session.id, code=why)

    def _tell(
        self,
        event: AuditEvent,
        session: str,
        series: SeenSeries,
        outcome: Outcome = Outcome.SUCCESS,
        **detail: str | int,
    ) -> None:
        self._audit.append(
            event,
            outcome,
            session=session,
            study_instance_uid=series.study_instance_uid,
            series_instance_uid=series.series_instance_uid,
            **detail,
        )


def _busy() -> RequestRefused:
    return RequestRefused(
        "the session is at work on another request; wait for its answer, or cancel its propagation",
        code="session-busy",
        http_status=409,
    )
