"""The API as one part of the server: what it needs is read before anything starts, then it runs until it is stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.errors import SettingsError
from app.jobs.accepting import Accepting
from app.jobs.records import Records
from app.jobs.result_files import ResultFiles
from app.settings import Settings
from app.telemetry import get_logger
from app.web.access import Access
from app.web.api import Api, build
from app.web.server import WebServer
from app.web.sessions import Sessions
from operators.errors import InferenceFailed, ModelPackageError
from operators.sam.network import check_served
from operators.sam.package import GeneralistPackage

"""What the fork server imports for sessions."""
_CHECK_SECONDS = 10.0

_log = get_logger(__name__)


def load_generalists(settings: Settings) -> dict[str, GeneralistPackage]:
    """Read the generalists of ``[web]``, by name.

    Raises
    ------
    SettingsError
        If one can't be used, or there is none.
    """
    if not settings.web.models:
        raise SettingsError(
            "the API needs a generalist to offer; list its folder in web.models (`limner models import sam` makes one)",
            code="web-models",
        )
    found = {}
    for name in settings.web.models:
        try:
            found[name] = GeneralistPackage.load(settings.model_repository / name)
        except ModelPackageError as error:
            raise SettingsError(f"web.models '{name}': {error}", code=error.code) from error
    return found


class WebService:
    """The API, as a context manager.

    Parameters
    ----------
    spool_path_of
        The file of a digest.
    packages
        Of `load_generalists`.
    triton_target
        Where Triton answers.
    program_version
        Limner's version.
    result_files
        Where what people accept lies.
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
        program_version: str,
        result_files: ResultFiles,
    ) -> None:
        self._packages = packages
        self._triton_target = triton_target
        self._sessions = Sessions(
            settings=settings,
            records=records,
            audit=audit,
            spool_path_of=spool_path_of,
            packages=packages,
            triton_target=triton_target,
        )
        accepting = Accepting(
            settings=settings,
            records=records,
            audit=audit,
            program_version=program_version,
            result_files=result_files,
        )

        def tell_refused(host: str) -> None:
            audit.append(AuditEvent.API_ACCESS_REFUSED, Outcome.MINOR_FAILURE, source_host=host, code="token-wrong")

        app = build(Api(settings, self._sessions, accepting, records))
        web = settings.web
        self._server = WebServer(Access(app, web.read_token(), tell_refused), web.host, web.port)

    @property
    def sessions(self) -> Sessions:
        """Those that are open."""
        return self._sessions

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    def __enter__(self) -> WebService:
        """Check the models and listen.

        Raises
        ------
        SettingsError
            If Triton serves another model than a generalist's folder describes.
        ServingError
            If the address can't be listened on.
        """
        for name, package in self._packages.items():
            try:
                check_served(package, self._triton_target(), deadline_seconds=_CHECK_SECONDS)
            except InferenceFailed as error:
                if error.code in ("model-mismatch", "model-missing"):
                    raise SettingsError(f"web.models '{name}': {error}", code=error.code) from error
                _log.warning("triton.not_ready", code=error.code, model=name)
        self._sessions.start()
        self._server.start()
        _log.info("web.started", port=self.port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take no more requests, and end the sessions, so that none of those under way is waited for."""
        self._server.close()
        self._sessions.stop()
        self._server.stop()
        _log.info("web.stopped")
